"""The command line: exit codes, one-line errors, and what each command writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from sppdet.cli import main
from sppdet.datasets import load_voc, make_synthetic_voc
from sppdet.evaluation.voc_files import write_voc_detections
from sppdet.types import Dataset, Detections


class Ran(NamedTuple):
    """What a command left behind."""

    code: object
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process."""

    def call(*argv: str | Path) -> Ran:
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in argv])
        out, err = capsys.readouterr()
        return Ran(left.value.code or 0, out, err)

    return call


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic VOC data set, not to be changed."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    return make_synthetic_voc(root, train=4, val=3, test=0, width=120, height=90)


def _one_line(ran: Ran, *parts: str) -> None:
    """The command failed with one line on standard error that has all of `parts`."""
    assert ran.code == 1
    lines = ran.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("sppdet: ")
    for part in parts:
        assert part in lines[0]


def test_no_arguments_show_the_help(run: Run) -> None:
    ran = run()
    assert "Usage" in ran.out + ran.err
    assert ran.code in (0, 2)


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("detect",),
        ("train",),
        ("evaluate",),
        ("propose",),
        ("data",),
        ("data", "download"),
        ("data", "synthetic"),
        ("data", "check"),
        ("models",),
    ],
    ids=" ".join,
)
def test_every_command_explains_itself(run: Run, command: tuple[str, ...]) -> None:
    ran = run(*command, "--help")
    assert ran.code == 0
    assert "Usage" in ran.out


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys; from sppdet.cli.app import app\n"
        "try: app(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numba', 'cv2', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


def test_the_version_is_told(run: Run) -> None:
    assert run("--version").out.startswith("sppdet ")


@pytest.mark.parametrize(
    "argv",
    [
        ("fly",),
        ("detect",),
        ("train", "data"),
        ("detect", "x.jpg", "--threshold", "high"),
        ("train", "data", "--run", "r", "--seed", "-1"),
        ("data", "check", "x", "--colour"),
    ],
    ids=" ".join,
)
def test_wrong_usage_leaves_with_2(run: Run, argv: tuple[str, ...]) -> None:
    assert run(*argv).code == 2


def test_synthetic_and_check(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "shapes"
    made = run("data", "synthetic", root, "--train", "3", "--val", "2", "--test", "0")
    assert made.code == 0
    again = run("data", "synthetic", root)
    _one_line(again, str(root), "already there")
    checked = run("data", "check", root)
    assert checked.code == 0
    dataset = load_voc(root, "train")
    assert "shapes train: 3 images (0 without objects)" in checked.out
    assert "shapes val: 2 images" in checked.out
    assert all(name in checked.out for name in dataset.classes)
    one = run("data", "check", root, "--split", "val")
    assert "val: 2 images" in one.out
    assert "train: 3" not in one.out


def test_check_names_every_broken_file(run: Run, tmp_path: Path) -> None:
    root = make_synthetic_voc(tmp_path / "shapes", train=4, val=0, test=0, width=64, height=64)
    (root / "Annotations" / "000001.xml").write_text("<annotation>")
    (root / "Annotations" / "000002.xml").unlink()
    image = root / "JPEGImages" / "000003.jpg"
    image.write_bytes(image.read_bytes()[:200])
    ran = run("data", "check", root)
    assert ran.code == 1
    errors = [line for line in ran.err.splitlines() if line.startswith("sppdet: ")]
    assert len(errors) == 4
    for name in ("000001.xml", "000002.xml", "000003.jpg", "3 problems"):
        assert any(name in line for line in errors)
    assert "train: 2 images" in ran.out


@pytest.mark.parametrize("command", [("data", "check"), ("evaluate",), ("train",)], ids=" ".join)
def test_missing_data_is_named(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    options = ["--run", tmp_path / "run"] if command == ("train",) else []
    absent = tmp_path / "absent"
    _one_line(run(*command, absent, *options), str(absent), "no such folder")
    _one_line(run(*command, absent / "a.json", *options), "a.json", "add --images DIR")


def test_an_unknown_download_is_named(run: Run, tmp_path: Path) -> None:
    ran = run("data", "download", "1066", "--to", tmp_path)
    assert ran.code == 1
    assert "choose one of 2007, 2007-test, 2012" in ran.err


def _perfect(dataset: Dataset) -> dict[str, Detections]:
    return {
        sample.image_id: Detections(
            sample.boxes, np.ones(len(sample.boxes), np.float32), sample.labels, dataset.classes
        )
        for sample in dataset
    }


def test_evaluate_result_files(run: Run, shapes: Path, tmp_path: Path) -> None:
    dataset = load_voc(shapes, "val")
    write_voc_detections(tmp_path / "found", dataset, _perfect(dataset), split="val")
    out = tmp_path / "out"
    ran = run(
        "evaluate", shapes, "--results", tmp_path / "found", "--out", out, "--coco", "--errors"
    )
    assert ran.code == 0
    assert "AP 11-point" in ran.out
    assert "COCO metric" in ran.out
    assert "examined" in ran.out
    report = json.loads((out / "report.json").read_text())
    assert report["voc"]["map11"] == pytest.approx(1.0)
    assert report["coco"]["ap"] == pytest.approx(1.0)
    assert report["errors"]["all"]["examined"] == 0
    assert report["source"] == str(tmp_path / "found")


def test_evaluate_on_some_classes_and_images(run: Run, shapes: Path, tmp_path: Path) -> None:
    name = load_voc(shapes, "val").classes[0]
    dataset = load_voc(shapes, "val", classes=[name], ignore_unknown=True)
    write_voc_detections(tmp_path, dataset, {}, split="val")
    common = ("evaluate", shapes, "--results", tmp_path, "--out", tmp_path / "out")
    ran = run(*common, "--classes", name, "--limit", "2")
    assert ran.code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())["voc"]
    assert list(report["classes"]) == [name]
    assert report["images"] == 2


def test_missing_result_files_are_named(run: Run, shapes: Path, tmp_path: Path) -> None:
    ran = run("evaluate", shapes, "--results", tmp_path, "--out", tmp_path / "out")
    _one_line(ran, "comp4_det_val_", "missing")
    assert not (tmp_path / "out").exists()
