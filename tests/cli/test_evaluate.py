"""`sppdet evaluate`: models and result files, and what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sppdet.core.model_file import load_model, save_model
from sppdet.datasets import load_dataset
from sppdet.evaluation.result_files.voc_results import write_voc_detections
from tests.cli.conftest import Run
from tests.helpers.evaluation_cases import perfect


def test_evaluate_result_files(run: Run, shapes: Path, tmp_path: Path) -> None:
    dataset = load_dataset(shapes, "val")
    write_voc_detections(tmp_path / "found", dataset, perfect(dataset), split="val")
    out = tmp_path / "out"
    more = ("--metric", "both", "--errors", "--thresholds")
    ran = run("evaluate", shapes, "--results", tmp_path / "found", "--out", out, *more)
    assert ran.code == 0
    assert "AP 11-point" in ran.out
    assert "COCO metric" in ran.out
    assert "localization" in ran.out
    report = json.loads((out / "report.json").read_text())
    assert report["voc"]["map11"] == pytest.approx(1.0)
    assert report["coco"]["ap"] == pytest.approx(1.0)
    assert report["errors"]["all"]["missed"] == {"count": 0, "ap_gain": 0}
    assert report["thresholds"]["all"] == {"threshold": 1, "precision": 1, "recall": 1, "f1": 1}
    assert report["source"] == str(tmp_path / "found")


def test_evaluate_on_some_classes_and_images(run: Run, shapes: Path, tmp_path: Path) -> None:
    name = load_dataset(shapes, "val").classes[0]
    dataset = load_dataset(shapes, "val", classes=[name])
    write_voc_detections(tmp_path, dataset, {}, split="val")
    common = ("evaluate", shapes, "--results", tmp_path, "--out", tmp_path / "out")
    ran = run(*common, "--classes", name, "--limit", "2")
    assert ran.code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())["voc"]
    assert list(report["classes"]) == [name]
    assert report["images"] == 2


def test_missing_result_files_are_named(run: Run, shapes: Path, tmp_path: Path) -> None:
    ran = run("evaluate", shapes, "--results", tmp_path, "--out", tmp_path / "out")
    assert ran.code == 1
    assert "comp4_det_val_" in ran.err.splitlines()[-1]
    assert "missing" in ran.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_evaluate_a_model_then_its_result_files(
    run: Run, shapes: Path, model: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    ran = run("evaluate", shapes, "--model", model, "--out", first)
    assert ran.code == 0
    assert "AP 11-point" in ran.out
    known = load_model(model)[0].classes
    assert len(list(first.glob("comp4_det_val_*.txt"))) == len(known)
    again = ("evaluate", shapes, "--results", first, "--out", second)
    last = run(*again).err.splitlines()[-1]
    assert "1 of 6 result files are missing" in last
    assert last.endswith(f"--classes {','.join(known)}")
    assert run(*again, "--classes", ",".join(known)).code == 0
    reports = [json.loads((out / "report.json").read_text()) for out in (first, second)]
    assert reports[0]["voc"] == reports[1]["voc"]


def test_evaluating_on_the_training_images_is_said(
    run: Run, shapes: Path, model: Path, tmp_path: Path
) -> None:
    header, tensors = load_model(model)
    trained = load_dataset(shapes, "train").name
    both = tmp_path / "both.safetensors"
    provenance = {**header.provenance, "dataset": f"{trained}val"}
    save_model(both, replace(header, provenance=provenance), tensors)
    known = {model: {"train"}, both: {"train", "val"}, f"{model}+{both}": {"train", "val"}}
    for source, splits in known.items():
        for split in ("train", "val"):
            words = ("evaluate", shapes, "--model", source, "--split", split, "--limit", "1")
            ran = run(*words, "--out", tmp_path / "out")
            assert ran.code == 0
            assert ("say nothing of new images" in ran.err) == (split in splits)


def test_evaluate_leaves_no_maps_behind_unless_asked(
    run: Run, shapes: Path, model: Path, tmp_path: Path
) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    common = ("evaluate", shapes, "--model", model, "--out", out, "--threads", "1")
    assert run(*common).code == 0
    assert {path.suffix for path in out.rglob("*") if path.is_file()} == {".txt", ".json", ".html"}
    assert run(*common, "--cache", cache).code == 0
    assert len(list(cache.rglob("*.maps"))) == len(load_dataset(shapes, "val"))
