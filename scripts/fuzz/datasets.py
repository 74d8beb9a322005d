"""Mutate small data sets of all formats, and read them: a data set or one typed error, no hang.

    python scripts/fuzz/datasets.py --count 3000 --seed 0

Each input is one of the formats' data sets with one to three of its files mutated: bytes and
lines changed, doubled, swapped or cut, numbers and names put in the place of others, files
emptied, removed or made folders. Each is read in the same process under a watchdog; what fails is
kept in a folder that is named. Exits with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from sppdet.core.errors import SppdetError
from sppdet.datasets.build import MAX_LOST
from sppdet.datasets.load import load_dataset
from sppdet.datasets.raw import Findings
from sppdet.datasets.tools.convert import convert_dataset, load_splits
from sppdet.datasets.tools.writers import TARGETS

# Longest time that an input of a few files may take.
LIMIT_SECONDS = 20

Box = tuple[float, float, float, float]
_SIZE = (64, 48)
_OBJECTS: tuple[tuple[str, tuple[tuple[str, Box], ...]], ...] = (
    ("a.png", (("cat", (4.0, 5.0, 30.0, 40.0)), ("dog", (0.0, 0.0, 64.0, 48.0)))),
    ("b.png", (("cat", (10.0, 10.0, 20.5, 30.0)),)),
    ("c.png", ()),
)
_VALUES = (
    b"-1", b"0", b"1e309", b"nan", b"99999999999999999999", b"", b"null", b"true", b"[]", b"{}",
    b"../../../etc/passwd", b"/etc/passwd", b"C:\\x", b"\xff\xfe", b"\0", b"\xe2\x80\xae", b"'",
    b'"', b"<", b"&x;", b"&#0;", b"-", b"*", b"&a", b"!!t", b"|", b"{", b"[" * 3000, b"a" * 5000,
    b"0.5", b"cat", b"\r", b"\n", b"\t", b";", b",", b":", b"#", b"1e-320", b"0x10",
    b"\xef\xbb\xbf", b"images", b"train", b"a.png", b".", b"..",
)  # fmt: skip
_TOKEN = re.compile(rb"[\w.+-]+")


class Timeout(BaseException):
    """An input took too long; no `Exception`, so that no reader catches it."""


def main() -> int:
    """Run; print a line for each failure, and one at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the inputs that fail")
    options = parser.parse_args()
    started = time.monotonic()
    outcomes, failures = fuzz(options.count, options.seed, options.keep)
    print("".join(f"{line}\n" for line in failures), end="")
    counts = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
    print(f"{options.count} inputs in {time.monotonic() - started:.0f} s: {counts}")
    return 1 if failures else 0


def fuzz(count: int, seed: int, keep: Path | None = None) -> tuple[Counter[str], list[str]]:
    """Read `count` mutated data sets; count the outcomes, and keep the inputs that failed."""
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_seeds(work / "seeds")
        seeds = sorted((work / "seeds").iterdir())
        for number in range(count):
            rng = random.Random(f"{seed} {number}")
            source = work / "input"
            chosen = seeds[number % len(seeds)]
            shutil.copytree(chosen, source)
            mutate_folder(source, rng)
            format_name = rng.choice([None, None, chosen.name.split("-")[0]])
            split = rng.choice([None, None, None, "train"])
            outcome = read(source, format_name, split, rng.choice((MAX_LOST, 1.0)))
            outcomes[outcome if outcome in ("data set", "typed error") else "failed"] += 1
            if outcome not in ("data set", "typed error"):
                kept = (keep or Path(tempfile.mkdtemp())) / f"{seed}-{number}"
                shutil.copytree(source, kept, dirs_exist_ok=True, symlinks=True)
                failures.append(f"input {number} ({chosen.name}) in {kept}: {outcome}")
            shutil.rmtree(source)
    return outcomes, failures


def read(source: Path, format_name: str | None, split: str | None, max_lost: float) -> str:
    """Read a data set; `data set` or `typed error`, else what went wrong."""
    try:
        with watchdog(LIMIT_SECONDS):
            load_dataset(source, split, format=format_name, findings=Findings(), max_lost=max_lost)
    except SppdetError as error:
        return "typed error" if "\n" not in str(error) and error.hint else f"no hint: {error}"
    except Timeout:
        return f"takes longer than {LIMIT_SECONDS} s"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    return "data set"


@contextmanager
def watchdog(seconds: int) -> Iterator[None]:
    """Raise `Timeout` in the block after so many seconds."""

    def stop(_signal: int, _frame: object) -> None:
        raise Timeout

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def write_seeds(folder: Path) -> None:
    """Write one small data set of each kind, in a folder named after its format."""
    yolo = folder / "yolo-first"
    for name, objects in _OBJECTS:
        write_image(yolo / "train/images" / name)
        lines = [f"{('cat', 'dog').index(label)} {shares(box)}\n" for label, box in objects]
        write(yolo / "train/labels" / f"{name[0]}.txt", "".join(lines))
    names = "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['cat', 'dog']\n"
    write(yolo / "data.yaml", names)
    splits = load_splits(yolo)
    for target in TARGETS:
        convert_dataset(splits, folder / f"{target}-own", target, copy=True)
    write_others(folder)


def write_others(folder: Path) -> None:
    """Write data sets of other layouts and tools."""
    for name, objects in _OBJECTS:
        for place in (
            "yolo-beside",
            "csv-plain",
            "csv-openimages/train",
            "labelme-beside",
            "cvat",
            "labelstudio",
        ):
            write_image(folder / place / name)
        lines = [f"{('cat', 'dog').index(label)} {shares(box)}\n" for label, box in objects]
        write(folder / "yolo-beside" / f"{name[0]}.txt", "".join(lines))
        points = [
            f'{{"label": "{label}", "points": [[{x1}, {y1}], [{x2}, {y2}]], "group_id": null,'
            f' "shape_type": "rectangle", "flags": {{}}}}'
            for label, (x1, y1, x2, y2) in objects
        ]
        text = f'{{"version": "5.4", "flags": {{}}, "shapes": [{", ".join(points)}],'
        text += f' "imagePath": "{name}", "imageData": null, "imageHeight": 48, "imageWidth": 64}}'
        write(folder / "labelme-beside" / f"{name[0]}.json", text)
    write(folder / "labelstudio/export.json", json.dumps(_label_studio()))
    write(folder / "yolo-beside/classes.txt", "cat\ndog\n")
    rows = [(n, label, box) for n, objects in _OBJECTS for label, box in objects]
    plain = [f"{n},{','.join(map(str, box))},{label}\n" for n, label, box in rows]
    write(folder / "csv-plain/labels.csv", "".join([*plain, "c.png,,,,,\n"]))
    head = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf\n"
    shared = [
        f"{n[0]},x,{label},1,{x1 / 64},{x2 / 64},{y1 / 48},{y2 / 48},0\n"
        for n, label, (x1, y1, x2, y2) in rows
    ]
    write(folder / "csv-openimages/train-bbox.csv", head + "".join(shared))
    cvat = ["<annotations><version>1.1</version>"]
    for number, (name, objects) in enumerate(_OBJECTS):
        cvat.append(f'<image id="{number}" name="{name}" width="64" height="48">')
        for label, (x1, y1, x2, y2) in objects:
            box = f'xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"'
            cvat.append(f'<box label="{label}" occluded="0" {box} z_order="0"></box>')
        cvat.append("</image>")
    write(folder / "cvat/annotations.xml", "\n".join([*cvat, "</annotations>"]))


def _label_studio() -> list[dict[str, Any]]:
    tasks = []
    for name, objects in _OBJECTS:
        result = []
        for label, box in objects:
            x, y, width, height = (100 * float(share) for share in shares(box).split())
            value: dict[str, Any] = {"x": x - width / 2, "y": y - height / 2, "width": width}
            value |= {"height": height, "rotation": 0, "rectanglelabels": [label]}
            size = {"original_width": _SIZE[0], "original_height": _SIZE[1]}
            result.append({**size, "value": value, "type": "rectanglelabels"})
        data = {"image": f"/data/upload/1/0a1b2c3d-{name}"}
        tasks.append({"data": data, "annotations": [{"was_cancelled": False, "result": result}]})
    return tasks


def write_image(path: Path) -> None:
    """Write a small image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", _SIZE, (90, 120, 60)).save(path)


def write(path: Path, text: str) -> None:
    """Write a text file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def shares(box: Box) -> str:
    """Format a box as YOLO does."""
    x1, y1, x2, y2 = box
    width, height = _SIZE
    values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return " ".join(f"{value:.6f}" for value in values)


def mutate_folder(folder: Path, rng: random.Random) -> None:
    """Mutate one to three files of a folder, texts before images."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    texts = [path for path in files if path.suffix != ".png"]
    for _ in range(rng.randint(1, 3)):
        path = rng.choice(texts if rng.random() < 0.9 else files)
        if not path.is_file():
            continue
        kind = rng.random()
        if kind < 0.03:
            path.unlink()
        elif kind < 0.05:
            path.unlink()
            path.mkdir()
        elif kind < 0.07:
            path.unlink()
            path.symlink_to(path)
        else:
            data = path.read_bytes()
            for _ in range(rng.randint(1, 4)):
                data = rng.choice(_MUTATIONS)(data, rng)
            path.write_bytes(data)


def _put_value(data: bytes, rng: random.Random) -> bytes:
    tokens = list(_TOKEN.finditer(data))
    if not tokens:
        return rng.choice(_VALUES)
    one = rng.choice(tokens)
    return data[: one.start()] + rng.choice(_VALUES) + data[one.end() :]


def _swap_values(data: bytes, rng: random.Random) -> bytes:
    tokens = list(_TOKEN.finditer(data))
    if len(tokens) < 2:
        return data
    a, b = sorted(rng.sample(tokens, 2), key=lambda one: one.start())
    return data[: a.start()] + b[0] + data[a.end() : b.start()] + a[0] + data[b.end() :]


def _change_byte(data: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + bytes([rng.randrange(256)]) + data[at + rng.randint(0, 1) :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randint(0, len(data))]


def _drop_part(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
    return data[:a] + data[b:]


def _double_part(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
    return data[:b] + data[a:b] * rng.choice((1, 1, 50)) + data[b:]


def _change_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    rng.shuffle(lines)
    return rng.choice((b"\n", b"\r\n", b"\r", b" ", b"\n\n")).join(lines)


def _encode(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(
        rng.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp500")), "replace"
    )


_MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _put_value, _put_value, _put_value, _swap_values, _change_byte, _cut, _drop_part, _double_part,
    _change_lines, _encode,
)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
