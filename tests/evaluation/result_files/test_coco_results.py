"""Detections in COCO's results format: the round trip, and errors that name the entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from sppdet.core.errors import EvaluationError
from sppdet.core.types import Dataset, Detections
from sppdet.evaluation.result_files.coco_results import read_coco_detections, write_coco_detections
from tests.helpers.evaluation_cases import CLASSES, detections_of, random_case, sample_of

PAIR = Dataset("pair", ("cat", "dog"), (sample_of("12", [], []), sample_of("000012", [], [])))
SOUND = {"image_id": 12, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.5}


def rows(detections: Detections) -> list[tuple[str, float, tuple[float, ...]]]:
    """Name, score and box of each detection, in its order."""
    return [(d.name, d.score, d.box) for d in detections]


def test_no_detections_are_an_empty_list(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    assert write_coco_detections(path, PAIR, {}) == 0
    assert json.loads(path.read_bytes()) == []
    back = read_coco_detections(path, PAIR)
    assert [(key, len(found)) for key, found in back.items()] == [("12", 0), ("000012", 0)]


def test_entries_are_as_coco_documents(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    found = {
        "12": detections_of([(1, 2, 4, 10)], [0.5], [1], PAIR.classes),
        "000012": detections_of([(0, 0, 5, 5)], [-1], [0], PAIR.classes),
    }
    assert write_coco_detections(path, PAIR, found, category_ids=(17, 18)) == 2
    assert json.loads(path.read_bytes()) == [
        {"image_id": 12, "category_id": 18, "bbox": [1, 2, 3, 8], "score": 0.5},
        {"image_id": "000012", "category_id": 17, "bbox": [0, 0, 5, 5], "score": -1},
    ]


def test_a_byte_order_mark_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text(json.dumps([SOUND]), encoding="utf-8-sig")
    assert len(read_coco_detections(path, PAIR)["12"]) == 1


def test_pycocotools_takes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    found = {"12": detections_of([(1, 2, 4, 10)], [0.5], [1], PAIR.classes)}
    write_coco_detections(path, PAIR, found)
    truth = COCO()
    truth.dataset = {"images": [{"id": 12}], "categories": [{"id": 2}], "annotations": []}
    truth.createIndex()
    assert truth.loadRes(str(path)).anns[1]["area"] == 24


def test_written_and_read_back_gives_the_same_detections(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    for seed in range(40):
        dataset, detections = random_case(seed)
        write_coco_detections(path, dataset, detections, category_ids=(3, 1, 90))
        back = read_coco_detections(path, dataset, category_ids=(3, 1, 90))
        assert list(back) == [sample.image_id for sample in dataset]
        for image_id, found in back.items():
            assert rows(found) == rows(detections.get(image_id, detections_of([], [], [])))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"image_id": 13}, "image 13 is not in the data set"),
        ({"image_id": None}, "no image_id"),
        ({"image_id": True}, "no image_id"),
        ({"category_id": 3}, "category 3 is not one of the data set's"),
        ({"category_id": True}, "no whole-number category_id"),
        ({"category_id": "1"}, "no whole-number category_id"),
        ({"bbox": [0, 0, 10]}, "no sound bbox or score"),
        ({"bbox": [0, 0, 10, "10"]}, "no sound bbox or score"),
        ({"bbox": {}}, "no sound bbox or score"),
        ({"bbox": [0, 0, -1, 10]}, "a negative width or height"),
        ({"bbox": [0, 0, 10**400, 10]}, "a number is not finite, or too large"),
        ({"score": float("nan")}, "a number is not finite"),
        ({"score": None}, "no sound bbox or score"),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    path = tmp_path / "found.json"
    path.write_text(json.dumps([SOUND, {**SOUND, **change}]), encoding="utf-8")
    with pytest.raises(EvaluationError) as caught:
        read_coco_detections(path, PAIR)
    assert str(caught.value).startswith(f"{path}, entry 2: {problem}")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not readable as JSON"),
        (b"[{", "not readable as JSON"),
        (b"\xff\xfe", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"{}", "not a list"),
        (b"[1]", "not an object"),
    ],
)
def test_a_file_that_is_not_a_result_list_is_named(
    tmp_path: Path, data: bytes, problem: str
) -> None:
    path = tmp_path / "found.json"
    path.write_bytes(data)
    with pytest.raises(EvaluationError, match=rf"found\.json.*{problem}"):
        read_coco_detections(path, PAIR)


def test_a_missing_file_and_ids_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no such file"):
        read_coco_detections(tmp_path / "none.json", PAIR)
    for ids in ((), (1,), (1, 1), (1, 2, 3)):
        with pytest.raises(EvaluationError, match="category ids for 2 classes"):
            write_coco_detections(tmp_path / "found.json", PAIR, {}, category_ids=ids)
    assert list(tmp_path.iterdir()) == []


def test_unknown_images_are_not_written(tmp_path: Path) -> None:
    dataset = Dataset("d", CLASSES, ())
    with pytest.raises(EvaluationError, match="image 12, which is not"):
        write_coco_detections(tmp_path / "f.json", dataset, {"12": detections_of([], [], [])})
