"""VOC result files: what is written comes back, and what is wrong is named by file and line."""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.errors import EvaluationError
from sppdet.core.types import Dataset, Detections
from sppdet.evaluation.result_files.coco_results import read_coco_detections, write_coco_detections
from sppdet.evaluation.result_files.voc_results import (
    read_voc_detections,
    voc_file_name,
    write_voc_detections,
)
from sppdet.evaluation.voc_ap import evaluate_voc
from tests.helpers.evaluation_cases import CLASSES, detections_of, random_case, sample_of

PAIR = Dataset("pair", ("cat", "dog"), (sample_of("000012", [], []), sample_of("000007", [], [])))


def rows(detections: Detections) -> list[tuple[str, float, tuple[float, ...]]]:
    """Name, score and box of each detection, in an order of its own."""
    return sorted((d.name, d.score, d.box) for d in detections)


def test_no_detections_make_an_empty_file_for_every_class(tmp_path: Path) -> None:
    paths = write_voc_detections(tmp_path, PAIR, {}, split="val")
    assert [path.name for path in paths] == ["comp4_det_val_cat.txt", "comp4_det_val_dog.txt"]
    assert [path.read_bytes() for path in paths] == [b"", b""]
    back = read_voc_detections(tmp_path, PAIR, split="val")
    assert [(key, len(found)) for key, found in back.items()] == [("000012", 0), ("000007", 0)]
    nothing = Dataset("nothing", ("cat",), ())
    write_voc_detections(tmp_path, nothing, {}, split="test")
    assert read_voc_detections(tmp_path, nothing, split="test") == {}


def test_lines_are_as_the_devkit_documents(tmp_path: Path) -> None:
    boxes = [(0, 0, 10, 20), (0.5, 1, 500, 374.25)]
    found = {"000012": detections_of(boxes, [1, -0.25], [1, 1], PAIR.classes)}
    _, dog = write_voc_detections(tmp_path, PAIR, found, split="test")
    assert dog.read_text(encoding="utf-8").splitlines() == [
        "000012 1.000000 1 1 10 20",
        "000012 -0.250000 1.5 2 500 374.25",
    ]


def test_a_byte_order_mark_is_taken(tmp_path: Path) -> None:
    found = {"000012": detections_of([(0, 0, 10, 20)], [1], [1], PAIR.classes)}
    for path in write_voc_detections(tmp_path, PAIR, found, split="val"):
        path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    back = read_voc_detections(tmp_path, PAIR, split="val")
    assert rows(back["000012"]) == rows(found["000012"])


def test_a_box_without_area_comes_back(tmp_path: Path) -> None:
    found = {"000012": detections_of([(1e-7, 0, 1e-7, 3), (5, 5, 5, 5)], [1, 0], [0, 0])}
    dataset = Dataset("d", CLASSES, PAIR.samples)
    write_voc_detections(tmp_path, dataset, found, split="val")
    back = read_voc_detections(tmp_path, dataset, split="val")["000012"]
    assert back.boxes == pytest.approx(found["000012"].boxes, abs=1e-6)


@pytest.mark.parametrize("name", ["", " cat", "a/b", "../cat", "a\\b", "a\0b"])
def test_names_that_would_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(EvaluationError, match="part of a file name"):
        voc_file_name(name, split="val")
    with pytest.raises(EvaluationError, match="part of a file name"):
        voc_file_name("cat", split=name)


def test_written_and_read_back_gives_the_same_detections_and_ap(tmp_path: Path) -> None:
    for seed in range(15):
        dataset, detections = random_case(seed)
        write_voc_detections(tmp_path, dataset, detections, split="val")
        back = read_voc_detections(tmp_path, dataset, split="val")
        assert list(back) == [sample.image_id for sample in dataset]
        for image_id, found in back.items():
            assert (np.diff(found.scores) <= 0).all()
            expected = detections.get(image_id, detections_of([], [], []))
            assert rows(found) == rows(expected)
        before, after = evaluate_voc(dataset, detections), evaluate_voc(dataset, back)
        for a, b in zip(before.classes, after.classes, strict=True):
            assert a.precision.tolist() == b.precision.tolist()


grid = st.integers(0, 2**24).map(lambda n: n / 2**12)
scored_boxes = st.lists(st.tuples(st.floats(-1e6, 1e6, width=32), grid, grid, grid, grid))


@settings(deadline=None, max_examples=30)
@given(scored_boxes)
def test_any_score_and_coordinate_comes_back_bit_for_bit(
    drawn: list[tuple[float, float, float, float, float]],
) -> None:
    drawn = sorted(drawn, key=lambda row: -row[0])
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for _, a, b, c, d in drawn]
    scores = [score for score, *_ in drawn]
    found = {"000007": detections_of(boxes, scores, [0] * len(drawn), PAIR.classes)}
    with tempfile.TemporaryDirectory() as folder:
        write_voc_detections(Path(folder), PAIR, found, split="val")
        back = read_voc_detections(Path(folder), PAIR, split="val")["000007"]
    assert back.boxes.tobytes() == found["000007"].boxes.tobytes()
    assert back.scores.tolist() == found["000007"].scores.tolist()


def test_files_of_other_programs_are_read(tmp_path: Path) -> None:
    text = "000007 0.5 1 1 10 20\r\n\r\n000012  9e-1\t1.000000 1.0 10.0 20\n000007 0.7 5 5 9 9"
    (tmp_path / "comp4_det_val_cat.txt").write_text(text, encoding="utf-8", newline="")
    (tmp_path / "comp4_det_val_dog.txt").touch()
    back = read_voc_detections(tmp_path, PAIR, split="val")
    assert back["000012"].scores.tolist() == [np.float32(0.9)]
    assert back["000007"].scores.tolist() == [np.float32(0.7), 0.5]
    assert back["000007"].boxes.tolist() == [[4, 4, 9, 9], [0, 0, 10, 20]]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("000012 0.5 1 1 10", "5 fields, not 6"),
        ("000012 0.5 1 1 10 20 30", "7 fields, not 6"),
        ("000012 high 1 1 10 20", "a field is not a number"),
        ("000012 nan 1 1 10 20", "a number is not finite"),
        ("000012 0.5 1 1 inf 20", "a number is not finite"),
        ("000012 0.5 1 1 1e39 20", "a number is not finite, or too large"),
        ("000012 0.5 10 1 1 20", "the box is inverted"),
        ("12 0.5 1 1 10 20", "image 12 is not in the data set"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / "comp4_det_val_cat.txt").touch()
    path = tmp_path / "comp4_det_val_dog.txt"
    path.write_text(f"000012 0.5 1 1 10 20\n{line}\n", encoding="utf-8")
    with pytest.raises(EvaluationError) as caught:
        read_voc_detections(tmp_path, PAIR, split="val")
    assert str(caught.value).startswith(f"{path}, line 2: {problem}")
    assert caught.value.hint


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "comp4_det_val_cat.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(EvaluationError, match=r"comp4_det_val_cat.txt: .* cannot be read"):
        read_voc_detections(tmp_path, PAIR, split="val")
    (tmp_path / "comp4_det_val_cat.txt").write_bytes(b"")
    with pytest.raises(EvaluationError, match=r"comp4_det_val_dog.txt: .* missing"):
        read_voc_detections(tmp_path, PAIR, split="val")


def test_detections_that_do_not_fit_are_not_written(tmp_path: Path) -> None:
    one = [[0, 0, 9, 9]]
    with pytest.raises(EvaluationError, match="image 9, which is not"):
        write_voc_detections(tmp_path, PAIR, {"9": detections_of([], [], [])}, split="val")
    found = {"000012": detections_of(one, [math.inf], [0], PAIR.classes)}
    with pytest.raises(EvaluationError, match="not finite"):
        write_voc_detections(tmp_path, PAIR, found, split="val")
    blank = Dataset("blank", CLASSES, (sample_of("a b", [], []),))
    with pytest.raises(EvaluationError, match="blank in it"):
        write_voc_detections(tmp_path, blank, {}, split="val")
    no_text = Dataset("bytes", CLASSES, (sample_of("a\udcff", [], []),))
    with pytest.raises(EvaluationError, match="is no text"):
        write_voc_detections(tmp_path, no_text, {}, split="val")
    for name, problem in (("x" * 240, "too long"), ("a\udcff", "is no text")):
        with pytest.raises(EvaluationError, match=problem):
            write_voc_detections(tmp_path, Dataset("d", (name,), ()), {}, split="val")
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 99), slope=st.sampled_from([1.0, 20.0, 400.0]))
def test_files_rank_as_margins_where_probabilities_are_one(seed: int, slope: float) -> None:
    dataset, found = random_case(seed)
    detections = {}
    for name, each in found.items():
        scores = np.exp(-np.logaddexp(0, -slope * each.margins.astype(np.float64)))
        detections[name] = replace(each, scores=scores)
    with tempfile.TemporaryDirectory() as folder:
        write_voc_detections(Path(folder), dataset, detections, split="val")
        back = read_voc_detections(Path(folder), dataset, split="val")
        path = Path(folder) / "found.json"
        write_coco_detections(path, dataset, detections)
        again = read_coco_detections(path, dataset)
    before = evaluate_voc(dataset, detections)
    for read in (back, again):
        # Equal scores, and no others, are those of equal margins.
        for a, b in zip(before.classes, evaluate_voc(dataset, read).classes, strict=True):
            assert a.precision.tolist() == b.precision.tolist()
            assert np.abs(a.scores - b.scores).max(initial=0) < 1e-4
    plain = evaluate_voc(dataset, found)
    assert [c.ap_area for c in before.classes] == pytest.approx(
        [c.ap_area for c in plain.classes], nan_ok=True
    )
