"""`sppdet data crops` and `sppdet classify train`: exit codes, messages, and what is written."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from sppdet import Classifier
from sppdet.classification.config import ClassificationConfig
from sppdet.core.settings import from_dict
from sppdet.datasets import make_synthetic_voc
from tests.cli.conftest import Run, assert_one_line

SMALL = (
    "network.width=0.1",
    "network.fc6=16",
    "network.fc7=16",
    "network.input_side=64",
    "network.levels=[2, 1]",
    "training.epochs=1",
    "training.batch=8",
)


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """A small synthetic VOC data set."""
    root = tmp_path / "shapes"
    return make_synthetic_voc(root, train=8, val=3, test=0, width=120, height=90)


def training(data: Path, folder: Path, *more: str) -> list[str | Path]:
    words = [word for change in SMALL for word in ("--set", change)]
    return ["classify", "train", data, "--run", folder, *words, *more]


def test_crops_are_cut_and_learned_from(run: Run, shapes: Path, tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    cut = run("data", "crops", shapes, crops, "--split", "train", "--split", "val")
    assert cut.code == 0
    assert f"{crops / 'train'}: " in cut.out
    assert sorted(path.name for path in crops.iterdir()) == ["train", "val"]
    done = run(*training(crops, tmp_path / "run", "--split", "train", "--test", "val"))
    assert done.code == 0
    assert "6 classes" in done.out
    assert "validation error" in done.err
    model = tmp_path / "run" / "model.safetensors"
    first = model.read_bytes()
    assert Classifier.load(model).classes == (
        "circle",
        "cross",
        "ring",
        "square",
        "star",
        "triangle",
    )
    again = run(*training(crops, tmp_path / "run", "--split", "train", "--test", "val"))
    assert again.code == 0
    assert "going on after epoch 1" in again.err
    assert model.read_bytes() == first


def test_a_broken_image_is_told_and_the_rest_cut(run: Run, shapes: Path, tmp_path: Path) -> None:
    (shapes / "JPEGImages" / "000002.jpg").write_bytes(b"no image")
    cut = run("data", "crops", shapes, tmp_path / "crops")
    assert cut.code == 1
    assert "000002.jpg: not an image" in cut.err
    assert "1 image could not be used" in cut.err
    assert len(list((tmp_path / "crops" / "train").rglob("*.jpg"))) >= 7
    again = run("data", "crops", shapes, tmp_path / "crops")
    assert again.code == 1
    assert "is already there" in again.err


def test_mistakes_are_one_line_each(run: Run, shapes: Path, tmp_path: Path) -> None:
    for words, message in (
        (["classify", "train", tmp_path / "none", "--run", tmp_path / "r"], "no such folder"),
        (["classify", "train", shapes, "--run", tmp_path / "r"], "is a data set of objects"),
        (training(shapes, tmp_path / "r", "--set", "network.fc77=3"), "did you mean 'network.fc7'"),
        (training(shapes, tmp_path / "r", "--set", "network.variant=flat"), "'spp' or 'plain'"),
        (["data", "crops", shapes, tmp_path / "c", "--split", "tests"], "no split 'tests'"),
    ):
        ran = run(*words)
        assert ran.code == 1
        assert message in ran.err
        assert ran.err.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_a_data_set_of_objects_is_refused_with_the_way_out(
    run: Run, shapes: Path, tmp_path: Path
) -> None:
    yolo = tmp_path / "yolo"
    assert run("data", "convert", shapes, yolo, "--to", "yolo").code == 0
    for data in (shapes, yolo):
        ran = run(*training(data, tmp_path / "run"))
        assert_one_line(ran, "is a data set of objects", f"sppdet data crops {data} OUT")


def test_settings_are_a_config_file(run: Run, tmp_path: Path) -> None:
    shown = run("classify", "settings", "--set", "training.sizes=[224, 180]", "--seed", "4")
    assert shown.code == 0
    (tmp_path / "mine.toml").write_text(shown.out)
    values = tomllib.loads(shown.out)
    assert values["seed"] == 4
    again = run("classify", "settings", "--config", tmp_path / "mine.toml")
    assert again.out == shown.out
    values["training"].pop("random_sizes")
    assert from_dict(ClassificationConfig, values).training.sizes == (224, 180)
    assert "# Passes over the training images" in shown.out
