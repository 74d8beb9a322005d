"""`add-class`, `remove-class`, `rename-class` and `models FILE`, on a made model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sppdet.cli import main
from sppdet.core.model_file import read_header
from sppdet.datasets import make_synthetic_voc
from sppdet.detection.detector import Detector
from tests.cli.conftest import Run, assert_one_line
from tests.helpers.added_cases import rows
from tests.helpers.made_detector import CLASSES, make_detector, picture

# The model knows the ring already.
DATA_CLASSES = ("ring", "square", "star")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    sizes = {"train": 5, "val": 1, "test": 0, "width": 120, "height": 90}
    return make_synthetic_voc(root, **sizes, classes=DATA_CLASSES)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "made.safetensors"
    start = {"name": "default", "datasets": ["photos"]}
    says = {"dataset": "drawings", "images": 7, "started_from": start}
    make_detector().save(path, description="a made one", provenance=says)
    return path


@pytest.fixture(scope="module")
def mine(data: Path, made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with two classes more, not to be changed."""
    path = tmp_path_factory.mktemp("mine") / "mine.safetensors"
    with pytest.raises(SystemExit) as left:
        main(["add-class", str(data), "--model", str(made), "--out", str(path)])
    assert not left.value.code
    return path


def names(path: Path) -> tuple[str, ...]:
    return read_header(path).classes


def images(data: Path) -> list[Path]:
    return sorted((data / "JPEGImages").iterdir())


def test_classes_that_are_new_are_added(run: Run, data: Path, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "mine.safetensors"
    ran = run("add-class", data, "--model", made, "--out", out, "--threads", 1)
    assert ran.code == 0
    assert "learning from train" in ran.out
    assert "shapes train: 5 images" in ran.out
    assert "the model has these already, and they stay as they are: ring" in ran.err
    for name in ("square", "star"):
        assert f"{name}: " in ran.err
    assert f"{out}: 5 classes, {out.stat().st_size / 1e6:.1f} MB" in ran.out
    assert f"now: sppdet detect photo.jpg --model {out}" in ran.out
    assert names(out) == (*CLASSES, "square", "star")
    header, before = read_header(out), read_header(made)
    assert header.description == "a made one"
    assert before.provenance.items() <= header.provenance.items()
    found, old = (Detector.load(path).detect(picture()) for path in (out, made))
    assert rows(found, CLASSES) == rows(old, CLASSES)
    assert rows(found, CLASSES)


def test_some_classes_of_some_images_are_added(
    run: Run, data: Path, made: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mine.safetensors"
    common = ("add-class", data, "--model", made, "--out", out, "--split", "all")
    ran = run(*common, "--classes", "star", "--limit", 3)
    assert ran.code == 0
    assert "3 images" in ran.out
    assert names(out) == (*CLASSES, "star")
    alone = run(*common, "--classes", "square", "--limit", 2)
    assert "how well it is found cannot be told" in alone.err
    assert_one_line(run(*common, "--classes", "moon"), "no class 'moon'", "ring, square, star")


def test_nothing_new_is_an_error(run: Run, data: Path, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    ran = run("add-class", data, "--classes", "ring", "--model", made, "--out", out)
    assert_one_line(ran, "no class that is new to the model, but ring", "sppdet remove-class")
    assert not out.exists()


@pytest.mark.parametrize("name", ["mine.bin", "", "taken/mine.safetensors"])
def test_where_to_write_is_checked_first(
    run: Run, data: Path, made: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "taken").write_text("a file")
    ran = run("add-class", data, "--model", made, "--out", tmp_path / name)
    assert_one_line(ran, str(tmp_path / name), "name" if name != "mine.bin" else "end it in")
    assert not ran.out
    folder = tmp_path / "mine.safetensors"
    folder.mkdir()
    assert_one_line(run("remove-class", "ring", "--model", made, "--out", folder), "is a folder")


def test_shipped_models_and_several_are_not_changed(run: Run, tmp_path: Path) -> None:
    from sppdet.detection.model_zoo import resolve_model

    shipped = resolve_model("default")
    ran = run("remove-class", "cow", "--out", shipped)
    assert_one_line(ran, str(shipped), "where shipped models are")
    out = tmp_path / "mine.safetensors"
    for name in ("balanced", "default+lite0"):
        ran = run("remove-class", "cow", "--model", name, "--out", out)
        assert_one_line(ran, f"{name} is 2 models (default, lite0)", "name a single one")
    assert not out.exists()


def test_an_image_that_cannot_be_read_leaves_nothing(run: Run, made: Path, tmp_path: Path) -> None:
    sizes = {"train": 2, "val": 0, "test": 0, "width": 120, "height": 90}
    root = make_synthetic_voc(tmp_path / "shapes", **sizes, classes=("star",))
    (first, _) = images(root)
    # The header is whole: what is wrong shows when the pixels are read.
    first.write_bytes(first.read_bytes()[:600])
    out = tmp_path / "out" / "mine.safetensors"
    ran = run("add-class", root, "--model", made, "--out", out)
    assert ran.code == 1
    assert first.name in ran.err.splitlines()[-1]
    assert not out.parent.exists()


def test_one_mistake_is_corrected(run: Run, data: Path, mine: Path, tmp_path: Path) -> None:
    photo, wrong = images(data)[0], tmp_path / "wrong.json"
    found = run("detect", photo, "--model", mine, "--json", wrong, "--threshold", 0)
    assert found.code == 0
    document = json.loads(wrong.read_text())
    (record,) = document["images"]
    record["detections"] = [one for one in record["detections"] if one["class"] == "star"][:3]
    wrong.write_text(json.dumps(document))
    out = tmp_path / "mine.safetensors"
    ran = run("add-class", "--model", mine, "--not", wrong, "--out", out)
    assert ran.code == 0
    assert "star: " in ran.err
    assert "square: " not in ran.err
    told = run("models", out).out
    assert "corrected by" in next(line for line in told.splitlines() if "star," in line)
    assert "corrected" not in next(line for line in told.splitlines() if "square," in line)
    before, after = (Detector.load(path).detect(photo) for path in (mine, out))
    others = [*CLASSES, "square"]
    assert rows(before, others) == rows(after, others)
    assert rows(before, ["star"]) != rows(after, ["star"])


def test_a_folder_of_images_without_the_class(
    run: Run, data: Path, made: Path, mine: Path, tmp_path: Path
) -> None:
    wrong, out = tmp_path / "wrong", tmp_path / "mine.safetensors"
    wrong.mkdir()
    (wrong / "a.jpg").write_bytes(images(data)[1].read_bytes())
    common = ("--not", wrong, "--out", out)
    ran = run("add-class", "--model", mine, *common)
    assert_one_line(ran, "which class", "--classes", "square, star")
    ran = run("add-class", "--model", mine, "--classes", "star", *common)
    assert "of 1 image taught to be none" in ran.err
    assert ran.code == 0
    ran = run("add-class", "--model", made, "--classes", "star", *common)
    assert_one_line(ran, "no added class 'star'", "none")
    # Together with what is learned.
    ran = run("add-class", data, "--classes", "square", "--model", made, *common)
    assert ran.code == 0
    assert "square: " in ran.err
    assert "taught to be none" in ran.err
    assert_one_line(run("add-class", "--model", mine, "--out", out), "nothing to learn from")


@pytest.mark.parametrize(
    ("document", "part"),
    [
        ("{", "broken JSON"),
        ("[]", "no list of images"),
        ({"images": [{"detections": []}]}, "image 1 is not as it should be"),
        ({"images": [{"file": "a.jpg", "detections": [3]}]}, "image 1"),
        ({"images": [{"file": "a.jpg", "detections": [{"class": "star"}]}]}, "image 1"),
        ({"images": [{"file": "a", "detections": [{"class": "star", "box": [5, 0, 5, 9]}]}]},
         "encloses nothing"),
        ({"images": [{"file": "a", "detections": [{"class": "star", "box": [0, 0, 1e300, 9]}]}]},
         "is no box"),
        ({"images": [{"file": "a", "error": "cannot be read"}]}, "no detection of an added class"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_detections_is_refused(
    run: Run, mine: Path, tmp_path: Path, document: Any, part: str
) -> None:
    path, out = tmp_path / "wrong.json", tmp_path / "mine.safetensors"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    ran = run("add-class", "--model", mine, "--not", path, "--out", out)
    assert_one_line(ran, str(path), part)
    assert not out.exists()


def test_classes_are_removed_and_renamed(run: Run, mine: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    ran = run("remove-class", "ring", "--model", mine, "--out", out)
    assert ran.out.startswith(f"{out}: 4 classes, ")
    assert names(out) == ("disc", "cross", "square", "star")
    # A file may take the place of the one it was made of.
    assert run("rename-class", "star", "sun", "--model", out, "--out", out).code == 0
    assert names(out) == ("disc", "cross", "square", "sun")
    ran = run("rename-class", "sun", "disc", "--model", out, "--out", out)
    assert_one_line(ran, "has a class 'disc' already")
    assert_one_line(run("remove-class", "moon", "--model", out, "--out", out), "no class 'moon'")
    told = run("models", out).out
    assert "  removed: ring" in told
    assert "  added: sun, " in told


def test_a_model_file_tells_where_its_classes_came_from(
    run: Run, made: Path, mine: Path, tmp_path: Path
) -> None:
    lines = run("models", mine).out.splitlines()
    assert lines[0].startswith(f"{mine}: ")
    assert "5 classes" in lines[0]
    assert lines[1:3] == ["  a made one", "  trained on drawings, 7 images: ring, disc, cross"]
    assert lines[3].startswith("  added: square, ")
    assert "of shapes train" in lines[3]
    assert lines[5:] == ["  started from default, trained on photos", "  not calibrated"]
    assert "added" not in run("models", made).out
    assert "person" in run("models", "fast").out
    assert_one_line(run("models", tmp_path / "no"), "no such model")


def test_figures_on_images_that_a_class_was_learned_from_come_with_a_warning(
    run: Run, data: Path, mine: Path
) -> None:
    for split in ("train", "val"):
        ran = run("evaluate", data, "--model", mine, "--split", split, "--limit", 1)
        assert ran.code == 0
        assert ("say nothing of new images" in ran.err) == (split == "train")


KILLED = """
import os, signal, sys
target = sys.argv[-1]
def listen(event, arguments):
    if event == "os.rename" and os.fspath(arguments[1]) == target:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(listen)
from sppdet.cli import main
main(sys.argv[1:])
"""


def test_a_file_is_there_whole_or_not_at_all(data: Path, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    words = ["add-class", data, "--classes", "star", "--model", made, "--out", out]
    command = [sys.executable, "-c", KILLED, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists()
    assert not list(tmp_path.glob("*.safetensors"))
