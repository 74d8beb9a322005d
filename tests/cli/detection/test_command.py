"""`sppdet detect`: batches with bad files, models, settings, modes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sppdet.core.images import read_image
from tests.cli.conftest import Run, assert_one_line


def test_detect_does_the_rest_of_a_batch(
    run: Run, shapes: Path, model: Path, tmp_path: Path
) -> None:
    images = sorted((shapes / "JPEGImages").iterdir())
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(images[0].read_bytes()[:300])
    same_name = tmp_path / images[0].name
    same_name.write_bytes(images[1].read_bytes())
    out, found = tmp_path / "out", tmp_path / "out.json"
    ran = run(
        *("detect", images[0], same_name, broken, tmp_path / "absent.jpg", "--model", model),
        *("--out", out, "--json", found, "--threshold", "0.14"),
    )
    assert ran.code == 1
    for path in (broken, tmp_path / "absent.jpg"):
        assert f"sppdet: {path}: " in ran.err
    assert "2 of 4 images could not be read" in ran.err
    stem = images[0].stem
    assert sorted(path.name for path in out.iterdir()) == [f"{stem}.jpg", f"{stem}~2.jpg"]
    for drawn in out.iterdir():
        assert read_image(drawn).shape == (90, 120, 3)
    document = json.loads(found.read_text())
    records = {record["file"]: record for record in document["images"]}
    assert len(records) == 4
    assert "error" in records[str(broken)]
    seen = [one for record in records.values() for one in record.get("detections", ())]
    assert f"{len(seen)} objects in 2 images" in ran.out
    assert all(1 >= one["score"] >= 0.14 and one["class"] in document["classes"] for one in seen)
    shown = [line for line in ran.out.splitlines() if line.startswith("  ")]
    assert len(shown) == len(seen)


def test_where_nothing_is_found_the_best_score_is_told(
    run: Run, shapes: Path, model: Path, tmp_path: Path
) -> None:
    images, found = sorted((shapes / "JPEGImages").iterdir())[:2], tmp_path / "found.json"
    ran = run("detect", *images, "--model", model, "--threshold", 0, "--json", found)
    records = json.loads(found.read_text())["images"]
    best = max(one["score"] for record in records for one in record["detections"])
    assert "lower --threshold" not in ran.err
    ran = run("detect", *images, "--model", model, "--threshold", 1)
    assert ran.code == 0
    assert "0 objects in 2 images" in ran.out
    assert [line for line in ran.err.splitlines() if "--threshold" in line] == [
        f"sppdet: nothing has a score of 1 or more; the best that there is has {best:.2g}: "
        "lower --threshold to see it"
    ]


def test_detect_never_writes_over_its_input(run: Run, shapes: Path, model: Path) -> None:
    folder = shapes / "JPEGImages"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert_one_line(run("detect", folder, "--out", folder, "--model", model), "name another folder")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_an_empty_folder_and_a_pattern_without_images(run: Run, tmp_path: Path) -> None:
    assert_one_line(run("detect", tmp_path), str(tmp_path), "holds no images")
    assert_one_line(run("detect", tmp_path / "*.jpg"), "*.jpg", "matches no images")


def test_settings_that_training_fixed_cannot_change(
    run: Run, shapes: Path, model: Path, tmp_path: Path
) -> None:
    image = next((shapes / "JPEGImages").iterdir())
    common = ("detect", image, "--model", model)
    assert run(*common, "--set", "detection.max_per_class=1").code == 0
    assert_one_line(run(*common, "--set", "svm.c=1"), "svm.c was fixed", "train a model")
    other = tmp_path / "other.toml"
    other.write_text("[finetune]\nsteps = 3\n[detection]\nmax_per_class = 1\n")
    assert_one_line(run(*common, "--config", other), "finetune.steps was fixed")
    assert_one_line(run(*common, "--set", "detection.nms=1"), "did you mean 'detection.nms_iou'")


def test_a_damaged_model_is_named(run: Run, shapes: Path, model: Path, tmp_path: Path) -> None:
    image = next((shapes / "JPEGImages").iterdir())
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(model.read_bytes()[:-100])
    assert_one_line(run("detect", image, "--model", cut), str(cut), "truncated")
    assert_one_line(
        run("detect", image, "--model", tmp_path / "no"), str(tmp_path / "no"), "no such"
    )
    assert_one_line(run("detect", image, "--model", image), str(image), "not an sppdet model")
    folder = tmp_path / "run"
    folder.mkdir()
    assert_one_line(run("detect", image, "--model", folder), "is a directory; give a model file")
    inner = folder / "model.safetensors"
    inner.write_bytes(model.read_bytes())
    assert_one_line(run("detect", image, "--model", folder), f"give its model file: {inner}")


def test_an_unknown_device_is_refused(run: Run, shapes: Path, model: Path) -> None:
    image = next((shapes / "JPEGImages").iterdir())
    assert_one_line(run("detect", image, "--model", model, "--device", "abacus"), "'abacus'")


def test_detect_in_both_modes(run: Run, shapes: Path, model: Path, tmp_path: Path) -> None:
    image = next((shapes / "JPEGImages").iterdir())
    loose = ("--set", "detection.margin_threshold=-9.0", "--threshold", "0")
    few = (*loose, "--set", "proposals.max_proposals=5", "--model", model)
    files = {mode: tmp_path / f"{mode}.json" for mode in ("spp", "rcnn")}
    for mode, file in files.items():
        ran = run("detect", image, "--mode", mode, "--json", file, *few)
        assert ran.code == 0
        assert ("regions: 5 of 5" in ran.err) == (mode == "rcnn")
    default = tmp_path / "default.json"
    run("detect", image, "--json", default, *few)
    found = {mode: json.loads(file.read_text()) for mode, file in files.items()}
    assert json.loads(default.read_text()) == found["spp"]
    assert found["rcnn"]["classes"] == found["spp"]["classes"]
    assert len(found["spp"]["images"][0]["detections"]) > 0
    assert found["rcnn"]["images"] != found["spp"]["images"]
    assert run("detect", image, "--mode", "fast").code == 2


def test_several_models_detect_together(
    run: Run, shapes: Path, model: Path, tmp_path: Path
) -> None:
    image = next((shapes / "JPEGImages").iterdir())
    other = tmp_path / "other.safetensors"
    other.write_bytes(model.read_bytes())
    files = {source: tmp_path / f"{i}.json" for i, source in enumerate((model, f"{model}+{other}"))}
    for source, file in files.items():
        words = ("detect", image, "--model", source, "--json", file, "--threshold", "0")
        assert run(*words, "--set", "detection.max_per_class=3").code == 0
    one, both = (json.loads(file.read_text())["images"][0] for file in files.values())
    assert len(one["detections"]) == len(both["detections"]) > 0
    for a, b in zip(one["detections"], both["detections"], strict=True):
        assert a["class"] == b["class"]
        assert b["score"] == pytest.approx(a["score"], abs=1e-4)
    ran = run("detect", image, "--model", f"{model}+{other}", "--mode", "rcnn")
    assert_one_line(ran, "--mode rcnn takes one model")
