"""`sppdet detect` killed, interrupted, cut off from its reader: what was found is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.made_detector import picture

ROOT = Path(__file__).resolve().parent.parent.parent.parent
COMMAND = (sys.executable, "-c", "from sppdet.cli.main import main; main()")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="this system has no such signals")


def start(*words: str | Path, **environment: str) -> subprocess.Popen[str]:
    """The command in a process of its own, whose lines can be read as they come."""
    # What runs in the background of a script inherits that interrupts are ignored.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    signal.signal(signal.SIGINT, usual)
    return process


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many photos that nobody reads or waits for all of them."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(60):
        Image.fromarray(picture(60, 50, seed=number)).save(folder / f"{number:02d}.png")
    return folder


def test_killed_at_random_and_given_again_the_lines_are_those_of_an_unbroken_run(
    made: Path, tmp_path: Path
) -> None:
    path = ROOT / "scripts" / "fuzz" / "killed_detect.py"
    code = (
        f"import sys, importlib.util; from pathlib import Path\n"
        f"spec = importlib.util.spec_from_file_location('killed', {str(path)!r})\n"
        "killed = importlib.util.module_from_spec(spec); spec.loader.exec_module(killed)\n"
        "found = killed.check(Path(sys.argv[1]), sys.argv[2], 40, 4, seed=3, drawings=True)\n"
        "print(*found)"
    )
    words = [sys.executable, "-c", code, str(tmp_path), str(made)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kills, images, *problems = done.stdout.split(maxsplit=2)
    assert problems == ["[]\n"]
    assert int(images) == 40
    assert int(kills) >= 2


def test_interrupted_the_same_command_goes_on(made: Path, many: Path, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    words = ("detect", many, "--model", made, "--threads", "1", "--json", path)
    process = start(*words)
    assert process.stdout is not None
    while "03.png" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    told = [line for line in err.splitlines() if line.startswith("sppdet: interrupted")]
    assert len(told) == 1
    assert "found.json.part.jsonl: the same command goes on from there" in told[0]
    document = json.loads(path.read_bytes())
    assert not document["complete"]
    assert 4 <= len(document["images"]) < 60
    again = start(*words)
    out, _ = again.communicate()
    assert again.returncode == 0
    assert f"({len(document['images'])} of them done before)" in out
    whole = json.loads(path.read_bytes())
    assert whole["complete"]
    assert len(whole["images"]) == 60
    assert whole["images"][: len(document["images"])] == document["images"]


def test_a_reader_that_leaves_ends_it_quietly(made: Path, many: Path, tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    process = start("detect", many, "--model", made, "--threads", "1", "--jsonl", path)
    assert process.stdout is not None
    assert process.stderr is not None
    first = process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    process.wait()
    assert process.returncode == 1
    assert first.startswith(str(many / "00.png"))
    assert not [line for line in err.splitlines() if "Error" in line or "sppdet:" in line]
    found = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert 1 <= len(found) < 60


def test_an_output_that_cannot_hold_a_name_shows_it_escaped(
    made: Path, many: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    name = "фото.png"
    (tmp_path / "in" / name).write_bytes((many / "00.png").read_bytes())
    broken = os.fsdecode(b"caf\xe9.png")
    (tmp_path / "in" / broken).write_bytes(b"")
    path = tmp_path / "found.json"
    words = ("detect", tmp_path / "in", "--model", made, "--threads", "1", "--json", path)
    process = start(*words, PYTHONIOENCODING="latin-1")
    out, err = process.communicate()
    assert process.returncode == 1
    assert "\\u0444\\u043e\\u0442\\u043e.png: " in out
    assert "1 of 2 images could not be read" in err
    assert {Path(one["file"]).name for one in json.loads(path.read_bytes())["images"]} == {
        name,
        broken,
    }


def test_a_full_disk_under_standard_output_is_told(made: Path, many: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    words = [*COMMAND, "detect", str(many / "00.png"), "--model", str(made), "--threads", "1"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    told = [line for line in done.stderr.splitlines() if line.startswith("sppdet:")]
    assert done.returncode == 1
    assert len(told) == 1
    assert "standard output: No space left on device" in told[0]
    assert "Traceback" not in done.stderr
