"""`sppdet classify train-svm`, `test` and `predict`: what they print and write, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppdet.classification.classifier import Classifier
from sppdet.classification.config import ClassificationConfig, NetworkConfig
from sppdet.classification.multi_view import VIEW_SETS
from sppdet.classification.network import ClassificationNetwork
from sppdet.cli import main
from sppdet.cli.classify_predict import ViewNames
from sppdet.cli.labeled_data import holds_objects
from sppdet.core.files import array_digest
from sppdet.core.tensor_files import load_tensors
from sppdet.datasets import make_synthetic_voc
from sppdet.detection.model_zoo import resolve_model
from tests.cli.conftest import Run, assert_one_line
from tests.helpers.made_voc import write_pair

CLASSES = ("dark", "light")
SMALL = ["--set", "features.scales=[48]"]


def write_photos(root: Path, count: int = 4) -> Path:
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(count):
            rng = np.random.default_rng(10 * label + i)
            pixels = rng.integers(150 * label, 100 + 150 * label, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two classes, to be changed as a test likes."""
    return write_photos(tmp_path / "photos")


@pytest.fixture(scope="module")
def svms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SVMs trained by the command line on such a folder."""
    folder = tmp_path_factory.mktemp("svms")
    data = write_photos(folder / "photos", 6)
    with pytest.raises(SystemExit) as left:
        main(["classify", "train-svm", str(data), "--run", str(folder / "run"), *SMALL])
    assert not left.value.code
    return folder / "run" / "model.safetensors"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network's model file."""
    config = ClassificationConfig(
        network=NetworkConfig(width=0.125, input_side=64, fc6=8, fc7=8, levels=(2, 1))
    )
    path = tmp_path_factory.mktemp("network") / "model.safetensors"
    made = Classifier(config, ClassificationNetwork(config.network, CLASSES))
    made.save(path, description="untrained", provenance={})
    return path


def test_the_option_knows_all_views() -> None:
    assert tuple(name.value for name in ViewNames) == VIEW_SETS


def test_accuracy_on_folders(run: Run, photos: Path, svms: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("classify", "test", photos, "--model", svms, "--out", out)
    assert ran.code == 0
    assert ran.out.splitlines()[-3].split() == ["all", "8", "8", "1.000"]
    report = json.loads((out / "report.json").read_text())
    assert report["accuracy"]["top1"] == 1.0
    assert report["accuracy"]["classes"]["light"] == {"images": 4, "right": 4}
    assert report["errors"] == []


@pytest.mark.parametrize("views", VIEW_SETS)
def test_a_network_is_tested_by_any_views(
    run: Run, photos: Path, network: Path, views: str
) -> None:
    ran = run("classify", "test", photos, "--model", network, "--views", views)
    assert ran.code == 0
    assert "all" in ran.out


def test_a_bad_image_counts_as_wrong_and_is_named(run: Run, photos: Path, svms: Path) -> None:
    (photos / "light" / "1.png").write_bytes(b"no image")
    ran = run("classify", "test", photos, "--model", svms)
    assert ran.code == 1
    assert "light/1.png: not an image" in ran.err
    assert "1 of 8 images could not be read" in ran.err
    assert ran.out.splitlines()[-1].split() == ["all", "8", "7", "0.875"]


def test_folders_of_other_classes_are_refused(run: Run, photos: Path, svms: Path) -> None:
    (photos / "light").rename(photos / "bright")
    ran = run("classify", "test", photos, "--model", svms)
    assert ran.code == 1
    assert "bright: is not one of the classes dark, light" in ran.err
    # What only a data set of objects has is not passed over.
    ran = run("classify", "test", photos, "--model", svms, "--year", "2007")
    assert_one_line(ran, "no annotations of a known format")


def test_a_voc_data_set_from_training_to_result_files(run: Run, tmp_path: Path) -> None:
    data = make_synthetic_voc(tmp_path / "shapes", train=10, val=5, test=0, width=80, height=64)
    model = tmp_path / "run" / "model.safetensors"
    trained = run("classify", "train-svm", data, "--run", model.parent, *SMALL)
    assert trained.code == 0
    assert "10 images" in trained.out
    first = model.read_bytes()
    # Features are taken from disk the second time, to the same model.
    run("classify", "train-svm", data, "--run", model.parent, *SMALL)
    assert model.read_bytes() == first
    out = tmp_path / "out"
    ran = run("classify", "test", data, "--model", model, "--out", out)
    assert ran.code == 0
    assert "AP 11-point" in ran.out
    report = json.loads((out / "report.json").read_text())["voc"]
    files = sorted(path.name for path in out.glob("comp2_cls_val_*.txt"))
    assert files == sorted(f"comp2_cls_val_{name}.txt" for name in report["classes"])
    assert all(len((out / name).read_text().splitlines()) in (0, 5) for name in files)


def test_predictions_are_told_and_written(
    run: Run, photos: Path, svms: Path, network: Path, tmp_path: Path
) -> None:
    (photos / "dark" / "bad.png").write_bytes(b"")
    for model, unit in ((svms, "margin"), (network, "probability")):
        ran = run(
            "classify", "predict", photos / "dark", "-m", model, "--top", "1",
            "--json", tmp_path / "found.json",
        )  # fmt: skip
        assert ran.code == 1
        assert "bad.png: is empty" in ran.err
        assert "1 of 5 images could not be read" in ran.err
        found = json.loads((tmp_path / "found.json").read_text())
        assert found["unit"] == unit
        assert len(found["images"]) == 5
        assert [one["file"] for one in found["images"] if "error" in one] == [
            str(photos / "dark" / "bad.png")
        ]
        assert found["images"][0]["scores"].keys() == set(CLASSES)
    lines = tmp_path / "found.jsonl"
    words = ("classify", "predict", photos / "dark", "-m", svms, "--jsonl", lines)
    run(*words)
    whole = lines.read_bytes()
    assert len(whole.splitlines()) == 5
    kept = whole.splitlines(keepends=True)
    lines.write_bytes(b"".join(kept[:3]) + kept[3][:20])  # the last one is of the broken image
    assert "3 of 5 images were done before" in run(*words).out
    assert lines.read_bytes() == whole
    assert run("classify", "predict", photos / "dark" / "0.png", "-m", svms).out.startswith(
        f"{photos / 'dark' / '0.png'}: dark "
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["predict", "PHOTO", "-m", "none.safetensors"], "no such model file"),
        (["predict", "PHOTO", "-m", "DETECTOR"], "is a detector"),
        (["test", "no-folder", "-m", "SVMS"], "no-folder: no such folder"),
        (["test", "no-folder", "-m", "SVMS", "--views", "full"], "leave out --views"),
        (["train-svm", "no-folder", "--run", "x"], "no-folder: no such folder"),
        (
            ["train-svm", "no-folder", "--run", "x", "--set", "features.scale=[3]"],
            "did you mean 'features.scales'",
        ),
        (["predict", "PHOTO", "-m", "SVMS", "--device", "abacus"], "cannot use the device"),
    ],
)
def test_bad_input_is_one_line(run: Run, svms: Path, words: list[str], problem: str) -> None:
    photo = Path(__file__).resolve().parents[2] / "docs" / "demo.jpg"
    files = {"SVMS": str(svms), "DETECTOR": str(resolve_model("default")), "PHOTO": str(photo)}
    ran = run("classify", *(files.get(word, word) for word in words))
    assert ran.code == 1
    assert problem in ran.err
    assert len(ran.err.strip().splitlines()) == 1


def test_unreadable_training_images_are_named(run: Run, photos: Path, tmp_path: Path) -> None:
    (photos / "dark" / "0.png").write_bytes(b"no image")
    ran = run("classify", "train-svm", photos, "--run", tmp_path / "run", *SMALL)
    assert ran.code == 1
    assert "1 of 8 images cannot be used" in ran.err
    assert "0.png" in ran.err


def test_settings_are_a_config_file(run: Run, tmp_path: Path) -> None:
    ran = run("classify", "settings", "--svm", "--set", "svm.c=2")
    assert ran.code == 0
    (tmp_path / "mine.toml").write_text(ran.out)
    again = run("classify", "settings", "--svm", "--config", tmp_path / "mine.toml")
    assert again.out == ran.out


def test_data_sets_of_other_formats_give_the_same_classifier(run: Run, tmp_path: Path) -> None:
    shapes = make_synthetic_voc(tmp_path / "shapes", train=10, val=5, test=0, width=80, height=64)
    # YOLO has no flag for difficult objects: without them, the three are the same.
    sets = {"yolo": (shapes, "YOLO"), "coco": (tmp_path / "yolo", "COCO")}
    sets["voc"] = (tmp_path / "coco", "VOC XML")
    tables, models = set(), set()
    for to, (source, title) in sets.items():
        data, out = tmp_path / to, tmp_path / f"{to}-out"
        assert run("data", "convert", source, data, "--to", to).code == 0
        trained = run("classify", "train-svm", data, "--run", tmp_path / f"{to}-run", *SMALL)
        assert trained.out.startswith(title)
        assert "no split given: using train" in trained.out
        model = tmp_path / f"{to}-run" / "model.safetensors"
        models.add(tuple(sorted(map(array_digest, load_tensors(model)[0].values()))))
        ran = run("classify", "test", data, "--model", model, "--out", out)
        assert ran.code == 0
        assert "no split given: using val" in ran.out
        tables.add(json.dumps(json.loads((out / "report.json").read_text())["voc"]["classes"]))
        assert (to == "voc") == any(out.glob("comp2_cls_val_*.txt"))
    assert len(tables) == len(models) == 1


def test_a_classifier_is_tested_on_the_classes_that_it_knows(run: Run, tmp_path: Path) -> None:
    data = make_synthetic_voc(tmp_path / "shapes", train=10, val=5, test=0, width=80, height=64)
    few = tmp_path / "few"
    words = ("data", "convert", data, few, "--to", "coco", "--classes", "ring,star")
    assert run(*words).code == 0
    run("classify", "train-svm", few, "--run", tmp_path / "run", *SMALL)
    ran = run("classify", "test", data, "--model", tmp_path / "run" / "model.safetensors")
    assert ran.code == 0
    assert "objects of classes that were not asked for, left out" in ran.err


def test_data_sets_are_told_from_folders_of_classes(tmp_path: Path, photos: Path) -> None:
    for folder in ("a/Annotations", "b/VOC2007/Annotations", "c/VOCdevkit/VOC2012/Annotations"):
        write_pair(tmp_path / folder / "1.jpg", tmp_path / folder / "1.xml")
        assert holds_objects(tmp_path / folder.split("/")[0])
    assert not holds_objects(photos)
    assert not holds_objects(tmp_path / "none")
    # XML beside the images of each class.
    for name in CLASSES:
        write_pair(photos / name / "x.jpg", photos / name / "x.xml")
    assert not holds_objects(photos)
