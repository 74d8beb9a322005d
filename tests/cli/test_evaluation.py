"""`sppdet evaluate` and `compare`: what is known before the work, what is kept of it, the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sppdet.datasets import load_dataset, make_synthetic_voc
from sppdet.evaluation.result_files.voc_results import write_voc_detections
from tests.cli.conftest import Run, assert_one_line
from tests.helpers.evaluation_cases import perfect
from tests.helpers.made_annotations import write_json
from tests.helpers.made_detector import make_detector

CLASSES = ("cross", "ring")
IMAGES = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows both classes and one more."""
    path = tmp_path_factory.mktemp("made") / "made.safetensors"
    make_detector().save(path, description="made", provenance={"images": 0})
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A set of its own for each test, since some are broken."""
    root = tmp_path / "rings"
    return make_synthetic_voc(
        root, train=0, val=IMAGES, test=0, width=120, height=90, classes=CLASSES
    )


@pytest.fixture
def evaluate(run: Run, made: Path) -> Callable[..., object]:
    """Runs the command on a model."""
    return lambda *words: run("evaluate", *words, "--model", made, "--threads", "1")


def _images(data: Path) -> list[Path]:
    return sorted((data / "JPEGImages").iterdir())


def _lines(out: Path) -> list[Path]:
    return list(out.glob("detections-*.part.jsonl"))


def _break(image: Path) -> None:
    """Leave half a PNG, whose header is whole: only decoding tells."""
    with Image.open(image) as opened:
        opened.save(image, "PNG")
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])


def test_a_broken_image_is_named_and_the_rest_is_done(
    evaluate: Run, data: Path, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert evaluate(data, "--out", whole).code == 0
    assert _lines(whole) == []
    broken = _images(data)[2]
    pixels = broken.read_bytes()
    _break(broken)
    ran = evaluate(data, "--out", out)
    assert ran.code == 1
    assert broken.name in ran.err
    assert f"1 of {IMAGES} images cannot be used: all figures are of the others" in ran.err
    assert "without 1 that cannot be used" in ran.out
    report = json.loads((out / "report.json").read_text())
    assert report["voc"]["images"] == IMAGES - 1
    assert str(broken) in report["left_out"][0]
    assert f"Not part of any figure: {broken}" in (out / "report.html").read_text()

    # What is there is kept: with the image repaired, and half a line lost, three are known.
    (kept,) = _lines(out)
    lines = kept.read_bytes().splitlines(keepends=True)
    assert len(lines) == IMAGES - 1
    kept.write_bytes(b"".join(lines[:2]) + lines[2][: len(lines[2]) // 2])
    broken.write_bytes(pixels)
    again = evaluate(data, "--out", out)
    assert again.code == 0
    assert "2 images are known from an earlier run" in again.out
    assert _lines(out) == []
    for path in whole.glob("comp4_*"):
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_what_is_kept_is_of_the_same_settings_and_the_same_image(
    evaluate: Run, data: Path, tmp_path: Path
) -> None:
    out, broken = tmp_path / "out", _images(data)[0]
    _break(broken)
    assert evaluate(data, "--out", out).code == 1
    ran = evaluate(data, "--out", out, "--set", "detection.nms_iou=0.4")
    assert "known from an earlier run" not in ran.out
    assert len(_lines(out)) == 2
    shutil.copy(_images(data)[1], _images(data)[2])
    ran = evaluate(data, "--out", out)
    # Two images hold the same pixels now, which are known; those of the other's are not asked for.
    assert f"{IMAGES - 1} images are known" in ran.out


def test_what_the_annotations_show_is_told_too(evaluate: Run, data: Path, tmp_path: Path) -> None:
    """An image that is not there, as one of few, is refused; lenient, the rest is done."""
    missing = _images(data)[1]
    missing.unlink()
    refused = evaluate(data, "--out", tmp_path / "out")
    assert refused.code == 1
    assert refused.err.splitlines()[-1].endswith("or go on without them: --lenient")
    assert not (tmp_path / "out").exists()
    ran = evaluate(data, "--out", tmp_path / "out", "--lenient")
    assert ran.code == 1
    assert f"1 of {IMAGES} images cannot be used: all figures are of the others" in ran.err
    assert f"Not part of any figure: {missing}" in (tmp_path / "out" / "report.html").read_text()


def test_results_need_no_images(run: Run, data: Path, tmp_path: Path) -> None:
    dataset = load_dataset(data, "val")
    write_voc_detections(tmp_path / "good", dataset, perfect(dataset), split="val")
    for number, image in enumerate(_images(data)):
        if number:
            image.unlink()
        else:
            image.write_bytes(b"")
    ran = run("evaluate", data, "--results", tmp_path / "good", "--out", tmp_path / "out")
    assert ran.code == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["voc"]["map11"] == 1


def test_no_image_at_all_is_an_error(evaluate: Run, data: Path, tmp_path: Path) -> None:
    for image in _images(data):
        _break(image)
    ran = evaluate(data, "--out", tmp_path / "out")
    assert ran.code == 1
    assert ran.err.splitlines()[-1].endswith("none of its images can be used; repair them")


def test_places_are_checked_before_the_work(evaluate: Run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for option in ("--out", "--cache"):
        place = tmp_path / "file" / "x"
        ran = evaluate(
            data, *(("--out", tmp_path / "out") if option == "--cache" else ()), option, place
        )
        assert ran.code == 1
        assert f"{tmp_path / 'file'}: is a file, not a folder" in ran.err
        assert "detecting" not in ran.err
    assert_one_line(evaluate(data, "--out", tmp_path / ("x" * 300)), "name a shorter one")


def _rename(data: Path, old: str, new: str) -> None:
    """Rename a class, or an image."""
    for path in [*data.rglob("*.xml"), *data.rglob("*.txt")]:
        path.write_text(path.read_text().replace(old, new))
    for path in [*data.rglob(f"{old}.*")]:
        path.rename(path.with_name(path.name.replace(old, new)))


def test_names_that_voc_files_cannot_have_are_told_before_the_work(
    evaluate: Run, data: Path, tmp_path: Path
) -> None:
    _rename(data, _images(data)[0].stem, "IMG 12")
    ran = evaluate(data, "--out", tmp_path / "out")
    assert ran.code == 0
    told = ran.err.index("image id 'IMG 12' has a blank in it; detections.json is written instead")
    assert told < ran.err.index("detecting")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "detections.json",
        "report.json",
        "report.html",
    }


@pytest.mark.parametrize("name", ["car/van", "x" * 240])
def test_classes_that_are_no_file_names_are_told_before_the_work(
    run: Run, data: Path, tmp_path: Path, name: str
) -> None:
    model = tmp_path / "renamed.safetensors"
    make_detector().rename_class("ring", name).save(model, description="", provenance={"images": 0})
    images = [
        {"id": i, "file_name": p.name, "width": 120, "height": 90}
        for i, p in enumerate(_images(data))
    ]
    boxes = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [9, 9, 50, 50], "area": 2500}
        for i in range(len(images))
    ]
    write_json(
        tmp_path / "coco.json",
        {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": name}]},
    )
    words = ("--images", data / "JPEGImages", "--model", model, "--threads", "1")
    ran = run("evaluate", tmp_path / "coco.json", *words, "--out", tmp_path / "out")
    assert ran.code == 0
    assert ran.err.index("no VOC result files: ") < ran.err.index("detecting")
    assert (tmp_path / "out" / "detections.json").is_file()
    assert name in (tmp_path / "out" / "report.html").read_text()


def test_results_are_compared(run: Run, data: Path, tmp_path: Path) -> None:
    dataset = load_dataset(data, "val")
    for name, found in (("good", perfect(dataset)), ("none", {})):
        write_voc_detections(tmp_path / name, dataset, found, split="val")
    words = ("compare", tmp_path / "none", tmp_path / "good", data, "--resamples", "50")
    ran = run(*words, "--out", tmp_path / "out.json")
    assert ran.code == 0
    assert "B is better" in ran.out
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["mean"] == {
        "a": 0,
        "b": 1,
        "difference": 1,
        "low": 1,
        "high": 1,
        "b_is_better": 1,
    }
    assert {one["image_id"] for one in figures["changed_images"]} == {
        path.stem for path in _images(data)
    }
    printed = run(*words, "--json")
    assert json.loads(printed.out) == figures
    assert_one_line(run("compare", tmp_path / "a", tmp_path / "b", data), "no such model")
    (tmp_path / "file").write_text("")
    ran = run(*words, "--out", tmp_path / "file" / "x.json")
    assert_one_line(ran, "is a file, not a folder")


def test_a_model_is_compared_with_results(run: Run, made: Path, data: Path, tmp_path: Path) -> None:
    dataset = load_dataset(data, "val")
    write_voc_detections(tmp_path / "good", dataset, perfect(dataset), split="val")
    words = ("compare", made, tmp_path / "good", data, "--threads", "1", "--resamples", "20")
    ran = run(*words, "--work", tmp_path / "work", "--json")
    assert ran.code == 0
    figures = json.loads(ran.out)
    assert set(figures["classes"]) == set(CLASSES)
    assert figures["mean"]["b"] == 1
    assert figures["mean"]["a"] < 1
    assert list((tmp_path / "work" / "a").glob("comp4_det_val_*.txt"))
