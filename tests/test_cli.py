"""The command line: exit codes, one-line errors, and what each command writes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from sppdet import modelnames
from sppdet.cli import main
from sppdet.config import load_config
from sppdet.datasets import load_voc, make_synthetic_voc
from sppdet.evaluation.voc_files import write_voc_detections
from sppdet.images import read_image
from sppdet.modelfile import load_model, save_model
from sppdet.types import Dataset, Detections

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


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


@pytest.fixture(scope="module")
def model(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained by the command line on the synthetic set: far too little to be good."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in _training(shapes, folder)])
    assert not left.value.code
    return folder / "model.safetensors"


def _training(data: Path, folder: Path, *more: str) -> list[str | Path]:
    changes = ["features.scales=[120]", "head.fc6=32", "head.fc7=32", "finetune.steps=10"]
    words = [word for change in changes for word in ("--set", change)]
    return ["train", data, "--run", folder, "--config", CONFIGS / "tiny.toml", *words, *more]


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
        ("settings",),
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
        "print(sorted({'torch', 'numba', 'cv2', 'sklearn'} & set(sys.modules)))"
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
    more = ("--coco", "--errors", "--thresholds")
    ran = run("evaluate", shapes, "--results", tmp_path / "found", "--out", out, *more)
    assert ran.code == 0
    assert "AP 11-point" in ran.out
    assert "COCO metric" in ran.out
    assert "examined" in ran.out
    report = json.loads((out / "report.json").read_text())
    assert report["voc"]["map11"] == pytest.approx(1.0)
    assert report["coco"]["ap"] == pytest.approx(1.0)
    assert report["errors"]["all"]["examined"] == 0
    assert report["thresholds"]["all"] == {"threshold": 1, "precision": 1, "recall": 1, "f1": 1}
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


def test_training_again_changes_nothing(run: Run, shapes: Path, model: Path) -> None:
    before = model.read_bytes()
    again = run(*_training(shapes, model.parent))
    assert again.code == 0
    assert "unchanged" in again.err
    assert f"sppdet detect IMAGE --model {model}" in again.out
    assert model.read_bytes() == before


def test_an_interrupt_leaves_with_130(shapes: Path, tmp_path: Path) -> None:
    endless = _training(shapes, tmp_path, "--set", "finetune.steps=100000")
    command = [sys.executable, "-c", "from sppdet.cli import main; main()", *map(str, endless)]
    # What runs in the background of a script inherits that interrupts are ignored.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        signal.signal(signal.SIGINT, usual)
        assert job.stderr is not None
        for line in job.stderr:
            if line.startswith("conv maps"):
                break
        job.send_signal(signal.SIGINT)
        rest = job.stderr.read()
        assert job.wait() == 130
    assert "Traceback" not in rest


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
        *("--out", out, "--json", found, "--threshold", "-1.4"),
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
    assert all(one["score"] >= -1.4 and one["class"] in document["classes"] for one in seen)
    shown = [line for line in ran.out.splitlines() if line.startswith("  ")]
    assert len(shown) == len(seen)


def test_detect_never_writes_over_its_input(run: Run, shapes: Path, model: Path) -> None:
    folder = shapes / "JPEGImages"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    _one_line(run("detect", folder, "--out", folder, "--model", model), "name another folder")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_an_empty_folder_and_a_pattern_without_images(run: Run, tmp_path: Path) -> None:
    _one_line(run("detect", tmp_path), str(tmp_path), "holds no images")
    _one_line(run("detect", tmp_path / "*.jpg"), "*.jpg", "matches no images")


def test_settings_that_training_fixed_cannot_change(run: Run, shapes: Path, model: Path) -> None:
    image = next((shapes / "JPEGImages").iterdir())
    common = ("detect", image, "--model", model)
    assert run(*common, "--set", "detection.max_per_class=1").code == 0
    _one_line(run(*common, "--set", "svm.c=1"), "svm.c was fixed", "train a model")
    _one_line(run(*common, "--set", "detection.nms=1"), "did you mean 'detection.nms_iou'")


def test_a_damaged_model_is_named(run: Run, shapes: Path, model: Path, tmp_path: Path) -> None:
    image = next((shapes / "JPEGImages").iterdir())
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(model.read_bytes()[:-100])
    _one_line(run("detect", image, "--model", cut), str(cut), "truncated")
    _one_line(run("detect", image, "--model", tmp_path / "no"), str(tmp_path / "no"), "no such")
    _one_line(run("detect", image, "--model", image), str(image), "not an sppdet model")


def test_an_unknown_device_is_refused(run: Run, shapes: Path, model: Path) -> None:
    image = next((shapes / "JPEGImages").iterdir())
    _one_line(run("detect", image, "--model", model, "--device", "abacus"), "'abacus'")


def test_evaluate_a_model_then_its_result_files(
    run: Run, shapes: Path, model: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    ran = run("evaluate", shapes, "--model", model, "--out", first)
    assert ran.code == 0
    assert "AP 11-point" in ran.out
    assert len(list(first.glob("comp4_det_val_*.txt"))) == len(load_voc(shapes, "val").classes)
    assert run("evaluate", shapes, "--results", first, "--out", second).code == 0
    reports = [json.loads((out / "report.json").read_text()) for out in (first, second)]
    assert reports[0]["voc"] == reports[1]["voc"]


def test_evaluating_on_the_training_images_is_said(
    run: Run, shapes: Path, model: Path, tmp_path: Path
) -> None:
    header, tensors = load_model(model)
    trained = load_voc(shapes, "train").name
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


def test_propose_on_images_and_on_a_data_set(run: Run, shapes: Path, tmp_path: Path) -> None:
    found = tmp_path / "boxes.json"
    images = run("propose", shapes / "JPEGImages", tmp_path / "absent.jpg", "--json", found)
    assert images.code == 1
    assert "1 of 8 images could not be read" in images.err
    records = json.loads(found.read_text())["images"]
    boxes = [np.array(record["boxes"]) for record in records if "boxes" in record]
    assert len(boxes) == 7
    assert all(one.shape[1] == 4 and one.min() >= 0 and one[:, 2].max() <= 120 for one in boxes)
    dataset = run("propose", shapes, "--split", "val", "--cache", tmp_path / "cache")
    assert dataset.code == 0
    assert "MABO" in dataset.out
    assert len(list((tmp_path / "cache").rglob("*.boxes"))) == 3


def test_settings_are_a_config_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text(run("settings", "--set", "svm.c=0.5", "--seed", "3").out)
    assert load_config(path) == load_config(None, ["svm.c=0.5", "seed=3"])
    lines = path.read_text().splitlines()
    assert all(lines[i - 1].startswith("#") for i, line in enumerate(lines) if line[:2] == "c ")


def test_models_are_listed_and_used_by_name(
    run: Run, shapes: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modelnames, "SHIPPED", tmp_path)
    assert run("models").out.startswith("none; train one")
    for name in ("default", "fast", "accurate"):
        (tmp_path / f"{name}.safetensors").write_bytes(model.read_bytes())
    ran = run("models")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["accurate", "default", "fast"]
    size, classes = f"{model.stat().st_size / 1e6:.1f} MB", len(load_voc(shapes, "train").classes)
    for line in lines:
        assert f": {size}, {classes} classes, trained on shapes train, 4 images" in line
    image = next((shapes / "JPEGImages").iterdir())
    told = [run("detect", image, "--model", name).out for name in ("fast", "accurate")]
    told += [run("detect", image).out, run("detect", image, "--model", model).out]
    assert all("1 images" in one for one in told)
    _one_line(run("detect", image, "--model", "quick"), "no such model", "accurate, default, fast")


def test_the_shipped_models_are_listed(run: Run) -> None:
    ran = run("models")
    assert ran.code == 0
    assert ran.out


def test_detect_in_both_modes(run: Run, shapes: Path, model: Path, tmp_path: Path) -> None:
    image = next((shapes / "JPEGImages").iterdir())
    loose = ("--set", "detection.score_threshold=-9.0", "--threshold", "-9")
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


def test_evaluate_leaves_no_maps_behind_unless_asked(
    run: Run, shapes: Path, model: Path, tmp_path: Path
) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    common = ("evaluate", shapes, "--model", model, "--out", out, "--threads", "1")
    assert run(*common).code == 0
    assert {path.suffix for path in out.rglob("*") if path.is_file()} == {".txt", ".json"}
    assert run(*common, "--cache", cache).code == 0
    assert len(list(cache.rglob("*.maps"))) == len(load_voc(shapes, "val"))
