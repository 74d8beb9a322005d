"""Annotations open again as data sets of what was found; tables and tasks hold it too."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from defusedxml import ElementTree
from PIL import Image

from sppdet.core.errors import OutputError
from sppdet.core.types import Dataset, Detections, Sample
from sppdet.datasets.load import load_dataset
from sppdet.evaluation.result_files.other_results import read_csv_detections
from sppdet.outputs.annotations import AnnotationFolder
from sppdet.outputs.documents import CsvDocument, JsonDocument
from sppdet.outputs.records import Found, detection_record, read_detections
from tests.helpers.sources import CLASSES, Source, detections, source

HEADER = {"model": "m", "threshold": 0.5, "classes": list(CLASSES)}
WIDTH, HEIGHT = 60, 80


@pytest.fixture
def found(tmp_path: Path) -> list[Found]:
    """Three images of the same name, one of them without objects, and one that is broken."""
    out = []
    for number, place in enumerate(("x", "y", "деревня & so")):
        path = tmp_path / "photos" / place / "a.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(path)
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        record = detection_record(image, detections(3 * number, seed=number))
        out.append(Found(Source(str(path), path), record))
    broken = source(tmp_path / "photos" / "broken.png")
    return [*out, Found(broken, {"error": "broken"})]


def test_records_come_back(found: list[Found]) -> None:
    for number, (_, record) in enumerate(found[:3]):
        one = detections(3 * number, seed=number)
        again = read_detections(json.loads(json.dumps(record)), CLASSES)
        for key in ("boxes", "scores", "labels", "margins"):
            assert np.array_equal(getattr(one, key), getattr(again, key))


@pytest.mark.parametrize("format", ["voc", "coco", "yolo"])
def test_a_data_set_of_what_was_found(tmp_path: Path, found: list[Found], format: str) -> None:
    out = tmp_path / "new" / "out"
    folder = AnnotationFolder(out, format)  # type: ignore[arg-type]
    folder.check([one.source for one in found])
    folder.write(found, HEADER, complete=True)
    data = load_dataset(out, strict=True)
    assert data.classes == CLASSES
    by_path = {sample.path.resolve(): sample for sample in data}
    assert len(by_path) == 3
    for one, record in found[:3]:
        assert one.path is not None
        sample, known = by_path[one.path.resolve()], read_detections(record, CLASSES)
        assert sample.boxes == pytest.approx(known.boxes, abs=0.01)
        assert sample.labels.tolist() == known.labels.tolist()
    with pytest.raises(OutputError, match="is not empty"):
        folder.check([])


def test_a_data_set_cannot_link_to_an_address(tmp_path: Path) -> None:
    web = Source("https://example.org/a.jpg")
    with pytest.raises(OutputError, match="--format labelstudio"):
        AnnotationFolder(tmp_path / "out", "voc").check([web])
    AnnotationFolder(tmp_path / "out", "labelstudio").check([web])


def test_coco_annotations_have_scores(tmp_path: Path, found: list[Found]) -> None:
    AnnotationFolder(tmp_path / "out", "coco").write(found, HEADER, complete=True)
    content = json.loads((tmp_path / "out" / "annotations" / "instances.json").read_bytes())
    scores = [one["score"] for one in content["annotations"]]
    assert scores == [one["score"] for _, r in found[:3] for one in r["detections"]]


def test_label_studio_gets_tasks_with_predictions(tmp_path: Path, found: list[Found]) -> None:
    """Held against the documented fields: labelstud.io, "Import pre-annotations"."""
    web = Found(Source("https://example.org/a.jpg"), found[1].record)
    AnnotationFolder(tmp_path / "out", "labelstudio").write([*found, web], HEADER, complete=True)
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_bytes())
    names = [task["data"]["image"] for task in tasks]
    assert [unquote(name) for name in names[:3]] == [
        f"/data/local-files/?d={place}/a.png" for place in ("x", "y", "деревня & so")
    ]
    assert all(name.isascii() and " " not in name for name in names)
    assert names[3] == "https://example.org/a.jpg"
    interface = ElementTree.parse(tmp_path / "out" / "interface.xml").getroot()
    labels = interface.find("RectangleLabels")
    assert labels is not None
    assert [one.get("value") for one in labels] == list(CLASSES)
    for task, (_, record) in zip(tasks, [*found[:3], web], strict=True):
        (prediction,) = task["predictions"]
        boxes = []
        for region in prediction["result"]:
            assert (region["from_name"], region["to_name"]) == (labels.get("name"), "image")
            value = region["value"]
            x, y = value["x"] * WIDTH / 100, value["y"] * HEIGHT / 100
            boxes.append(
                [x, y, x + value["width"] * WIDTH / 100, y + value["height"] * HEIGHT / 100]
            )
        assert boxes == [pytest.approx(one["box"]) for one in record["detections"]]
        assert prediction["score"] == max((one["score"] for one in record["detections"]), default=0)


def test_nothing_found_anywhere_is_written_all_the_same(tmp_path: Path) -> None:
    AnnotationFolder(tmp_path / "tasks", "labelstudio").write([], HEADER, complete=True)
    assert json.loads((tmp_path / "tasks" / "tasks.json").read_bytes()) == []
    JsonDocument(tmp_path / "a.json").write([], HEADER, complete=True)
    assert json.loads((tmp_path / "a.json").read_bytes())["images"] == []
    CsvDocument(tmp_path / "a.csv").write([], HEADER, complete=True)
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 1


def test_a_table_is_read_as_results_again(tmp_path: Path, found: list[Found]) -> None:
    CsvDocument(tmp_path / "a.csv").write(found, HEADER, complete=True)
    no = detections(0)
    samples = [
        Sample(one.name, Path(one.name), WIDTH, HEIGHT, no.boxes, no.labels, no.labels > 0)
        for one, _ in found
    ]
    again = read_csv_detections(tmp_path / "a.csv", Dataset("d", CLASSES, tuple(samples)))
    for one, record in found[:3]:
        known: Detections = read_detections(record, CLASSES)
        assert np.array_equal(again[one.name].boxes, known.boxes)
        assert np.array_equal(again[one.name].scores, known.scores)


def test_a_table_keeps_names_of_any_kind(tmp_path: Path, found: list[Found]) -> None:
    names = ('a,"b".jpg', "two\nlines.jpg", b"\xe9.jpg".decode("utf-8", "surrogateescape"))
    rows = [Found(Source(name), found[2].record) for name in names]
    CsvDocument(tmp_path / "a.csv").write(rows, HEADER, complete=True)
    with (tmp_path / "a.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        read = [row["file"] for row in csv.DictReader(file)]
    assert list(dict.fromkeys(read)) == list(names)
