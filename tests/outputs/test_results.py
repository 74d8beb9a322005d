"""What a run leaves when it ends, when it stops, and when it is refused before it starts."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sppdet.core.errors import OutputError
from sppdet.outputs.annotations import AnnotationFolder
from sppdet.outputs.documents import CsvDocument, JsonDocument
from sppdet.outputs.journal import Run
from sppdet.outputs.pictures import Crops, Drawings
from sppdet.outputs.places import check_file, check_folder
from sppdet.outputs.records import Source, detection_record
from sppdet.outputs.results import Results
from tests.helpers.sources import CLASSES, detections, source

RUN = Run.of({"model": "m"})
HEADER = {"model": "m", "classes": list(CLASSES)}
IMAGE = np.zeros((60, 60, 3), np.uint8)


def images(folder: Path, count: int = 5) -> list[Source]:
    return [source(folder / "in" / f"{number}.jpg") for number in range(count)]


def run(results: Results, sources: list[Source], stop_at: int = 99) -> int:
    """Record the images that are not there, up to one at which it is interrupted."""
    done = 0
    results.check(sources)
    with results.open(RUN, sources, HEADER):
        for number, one in enumerate(sources):
            if results.find(one) is None:
                if number == stop_at:
                    raise KeyboardInterrupt
                results.add(one, detection_record(IMAGE, detections(2, seed=number)))
                done += 1
    return done


def document(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_bytes())
    return value


def test_json_is_made_of_lines_that_vanish_when_it_is_there(tmp_path: Path) -> None:
    sources, path = images(tmp_path), tmp_path / "found.json"
    assert run(Results(documents=[JsonDocument(path)]), sources) == 5
    whole = document(path)
    assert whole["complete"]
    assert [one["file"] for one in whole["images"]] == [one.name for one in sources]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["found.json", "in"]


@pytest.mark.parametrize("keep", [False, True], ids=["json alone", "jsonl too"])
def test_a_run_that_stops_keeps_what_it_found(tmp_path: Path, keep: bool) -> None:
    sources, path = images(tmp_path), tmp_path / "found.json"
    run(Results(documents=[JsonDocument(tmp_path / "whole.json")]), sources)
    lines = tmp_path / "lines.jsonl" if keep else None
    done = []
    for stop_at in (3, 4, 99):
        results = Results(lines, [JsonDocument(path), CsvDocument(tmp_path / "found.csv")])
        if stop_at < 99:
            with pytest.raises(KeyboardInterrupt):
                run(results, sources, stop_at)
            assert len(document(path)["images"]) == stop_at
            assert not document(path)["complete"]
            left = results.journal_path
            assert left is not None
            assert len(left.read_bytes().splitlines()) == stop_at
        else:
            done.append(run(results, sources))
    assert done == [1]
    assert document(path) == document(tmp_path / "whole.json")
    assert (tmp_path / "lines.jsonl").exists() == keep
    assert not (tmp_path / "found.json.part.jsonl").exists()


def test_a_run_that_stops_leaves_the_document_of_an_earlier_one(tmp_path: Path) -> None:
    sources, path = images(tmp_path), tmp_path / "found.json"
    run(Results(documents=[JsonDocument(path)]), sources)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(Results(documents=[JsonDocument(path)]), sources, stop_at=0)
    assert not (tmp_path / "found.json.part.jsonl").exists()
    with pytest.raises(KeyboardInterrupt):
        run(Results(documents=[JsonDocument(path)]), sources, stop_at=2)
    assert path.read_bytes() == before
    assert len((tmp_path / "found.json.part.jsonl").read_bytes().splitlines()) == 2


def test_images_of_other_runs_stay_among_the_lines_only(tmp_path: Path) -> None:
    first, lines = images(tmp_path), tmp_path / "lines.jsonl"
    run(Results(lines), first)
    second = images(tmp_path / "b", 2)
    run(Results(lines, [JsonDocument(tmp_path / "b.json")]), second)
    assert len(lines.read_bytes().splitlines()) == 7
    assert len(document(tmp_path / "b.json")["images"]) == 2


def test_without_files_nothing_is_written(tmp_path: Path) -> None:
    sources = images(tmp_path)
    assert run(Results(), sources) == 5
    assert run(Results(), sources) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_places_that_cannot_be_written_are_known_before(tmp_path: Path) -> None:
    file, sources = tmp_path / "file", images(tmp_path, 1)
    file.write_text("x")
    refused = [
        (Results(file / "x.jsonl"), "is a file, not a folder"),
        (Results(file / "new" / "x.jsonl"), "is a file, not a folder"),
        (Results(tmp_path), "is a folder"),
        (Results(documents=[JsonDocument(tmp_path)]), "is a folder"),
        (Results(documents=[CsvDocument(tmp_path / ("x" * 300))]), "too long"),
        (Results(documents=[JsonDocument(tmp_path / "n" / ("猫" * 90))]), "too long"),
        (Results(Path(os.devnull)), "is not a regular file"),
        (Results(pictures=[Drawings(file)]), "is a file, not a folder"),
        (Results(pictures=[Crops(file / "crops")]), "is a file, not a folder"),
        (Results(pictures=[Drawings(tmp_path / "in")]), "holds images to be read"),
        (Results(documents=[AnnotationFolder(tmp_path, "yolo")]), "is not empty"),
        (Results(documents=[AnnotationFolder(file, "voc")]), "is a file, not a folder"),
        (Results(tmp_path / "in" / "0.jpg"), "is one of the images"),
        (
            Results(documents=[JsonDocument(tmp_path / "a"), CsvDocument(tmp_path / "a")]),
            "two results",
        ),
    ]
    before = sorted(tmp_path.rglob("*"))
    for results, problem in refused:
        with pytest.raises(OutputError, match=problem) as caught:
            results.check(sources)
        assert caught.value.path is not None
        assert caught.value.hint
    assert sorted(tmp_path.rglob("*")) == before


def test_checking_makes_nothing(tmp_path: Path) -> None:
    check_file(tmp_path / "new" / "x.json")
    check_folder(tmp_path / "new" / "folder")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="the user may write everywhere"
)
def test_a_folder_without_permission_is_known_before(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="change its permissions"):
        check_file(tmp_path / "x.json")
    tmp_path.chmod(0o700)
