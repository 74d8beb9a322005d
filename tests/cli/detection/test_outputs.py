"""`sppdet detect`: every kind of result, and what is known to be wrong before the first image."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sppdet.core.images import read_image
from sppdet.datasets.load import load_dataset
from tests.cli.conftest import Run, assert_one_line

GOOD = ("0.png", "1.png", "3.png", "4.png")
COMMON = ("--threshold", "0.2", "--threads", "1")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_all_results_of_one_run_agree(run: Run, photos: Path, made: Path, tmp_path: Path) -> None:
    words = ("detect", photos, "--model", made, *COMMON)
    results = {"jsonl": "l.jsonl", "json": "j.json", "csv": "c.csv", "out": "drawn"}
    results["crops"] = "crops"
    places = [f"--{option}={tmp_path / name}" for option, name in results.items()]
    ran = run(*words, *places)
    assert ran.code == 1
    assert "1 of 5 images could not be read" in ran.err
    recorded = lines(tmp_path / "l.jsonl")
    assert [Path(line["file"]).name for line in recorded] == [f"{n}.png" for n in range(5)]
    assert ["error" in line for line in recorded] == [False, False, True, False, False]
    document = json.loads((tmp_path / "j.json").read_bytes())
    for line, image in zip(recorded, document["images"], strict=True):
        assert {key: line[key] for key in image} == image
    objects = [one for line in recorded for one in line.get("detections", ())]
    assert len(objects) >= 4
    assert f"{len(objects)} objects in 4 images" in ran.out
    with (tmp_path / "c.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["class"], float(row["score"])) for row in rows] == [
        (one["class"], one["score"]) for one in objects
    ]
    assert sorted(path.stem for path in (tmp_path / "drawn").iterdir()) == ["0", "1", "3", "4"]
    assert len(list((tmp_path / "crops").rglob("*.jpg"))) == len(objects)
    assert {path.name for path in (tmp_path / "crops").iterdir()} == {o["class"] for o in objects}
    # The same again: nothing is detected, and nothing changes.
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    again = run(*words, *places)
    assert again.code == 1
    assert f"{len(objects)} objects in 4 images (4 of them done before)" in again.out
    assert "found in" not in again.out
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_pictures_that_are_lacking_are_made_of_what_is_known(
    run: Run, photos: Path, made: Path, tmp_path: Path
) -> None:
    words = ("detect", photos / "0.png", photos / "1.png", "--model", made, *COMMON)
    run(*words, "--out", tmp_path / "once")
    results = (*words, "--jsonl", tmp_path / "l.jsonl")
    assert run(*results).code == 0
    ran = run(*results, "--out", tmp_path / "later")
    assert "(2 of them done before)" in ran.out
    (tmp_path / "later" / "0.jpg").unlink()
    run(*results, "--out", tmp_path / "later")
    for name in ("0.jpg", "1.jpg"):
        once, later = (tmp_path / place / name for place in ("once", "later"))
        assert later.read_bytes() == once.read_bytes()


@pytest.mark.parametrize("format", ["yolo", "voc", "coco"])
def test_a_folder_of_annotations_is_a_data_set(
    run: Run, photos: Path, made: Path, tmp_path: Path, format: str
) -> None:
    ran = run(
        *("detect", *(photos / name for name in GOOD), "--model", made, *COMMON),
        *("--out", tmp_path / "set", "--format", format, "--json", tmp_path / "j.json"),
    )
    assert ran.code == 0
    images = json.loads((tmp_path / "j.json").read_bytes())["images"]
    data = load_dataset(tmp_path / "set", strict=True)
    assert [len(sample.boxes) for sample in data] == [len(one["detections"]) for one in images]
    assert len(list(tmp_path.iterdir())) == 2


def test_drawings_as_png_are_exact(run: Run, photos: Path, made: Path, tmp_path: Path) -> None:
    common = ("detect", photos / "0.png", "--model", made, "--threads", "1", "--threshold", "1")
    run(*common, "--out", tmp_path, "--format", "png")
    # Nothing is as sure as that: the drawing is the photo.
    assert np.array_equal(read_image(tmp_path / "0.png"), read_image(photos / "0.png"))


def test_lines_of_other_settings_are_refused(
    run: Run, photos: Path, made: Path, tmp_path: Path
) -> None:
    path = tmp_path / "l.jsonl"
    common = ("detect", photos / "0.png", "--model", made, "--jsonl", path, "--threads", "1")
    assert run(*common).code == 0
    before = path.read_bytes()
    assert_one_line(run(*common, "--threshold", "0.9"), str(path), "threshold 0.5", "another file")
    few = run(*common, "--set", "detection.max_per_class=1")
    assert_one_line(few, str(path), "other settings or weights")
    assert path.read_bytes() == before
    assert run(*common).code == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("value", ["nan", "-inf", "inf", "-0.1", "1.1", "half"])
def test_a_threshold_that_is_no_probability_is_wrong_usage(
    run: Run, photos: Path, value: str, tmp_path: Path
) -> None:
    ran = run("detect", photos, f"--threshold={value}", "--json", tmp_path / "j.json")
    assert ran.code == 2
    assert "--threshold" in ran.err


def test_a_format_without_a_folder_is_wrong_usage(run: Run, photos: Path) -> None:
    ran = run("detect", photos, "--format", "yolo")
    assert ran.code == 2
    assert "--out" in ran.err


def test_wrong_places_are_told_before_a_model_is_loaded(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    common = ("detect", photos, "--model", tmp_path / "no model at all")
    for words, parts in (
        (("--json", file / "x.json"), (str(file), "is a file, not a folder")),
        (("--jsonl", tmp_path), (str(tmp_path), "is a folder", "name a file")),
        (("--out", photos), (str(photos), "holds images")),
        (("--crops", file), (str(file), "is a file, not a folder")),
        (("--csv", photos / "0.png"), ("0.png", "is one of the images")),
    ):
        assert_one_line(run(*common, *words), *parts)


def test_a_long_name_is_no_reason_to_stop(
    run: Run, photos: Path, made: Path, tmp_path: Path
) -> None:
    long = tmp_path / "in" / ("é" * 125 + ".png")
    long.parent.mkdir()
    long.write_bytes((photos / "0.png").read_bytes())
    (tmp_path / "in" / ("x" * 250 + ".png")).write_bytes((photos / "1.png").read_bytes())
    results = ("--out", tmp_path / "out", "--crops", tmp_path / "crops", "--json", tmp_path / "j")
    ran = run("detect", tmp_path / "in", "--model", made, *COMMON, *results)
    assert ran.code == 0
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_drawing_that_cannot_be_written_is_told_and_the_rest_is_done(
    run: Run, photos: Path, made: Path, tmp_path: Path
) -> None:
    (tmp_path / "crops").mkdir()
    for name in ("ring", "disc"):  # files where folders of crops have to be
        (tmp_path / "crops" / name).touch()
    ran = run(
        *("detect", photos / "0.png", photos / "1.png", "--model", made, *COMMON),
        *("--crops", tmp_path / "crops", "--jsonl", tmp_path / "l.jsonl", "--out", tmp_path / "o"),
    )
    assert ran.code == 1
    assert "pictures of 2 images could not be written" in ran.err
    assert len(lines(tmp_path / "l.jsonl")) == 2
    assert len(list((tmp_path / "o").iterdir())) == 2


def test_a_device_without_values(run: Run, photos: Path, made: Path) -> None:
    ran = run("detect", photos / "0.png", "--model", made, "--threads", "1", "--device", "meta")
    assert_one_line(ran, "'meta'", "use --device cpu")
