"""The classifier of SVMs: training from files, its model file, and the common predictor."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppdet.classification.config import ImageFeatureConfig, SvmClassifierConfig
from sppdet.classification.image_features import ImageFeatureExtractor, extract_features
from sppdet.classification.predictor import load_predictor
from sppdet.classification.svm_classifier import SvmClassifier, train_svm_classifier
from sppdet.core.errors import ConfigError, ImageError, ModelFormatError, TrainingError
from sppdet.core.images import read_image
from sppdet.core.model_file import (
    CLASSIFIER,
    SVM_CLASSIFIER,
    ModelHeader,
    load_model,
    read_header,
    save_model,
)
from sppdet.core.progress import NullProgress
from sppdet.core.types import ImageArray, IntArray
from sppdet.detection.model_zoo import resolve_model

CLASSES = ("dark", "light", "red")
SHIPPED = resolve_model("default")
CONFIG = SvmClassifierConfig(features=ImageFeatureConfig(scales=(48,)))


@cache
def extractor() -> ImageFeatureExtractor:
    return ImageFeatureExtractor(CONFIG.features)


def pixels(kind: int, seed: int) -> ImageArray:
    low, high = ((0, 90), (160, 256), (0, 90))[kind]
    image = np.random.default_rng(seed).integers(low, high, (50, 60, 3), dtype=np.uint8)
    if kind == 2:
        image[..., 0] = 230
    return image


def write_images(folder: Path, count: int = 18) -> tuple[list[Path], IntArray]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:02}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(pixels(i % 3, i)).save(path)
    labels = np.full((count, 3), -1, np.int64)
    labels[np.arange(count), np.arange(count) % 3] = 1
    return paths, labels


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SvmClassifier:
    paths, labels = write_images(tmp_path_factory.mktemp("images"))
    return train_svm_classifier(CONFIG, CLASSES, paths, labels)[0]


def test_no_images_are_an_error() -> None:
    with pytest.raises(TrainingError, match="no images"):
        train_svm_classifier(CONFIG, CLASSES, [], np.zeros((0, 3), np.int64))


def test_it_learns_what_it_was_shown(trained: SvmClassifier) -> None:
    for kind in range(3):
        scores = trained.scores(pixels(kind, 100 + kind))
        assert scores.dtype == np.float32
        assert scores.argmax() == kind


def test_the_best_window_counts_besides_the_whole(trained: SvmClassifier) -> None:
    image = np.concatenate([pixels(0, 1), pixels(2, 2)], axis=1)
    rows = extractor()(image)
    alone = trained.svms.decision_function(rows)
    assert alone.shape == (5, 3)
    found = trained.scores(image)
    assert found == pytest.approx(alone[0] + 0.5 * alone[1:].max(axis=0), abs=1e-5)


def test_an_untrained_class_scores_minus_infinity(tmp_path: Path) -> None:
    paths, labels = write_images(tmp_path)
    labels[:, 0] = -1
    for weight in (0.0, 0.5):
        config = SvmClassifierConfig(
            features=ImageFeatureConfig(scales=(48,), window_weight=weight)
        )
        scores = train_svm_classifier(config, CLASSES, paths, labels)[0].scores(pixels(1, 3))
        assert scores[0] == -np.inf
        assert np.isfinite(scores[1:]).all()


def test_the_facts_of_training_are_told(tmp_path: Path) -> None:
    paths, labels = write_images(tmp_path)
    labels[:, 0] = -1
    _, facts = train_svm_classifier(CONFIG, CLASSES, paths, labels)
    assert facts["images"] == 18
    assert facts["untrained"] == ["dark"]
    assert facts["unconverged"] == []
    assert facts["c"] in CONFIG.svm.candidates


def test_features_are_those_of_the_files_with_and_without_a_store(tmp_path: Path) -> None:
    paths, _ = write_images(tmp_path / "images", 3)
    rows, errors = extract_features(paths, extractor(), None, NullProgress())
    assert errors == {}
    for row, path in zip(rows, paths, strict=True):
        assert row.shape == (extractor().config.views, extractor().dim)
        assert np.array_equal(row, extractor()(read_image(path)))
    for _ in range(2):
        kept, _ = extract_features(paths, extractor(), tmp_path / "cache", NullProgress())
        assert np.array_equal(kept, rows)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 3


def test_a_bad_image_is_named_and_the_others_are_done(tmp_path: Path) -> None:
    paths, labels = write_images(tmp_path / "images", 4)
    paths[1].write_bytes(b"no image")
    paths[2].unlink()
    for cache_folder in (None, tmp_path / "cache"):
        rows, errors = extract_features(paths, extractor(), cache_folder, NullProgress())
        assert sorted(errors) == [1, 2]
        assert all(isinstance(error, ImageError) for error in errors.values())
        assert not rows[1:3].any()
        assert rows[0].any()
        assert rows[3].any()
    with pytest.raises(TrainingError, match=r"2 of 4 images cannot be used: .*01\.png"):
        train_svm_classifier(CONFIG, CLASSES, paths, labels)


def test_a_model_file_comes_back_the_same(tmp_path: Path, trained: SvmClassifier) -> None:
    path = tmp_path / "model.safetensors"
    trained.save(path, description="three kinds", provenance={"images": 18})
    assert read_header(path).kind == SVM_CLASSIFIER
    loaded = SvmClassifier.load(path)
    assert (loaded.classes, loaded.config) == (CLASSES, CONFIG)
    image = pixels(1, 7)
    assert np.array_equal(loaded.scores(image), trained.scores(image))
    first = path.read_bytes()
    trained.save(path, description="three kinds", provenance={"images": 18})
    assert path.read_bytes() == first


def test_damaged_and_other_files_are_refused(tmp_path: Path, trained: SvmClassifier) -> None:
    path = tmp_path / "model.safetensors"
    trained.save(path, description="", provenance={})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelFormatError, match="damaged"):
        SvmClassifier.load(path)
    with pytest.raises(ModelFormatError, match=r"is a detector, not a classifier of SVMs"):
        SvmClassifier.load(SHIPPED)
    with pytest.raises(ModelFormatError, match="is a detector"):
        load_predictor(SHIPPED)


@pytest.mark.parametrize("kind", [CLASSIFIER, SVM_CLASSIFIER])
@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"newer": {"x": 1}}, "unknown key 'newer'"),
        ({"network": {"backbone": "lenet"}}, "network.backbone is 'lenet'"),
        ({"features": {"backbone": "lenet"}}, "unknown backbone 'lenet'"),
    ],
)
def test_a_newer_file_says_which_version_wrote_it(
    tmp_path: Path, kind: str, config: dict[str, object], problem: str
) -> None:
    path = tmp_path / "newer.safetensors"
    header = ModelHeader(("a", "b"), config, "lenet", "0", "", {"sppdet": "9.9"}, kind)
    save_model(path, header, {})
    own = "network" if kind == CLASSIFIER else "features"
    if own not in config:
        problem = "unknown key"
    with pytest.raises(ModelFormatError) as caught:
        load_predictor(path)
    assert str(caught.value).startswith(f"{path}: was written by sppdet 9.9, whose settings this")
    assert f"({problem}" in str(caught.value)
    assert str(caught.value).endswith("install the sppdet that wrote it, or train again")


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, trained: SvmClassifier) -> None:
    path = tmp_path / "model.safetensors"
    trained.save(path, description="", provenance={})
    header, tensors = load_model(path, SVM_CLASSIFIER)
    for changed in (
        {**tensors, "weights": tensors["weights"][:, 1:]},
        {**tensors, "more": tensors["bias"]},
        {name: array for name, array in tensors.items() if name != "bias"},
    ):
        save_model(path, header, changed)
        with pytest.raises(ModelFormatError, match="do not fit"):
            SvmClassifier.load(path)


def test_other_weights_are_refused(tmp_path: Path, trained: SvmClassifier) -> None:
    path = tmp_path / "model.safetensors"
    trained.save(path, description="", provenance={})
    header, tensors = load_model(path, SVM_CLASSIFIER)
    changed = type(header)(
        **{name: getattr(header, name) for name in header.__slots__} | {"backbone_digest": "0"}
    )
    save_model(path, changed, tensors)
    with pytest.raises(ModelFormatError, match="other weights"):
        SvmClassifier.load(path)


def test_images_of_another_kind_are_refused(trained: SvmClassifier, tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        trained.scores(np.zeros((4, 4), np.uint16))
    with pytest.raises(ImageError, match="no such image"):
        trained.scores(tmp_path / "none.jpg")


def test_a_predictor_is_the_classifier(tmp_path: Path, trained: SvmClassifier) -> None:
    path = tmp_path / "model.safetensors"
    trained.save(path, description="", provenance={})
    predictor = load_predictor(path)
    assert (predictor.classes, predictor.unit) == (CLASSES, "margin")
    assert np.array_equal(predictor.scores(pixels(2, 5)), trained.scores(pixels(2, 5)))
    with pytest.raises(ConfigError, match="leave out --views"):
        load_predictor(path, views="full")


def test_a_seed_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed"):
        SvmClassifierConfig(seed=-1)
