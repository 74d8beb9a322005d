"""`sppdet calibrate`, and what training, evaluation and detection say of probabilities."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from sppdet.core.model_file import load_model, save_model
from sppdet.datasets import load_dataset
from sppdet.detection.detector import Detector
from sppdet.evaluation.calibration_error import evaluate_calibration
from sppdet.evaluation.result_files.voc_results import read_voc_detections
from tests.cli.conftest import Run, assert_one_line, training


@pytest.fixture
def uncalibrated(model: Path, tmp_path: Path) -> Path:
    """The model as from a training without held-out images."""
    header, tensors = load_model(model)
    kept = {name: one for name, one in tensors.items() if not name.startswith("calibration.")}
    path = tmp_path / "uncalibrated.safetensors"
    save_model(path, header, kept)
    return path


def test_calibrate_writes_a_model_or_a_table(
    run: Run, shapes: Path, model: Path, uncalibrated: Path, tmp_path: Path
) -> None:
    out, table = tmp_path / "made.safetensors", tmp_path / "made.toml"
    words = ("calibrate", shapes, "--model", uncalibrated)
    ran = run(*words, "--out", out)
    assert ran.code == 0
    assert "calibrating on val" in ran.out
    assert "scores calibrated on 3 held-out images" in ran.out
    detector = Detector.load(out)
    assert detector.is_calibrated
    assert run(*words, "--out", table).code == 0
    for text in (table.read_text(), run(*words).out.partition("\n[")[2].join(["[", ""])):
        values = tomllib.loads(text)["calibration"]
        for name, row in values.items():
            assert np.array_equal(np.float32(row), getattr(detector.calibration, name))
    # Nothing else of the model changes.
    before, after = load_model(uncalibrated), load_model(out)
    assert after[1].keys() - before[1].keys() == {"calibration.slope", "calibration.intercept"}
    assert all(np.array_equal(after[1][name], one) for name, one in before[1].items())
    assert after[0].config == before[0].config
    assert after[0].description == before[0].description
    assert after[0].provenance["calibration"]["images"] == 3
    # The training did the same on the same images, from maps stored in half precision.
    trained = Detector.load(model).calibration
    np.testing.assert_allclose(trained.slope, detector.calibration.slope, rtol=0.05)
    np.testing.assert_allclose(trained.intercept, detector.calibration.intercept, atol=0.05)


def test_calibrate_for_other_settings_and_several_models(
    run: Run, shapes: Path, uncalibrated: Path, tmp_path: Path
) -> None:
    out, two = tmp_path / "made.safetensors", f"{uncalibrated}+{uncalibrated}"
    change = ("--set", "detection.max_per_class=3")
    assert run("calibrate", shapes, "--model", uncalibrated, "--out", out, *change).code == 0
    assert Detector.load(out).config.detection.max_per_class == 3
    ran = run("calibrate", shapes, "--model", two, "--out", out)
    assert ran.code == 1
    assert "several models are no single file" in ran.err
    assert run("calibrate", shapes, "--model", two, "--out", tmp_path / "two.toml").code == 0
    assert "slope = [" in (tmp_path / "two.toml").read_text()


def test_calibrating_on_the_training_images_is_said(
    run: Run, shapes: Path, uncalibrated: Path
) -> None:
    ran = run("calibrate", shapes, "--model", uncalibrated, "--split", "train", "--limit", "1")
    assert ran.code == 0
    assert "say nothing of new images" in ran.err


def test_training_calibrates_on_val_and_says_so(
    run: Run, shapes: Path, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    ran = run(*training(shapes, folder))
    assert ran.code == 0
    assert "scores calibrated on 3 held-out images" in ran.err
    assert (folder / "model.safetensors").read_bytes() == model.read_bytes()
    # All images trained on: none are left.
    other = training(shapes, folder, "--split", "trainval", "--set", "finetune.steps=0")
    assert_one_line(run(*other), "holds a model of shapes train (4 images", "--overwrite")
    ran = run(*other, "--overwrite")
    assert ran.code == 0
    assert "not calibrated" in ran.err
    assert not Detector.load(folder / "model.safetensors").is_calibrated


def test_evaluate_shows_the_calibration(
    run: Run, shapes: Path, model: Path, tmp_path: Path
) -> None:
    known, out = load_model(model)[0].classes, tmp_path / "out"
    assert run("evaluate", shapes, "--model", model, "--out", out).code == 0
    report = json.loads((out / "report.json").read_text())["calibration"]
    dataset = load_dataset(shapes, "val", classes=known)
    expected = evaluate_calibration(dataset, read_voc_detections(out, dataset, split="val"))
    assert expected is not None
    assert report["error_of_all"] == pytest.approx(expected.error_of_all, abs=1e-6)
    assert [one["detections"] for one in report["bins"]] == [
        one.detections for one in expected.bins
    ]
    ran = run("evaluate", shapes, "--results", out, "--classes", ",".join(known))
    assert "Expected calibration error" in ran.out
    assert "At the threshold 0.5: precision" in ran.out


def test_evaluate_finds_no_calibration_in_margins(run: Run, shapes: Path, tmp_path: Path) -> None:
    dataset = load_dataset(shapes, "val")
    for name in dataset.classes:
        (tmp_path / f"comp4_det_val_{name}.txt").write_text(
            f"{dataset.samples[0].image_id} -1.5 1 1 20 20\n"
        )
    ran = run("evaluate", shapes, "--results", tmp_path, "--out", tmp_path / "out")
    assert "no calibration error" in ran.out
    assert "calibration" not in json.loads((tmp_path / "out" / "report.json").read_text())


def test_detect_writes_both_and_says_where_scores_are_no_probabilities(
    run: Run, shapes: Path, model: Path, uncalibrated: Path, tmp_path: Path
) -> None:
    image, file = next((shapes / "JPEGImages").iterdir()), tmp_path / "found.json"
    for source, is_said in ((model, False), (uncalibrated, True)):
        ran = run("detect", image, "--model", source, "--json", file, "--threshold", "0")
        assert ran.code == 0
        assert ("not calibrated" in ran.out) == is_said
        calibration = Detector.load(source).calibration
        document = json.loads(file.read_text())
        found = document["images"][0]["detections"]
        assert found
        for one in found:
            label = np.array([document["classes"].index(one["class"])])
            margin = np.array([one["margin"]], np.float32)
            score = calibration.probabilities(margin, label)
            assert one["score"] == pytest.approx(float(score[0]), rel=1e-6)
        assert run("detect", image, "--model", source).code == 0
    assert run("detect", image, "--threshold", "-1").code == 2


def test_a_class_that_nothing_has_is_named(run: Run, shapes: Path, model: Path) -> None:
    ran = run("calibrate", shapes, "--model", model, "--classes", "unicorn")
    assert_one_line(ran, "unicorn")
