"""Training a classifier: learns, resumes byte for byte, saves what it learned, refuses the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sppdet
from sppdet.backbones import load_backbone
from sppdet.backbones.feature_maps import FeatureConfig, FeatureExtractor
from sppdet.backbones.paper_networks import PAPER_NETWORKS
from sppdet.classification.classifier import Classifier
from sppdet.classification.config import (
    ClassificationConfig,
    NetworkConfig,
    load_classification_config,
)
from sppdet.classification.data import ImageCache
from sppdet.classification.network import ClassificationNetwork
from sppdet.classification.train import draw_curves, train_classifier
from sppdet.core.errors import ConfigError, ImageError, ModelFormatError, TrainingError
from sppdet.core.images import read_image
from sppdet.core.progress import NullProgress
from sppdet.core.settings import load
from sppdet.core.tensor_files import load_tensors
from sppdet.core.types import Dataset
from sppdet.datasets import LabeledImages, load_class_folders, load_dataset, write_object_crops
from sppdet.detection.detector import Detector
from sppdet.detection.model_zoo import resolve_model
from sppdet.heads.config import HeadConfig
from sppdet.heads.head import RegionHead
from sppdet.training import train
from sppdet.training.config import TrainingConfig
from tests.helpers.killed_classification import KILLED_AT, KILLED_BEFORE

SMALL = (
    "network.width=0.1",
    "network.fc6=16",
    "network.fc7=16",
    "network.input_side=64",
    "network.levels=[2, 1]",
    "training.epochs=2",
    "training.batch=6",
)
SHIPPED = resolve_model("default")
COLORS = {"blue": (40, 60, 220), "red": (220, 50, 40)}


def settings(*changes: str) -> ClassificationConfig:
    return load_classification_config(None, [*SMALL, *changes])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blue and red noise, six images of each."""
    root = tmp_path_factory.mktemp("colors")
    rng = np.random.default_rng(0)
    for name, color in COLORS.items():
        (root / name).mkdir()
        for number in range(6):
            noise = rng.normal(color, 30, (70 + number, 90, 3)).clip(0, 255)
            Image.fromarray(noise.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def images(folder: Path) -> LabeledImages:
    return load_class_folders(folder)


@pytest.fixture(scope="module")
def trained(images: LabeledImages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a classifier that tells red from blue."""
    run = tmp_path_factory.mktemp("run")
    config = settings("training.epochs=12", "training.sizes=[64, 48]")
    config = config.replace(augment=config.augment.replace(color=0.0))
    train_classifier(config, images, run, validation=images, progress=NullProgress())
    return run


def test_no_images_cannot_be_trained_on(images: LabeledImages, tmp_path: Path) -> None:
    none = replace(images, paths=(), labels=np.zeros(0, np.int64))
    with pytest.raises(TrainingError, match="has no images"):
        train_classifier(settings(), none, tmp_path, progress=NullProgress())
    one = replace(images, classes=("blue",))
    with pytest.raises(TrainingError, match="has one class only"):
        train_classifier(settings(), one, tmp_path, progress=NullProgress())
    other = replace(images, classes=("blue", "green"))
    with pytest.raises(TrainingError, match="other classes"):
        train_classifier(settings(), images, tmp_path, validation=other, progress=NullProgress())


def test_it_learns_at_two_sizes_and_says_so(trained: Path) -> None:
    epochs = json.loads((trained / "history.json").read_text())["epochs"]
    assert [epoch["side"] for epoch in epochs] == [64, 48] * 6
    assert epochs[-1]["error"] == 0
    assert epochs[-1]["loss"] < 0.5 * epochs[0]["loss"]
    assert read_image(trained / "curves.png").shape == (660, 900, 3)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_curves_are_drawn_of_any_history_and_always_alike(tmp_path: Path, count: int) -> None:
    history = [
        {"epoch": n, "loss": 2 - n / 3, "training_error": 1 / n} for n in range(1, count + 1)
    ]
    for name in "ab":
        draw_curves(tmp_path / name, history)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_image(tmp_path / "a").shape == (660, 900, 3)


def test_the_model_file_holds_what_was_trained(
    trained: Path, images: LabeledImages, tmp_path: Path
) -> None:
    classifier = sppdet.Classifier.load(trained / "model.safetensors")
    assert classifier.classes == ("blue", "red")
    for path, label in zip(images.paths, images.labels, strict=True):
        best, other = classifier.classify(path)
        assert best.name == classifier.classes[label]
        assert best.probability > other.probability
        assert best.probability + other.probability == pytest.approx(1)
    state = load_tensors(trained / "state.safetensors")
    for name, value in classifier.network.state_dict().items():
        exact = torch.from_numpy(state.tensors[f"network.{name}"])
        if name.startswith("backbone."):
            assert torch.equal(value, exact)
        else:
            assert torch.equal(value, exact.half().float())
    classifier.save(tmp_path / "again.safetensors", description="", provenance={})
    again = Classifier.load(tmp_path / "again.safetensors")
    image = read_image(images.paths[0])
    assert np.array_equal(again.probabilities(image), classifier.probabilities(image))
    assert again.config == classifier.config


def test_bad_images_and_model_files_are_named(trained: Path, tmp_path: Path) -> None:
    classifier = Classifier.load(trained / "model.safetensors")
    with pytest.raises(ImageError, match="no such image file"):
        classifier.classify(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="NoneType"):
        classifier.classify(None)  # type: ignore[arg-type]
    with pytest.raises(ModelFormatError, match="is a classifier, not a detector"):
        Detector.load(trained / "model.safetensors")
    with pytest.raises(ModelFormatError, match="is a detector, not a classifier"):
        Classifier.load(SHIPPED)
    whole = (trained / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ModelFormatError, match="truncated"):
        Classifier.load(tmp_path / "cut.safetensors")


def test_a_killed_training_ends_in_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.helpers.killed_classification",
        str(folder),
        str(tmp_path),
    ]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(KILLED_AT) + len(KILLED_BEFORE)
    for name in ("model.safetensors", "state.safetensors", "history.json", "curves.png"):
        whole, killed = (tmp_path / run / name for run in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes(), name


def test_more_epochs_go_on_and_end_as_one_training(images: LabeledImages, tmp_path: Path) -> None:
    for run, steps in (("a", (3,)), ("b", (1, 1, 3))):
        for epochs in steps:
            config = settings(f"training.epochs={epochs}", "training.random_sizes=[50, 64]")
            train_classifier(config, images, tmp_path / run, progress=NullProgress())
    for name in ("model.safetensors", "history.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with pytest.raises(TrainingError, match="has 3 epochs already"):
        train_classifier(
            settings("training.random_sizes=[50, 64]"),
            images,
            tmp_path / "a",
            progress=NullProgress(),
        )


def test_a_run_of_other_settings_or_images_is_refused(
    images: LabeledImages, tmp_path: Path
) -> None:
    train_classifier(settings("training.epochs=1"), images, tmp_path, progress=NullProgress())
    changed = settings("training.learning_rate=0.1")
    with pytest.raises(TrainingError, match=r"trained with another training\.learning_rate"):
        train_classifier(changed, images, tmp_path, progress=NullProgress())
    fewer = replace(images, paths=images.paths[:-1], labels=images.labels[:-1])
    with pytest.raises(TrainingError, match="trained on other images"):
        train_classifier(settings(), fewer, tmp_path, progress=NullProgress())
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-10])
    with pytest.raises(TrainingError, match="the training state is damaged"):
        train_classifier(settings(), images, tmp_path, progress=NullProgress())


def test_broken_images_are_all_named(images: LabeledImages, tmp_path: Path) -> None:
    (tmp_path / "zero.jpg").touch()
    paths = (tmp_path / "gone.jpg", tmp_path / "zero.jpg", *images.paths[2:])
    broken = replace(images, paths=paths)
    with pytest.raises(TrainingError, match=r"2 of 12 images .*: .*gone\.jpg.*zero\.jpg"):
        train_classifier(settings(), broken, tmp_path / "run", progress=NullProgress())


def test_a_loss_that_is_not_finite_stops_and_saves(images: LabeledImages, tmp_path: Path) -> None:
    wild = settings("training.learning_rate=1e30", "augment.color=0")
    with pytest.raises(TrainingError, match=r"not finite in epoch 1, step 2; lower training\."):
        train_classifier(wild, images, tmp_path, progress=NullProgress())
    assert load_tensors(tmp_path / "state.safetensors").metadata["step"] == 1
    assert not (tmp_path / "model.safetensors").exists()


def test_images_are_kept_while_there_is_room(images: LabeledImages) -> None:
    none, some, all_kept = (ImageCache(images, 64, mb) for mb in (0, 2, 100))
    some._room = 2 * some.load(0).nbytes
    for index in range(len(images)):
        loaded = [cache.load(index) for cache in (none, some, all_kept)]
        assert all(np.array_equal(one, loaded[0]) for one in loaded)
    assert [len(cache._kept) for cache in (none, all_kept)] == [0, len(images)]
    assert 1 < len(some._kept) < 5


def test_a_frozen_backbone_is_not_stored(images: LabeledImages, tmp_path: Path) -> None:
    config = settings("network.frozen=true", "training.epochs=1")
    path = train_classifier(config, images, tmp_path, progress=NullProgress())
    before = ClassificationNetwork(config.network, images.classes, seed=config.seed)
    found = Classifier.load(path)
    assert found.network.backbone.weights_digest() == before.backbone.weights_digest()
    assert load_backbone(str(path)).weights_digest() == before.backbone.weights_digest()


@pytest.fixture(scope="module")
def voc_images(voc_root: Path) -> Dataset:
    """The first dozen real images of `val`."""
    dataset = load_dataset(voc_root, "val")
    return replace(dataset, samples=dataset.samples[:12])


@pytest.mark.parametrize("name", PAPER_NETWORKS)
def test_each_network_trains_an_epoch_and_then_serves_the_detector(
    name: str, voc_images: Dataset, tmp_path: Path
) -> None:
    write_object_crops(voc_images, tmp_path / "crops", margin=0.1)
    crops = load_class_folders(tmp_path / "crops")
    config = settings(
        f"network.backbone={name}",
        "network.input_side=224",
        "network.levels=[6, 3, 2, 1]",
        "training.epochs=1",
        "training.batch=8",
    )
    path = train_classifier(config, crops, tmp_path / "run", progress=NullProgress())
    classifier = Classifier.load(path)
    predictions = classifier.classify(voc_images.samples[0].path)
    assert {one.name for one in predictions} == set(crops.classes)
    assert sum(one.probability for one in predictions) == pytest.approx(1, abs=1e-5)
    start = ClassificationNetwork(config.network, crops.classes, seed=config.seed)
    features = FeatureConfig(backbone=str(path), layers=("conv",), scales=(224,))
    extractor = FeatureExtractor(features)
    assert extractor.backbone.weights_digest() == classifier.network.backbone.weights_digest()
    assert extractor.backbone.weights_digest() != start.backbone.weights_digest()
    maps = extractor(read_image(voc_images.samples[0].path))
    assert min(maps.maps[0].values.shape[:2]) == start.map_side
    plain = HeadConfig(pyramid_channels=0, train_top_stages=False, context_scales=(), fc6=8, fc7=8)
    head = RegionHead(plain, extractor, len(crops.classes))
    boxes = voc_images.samples[0].boxes
    pooled = head.pooler.pool(head.prepare(maps), boxes)
    assert pooled.shape == (len(boxes), 50 * extractor.channels["conv"])
    assert torch.isfinite(pooled).all()
    assert pooled.std() > 0


def test_a_detector_is_trained_on_a_classifiers_convolutions(
    trained: Path, voc_images: Dataset, tmp_path: Path
) -> None:
    model = trained / "model.safetensors"
    # The paper's ZF-5 as the detector has it, but with the classifier's convolutions, and small.
    config = load(
        TrainingConfig,
        Path(__file__).parent.parent.parent / "configs" / "zf5.toml",
        [
            f'features.backbone="{model}"',
            "features.scales=[160]",
            "head.fc6=16",
            "head.fc7=16",
            "finetune.steps=2",
            "proposals.max_proposals=60",
            "svm.proposals_per_image=30",
        ],
    )
    few = replace(voc_images, samples=voc_images.samples[:3])
    path = train(config, few, tmp_path, progress=NullProgress())
    detector = Detector.load(path)
    assert detector.extractor.backbone.name == "zf5"
    found = detector.detect(few.samples[0].path)
    assert np.isfinite(found.boxes).all()
    with pytest.raises(ModelFormatError, match="no such model file"):
        load_backbone(str(tmp_path / "gone.safetensors"))


def test_a_pretrained_plain_network_keeps_its_input_size() -> None:
    config = NetworkConfig(width=0.1, variant="plain", input_side=64, fc6=8, fc7=8)
    classifier = Classifier(
        ClassificationConfig(network=config), ClassificationNetwork(config, ("a", "b"))
    )
    image = np.zeros((200, 90, 3), np.uint8)
    assert len(classifier.classify(image)) == 2
    with pytest.raises(ConfigError, match="no views"):
        classifier.classify(image, "all")  # type: ignore[arg-type]
