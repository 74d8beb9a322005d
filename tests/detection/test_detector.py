"""The detector: what it finds does not depend on how it is asked, and its file holds all of it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from sppdet.core.boxes import box_iou
from sppdet.core.errors import ConfigError, ImageError, ModelFormatError
from sppdet.core.model_file import ModelHeader, load_model, save_model
from sppdet.core.settings import load
from sppdet.core.types import Detections, ImageArray
from sppdet.detection.config import TRAINING_TABLES, DetectorConfig
from sppdet.detection.detector import Detector
from sppdet.heads.box_regression import BoxRegressors
from sppdet.heads.svm import LinearSvms
from sppdet.training.compression import ResponsePca
from sppdet.training.config import TRAINING
from tests.helpers.made_detector import (
    CLASSES,
    UNTRAINED,
    make_detector,
    picture,
    region_features,
)

Tensors = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector()


@pytest.fixture(scope="module")
def model(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The detector's file, not to be changed."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    detector.save(path, description="made", provenance={"images": 0})
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three image files."""
    paths = []
    for seed in range(3):
        paths.append(tmp_path / f"{seed}.png")
        Image.fromarray(picture(seed=seed)).save(paths[-1])
    return paths


def _same(a: Detections, b: Detections) -> bool:
    return (
        a.classes == b.classes
        and np.array_equal(a.boxes, b.boxes)
        and np.array_equal(a.scores, b.scores)
        and np.array_equal(a.labels, b.labels)
    )


def test_no_regions_give_no_detections(detector: Detector) -> None:
    maps = detector.extract(picture())
    found = detector.detect_regions(maps, np.zeros((0, 4), np.float32))
    assert len(found) == 0
    assert found.classes == CLASSES


def test_nothing_above_the_threshold_gives_no_detections() -> None:
    found = make_detector("detection.margin_threshold=1000.0").detect(picture())
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


def test_detections_keep_their_promises(detector: Detector) -> None:
    image = picture(seed=7)
    found = detector.detect(image)
    assert len(found) > 5
    assert found.margins.min() > detector.config.detection.margin_threshold
    assert 0 <= found.scores.min() <= found.scores.max() <= 1
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, 2:] <= (image.shape[1], image.shape[0])).all()
    for label in np.unique(found.labels):
        boxes = found.boxes[found.labels == label]
        assert len(boxes) <= detector.config.detection.max_per_class
        overlaps, most = box_iou(boxes, boxes), detector.config.detection.nms_iou
        assert overlaps[~np.eye(len(boxes), dtype=bool)].max(initial=0.0) <= most + 1e-6


def test_a_class_without_an_svm_is_never_found(detector: Detector) -> None:
    labels = np.concatenate([detector.detect(picture(seed=seed)).labels for seed in range(3)])
    assert set(labels.tolist()) == set(range(len(CLASSES))) - {UNTRAINED}


def test_the_features_of_a_region_do_not_depend_on_the_others(detector: Detector) -> None:
    image = picture()
    head, boxes = detector.head, detector.propose(image)
    prepared = head.prepare(detector.extractor(image))
    pooled, every = head.pooler.pool(prepared, boxes), head.regions(prepared, boxes)
    for chosen in ([0], [3, 1], list(range(len(boxes)))[::-1]):
        assert torch.equal(head.pooler.pool(prepared, boxes[chosen]), pooled[chosen])
        some = head.regions(prepared, boxes[chosen])
        # A product of matrices may round otherwise when it has another number of rows.
        for layer, values in some.layers.items():
            np.testing.assert_allclose(values, every.layers[layer][chosen], rtol=1e-4, atol=1e-4)


def test_files_and_arrays_give_the_same(detector: Detector, files: list[Path]) -> None:
    found = detector.detect(files[0])
    assert len(found)
    assert _same(detector.detect(str(files[0])), found)
    assert _same(detector.detect(picture(seed=0)), found)


def test_any_memory_layout_gives_the_same(detector: Detector) -> None:
    image = picture()
    found = detector.detect(image)
    locked = image.copy()
    locked.setflags(write=False)
    wide = np.zeros((90, 240, 3), np.uint8)
    wide[:, ::2] = image
    layouts: list[ImageArray] = [
        locked,
        np.asfortranarray(image),
        image[:, :, ::-1].copy()[:, :, ::-1],
        image[::-1].copy()[::-1],
        wide[:, ::2],
    ]
    for layout in layouts:
        assert _same(detector.detect(layout), found)
    assert np.array_equal(image, picture())


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((0, 10, 3), np.uint8), "shape (0, 10, 3)"),
        (np.zeros((10, 0, 3), np.uint8), "shape (10, 0, 3)"),
        (np.zeros((1, 10, 10, 3), np.uint8), "shape (1, 10, 10, 3)"),
        (np.zeros((10, 10, 3), np.uint16), "type uint16"),
        (np.zeros((10, 10, 3), np.bool_), "type bool"),
        (None, "type NoneType"),
    ],
    ids=str,
)
def test_an_array_that_is_no_image_is_refused(detector: Detector, image: Any, said: str) -> None:
    with pytest.raises(ImageError, match=r"give|divide") as caught:
        detector.detect(cast(ImageArray, image))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "size",
    [(1, 1), (1, 2), (2, 1), (1, 60), (60, 1), (2, 2), (15, 15), (300, 30), (30, 300), (7, 500)],
    ids=str,
)
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "noise"])
def test_images_of_any_shape_are_looked_at(
    detector: Detector, size: tuple[int, int], flat: bool
) -> None:
    width, height = size
    image = np.full((height, width, 3), 77, np.uint8)
    if not flat:
        image = np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    found = detector.detect(image)
    assert np.isfinite(found.scores).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, 2:] <= (width, height)).all()
    boxes = detector.propose(image)
    prepared = detector.head.prepare(detector.extractor(image))
    layers = dict(detector.head.regions(prepared, boxes).layers)
    layers["pool"] = detector.head.pooler.pool(prepared, boxes).numpy()
    assert set(layers) == {"pool", "fc6", "fc7"}
    for layer, values in layers.items():
        assert values.shape == (len(boxes), detector.head.layer_width(layer))
        assert np.isfinite(values).all()


def test_what_is_found_does_not_depend_on_the_order(detector: Detector, files: list[Path]) -> None:
    forward = {path: detector.detect(path) for path in files}
    backward = {path: detector.detect(path) for path in [*files[::-1], files[1]]}
    for path in files:
        assert len(forward[path])
        assert _same(forward[path], backward[path])


def in_floats(detector: Detector) -> Detector:
    return detector.configure(None, ["features.quantize=false"])


def test_a_saved_detector_comes_back(detector: Detector, model: Path) -> None:
    loaded = Detector.load(model)
    assert loaded.classes == detector.classes
    assert loaded.config == detector.config
    assert not loaded.head.training
    image = picture(seed=5)
    boxes = detector.propose(image)
    # The head is stored as float16, the SVMs and regressors as they are. In 8 bits, weights that
    # differ so little may be a step apart.
    saved, found = (
        one.svms.decision_function(region_features(in_floats(one), image, boxes).layers["fc7"])
        for one in (detector, loaded)
    )
    np.testing.assert_allclose(found, saved, atol=5e-3)
    assert np.array_equal(loaded.svms.weights, detector.svms.weights)
    assert loaded.regressors is not None
    assert detector.regressors is not None
    assert np.array_equal(loaded.regressors.weights, detector.regressors.weights)


def test_a_loaded_detector_is_saved_as_the_same_bytes(model: Path, tmp_path: Path) -> None:
    loaded = Detector.load(str(model))
    again = tmp_path / "again.safetensors"
    loaded.save(again, description="made", provenance={"images": 0})
    assert again.read_bytes() == model.read_bytes()
    found = loaded.detect(picture())
    assert len(found)
    assert _same(Detector.load(again).detect(picture()), found)


def test_a_detector_with_a_factorized_fc6_comes_back(detector: Detector, tmp_path: Path) -> None:
    image, detector = picture(), in_floats(detector)
    boxes = detector.propose(image)
    responses = ResponsePca(detector.config.head.fc6)
    prepared = detector.head.prepare(detector.extractor(image))
    responses.add(detector.head.fc6_response(prepared, boxes))
    head = copy.deepcopy(detector.head)
    head.factorize_fc6(*responses.principal(6))
    parts = detector.extractor, head, detector.svms, detector.regressors
    factorized = Detector(detector.classes, detector.config, *parts)
    path = tmp_path / "factorized.safetensors"
    factorized.save(path, description="", provenance={})
    every = (Detector.load(path), factorized, detector)
    loaded, kept, whole = (region_features(one, image, boxes).layers["fc7"] for one in every)
    # Weights are stored as float16.
    np.testing.assert_allclose(loaded, kept, atol=1e-2)
    assert 1e-2 < np.abs(loaded - whole).max() < np.abs(whole).max() / 2


def test_a_detector_without_regressors_comes_back(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    plain = Detector(
        CLASSES, detector.config, detector.extractor, detector.head, detector.svms, None
    )
    plain.save(path, description="", provenance={})
    loaded = Detector.load(path)
    assert loaded.regressors is None
    assert loaded.context is None


def _rewritten(model: Path, path: Path, changes: Tensors, **fields: Any) -> Path:
    """The model with some tensors (an empty name drops one) and header fields changed."""
    header, tensors = load_model(model)
    for name, value in changes.items():
        if value.size:
            tensors[name] = value
        else:
            del tensors[name]
    save_model(path, replace(header, **fields), tensors)
    return path


def _zeros(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    "changes",
    [
        {"svm.weights": _zeros(3, 31)},
        {"svm.weights": _zeros(2, 32), "svm.bias": _zeros(2)},
        {
            "svm.weights": _zeros(2, 32),
            "svm.bias": _zeros(2),
            "svm.trained": np.ones(2, np.bool_),
            "svm.converged": np.ones(2, np.bool_),
        },
        {"svm.bias": _zeros(0)},
        {"svm.other": _zeros(3)},
        {"box.weights": _zeros(3, 10, 4)},
        {"box.weights": _zeros(3, 32)},
        {
            "box.weights": _zeros(1, 10, 4),
            "box.bias": _zeros(1, 4),
            "box.trained": np.ones(1, np.bool_),
        },
        {"box.bias": _zeros(0)},
        {"context.bias": _zeros(0)},
        {"context.weights": _zeros(3, 5)},
        {"head.fc6.weight": _zeros(32, 5)},
        {"head.fc7.bias": _zeros(0)},
        {"head.fc8.bias": _zeros(3)},
        {"head.pooler.mean": _zeros(1)},
        {"head.fc6_in.weight": _zeros(4, 400)},
        {"head.fc6_in.weight": _zeros(4, 399)},
        {"head.fc6_in.weight": np.float32(1)},
    ],
    ids=lambda changes: ", ".join(f"{k} {v.shape}" for k, v in changes.items()),
)
def test_tensors_that_do_not_fit_are_refused(model: Path, tmp_path: Path, changes: Tensors) -> None:
    path = _rewritten(model, tmp_path / "odd.safetensors", changes)
    with pytest.raises(ModelFormatError, match="do not fit its config") as caught:
        Detector.load(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith("; train again")
    assert "\n" not in str(caught.value)


def test_weights_of_another_backbone_are_refused(model: Path, tmp_path: Path) -> None:
    path = _rewritten(model, tmp_path / "other.safetensors", {}, backbone_digest="ab" * 32)
    with pytest.raises(ModelFormatError, match="other weights of efficientnet_lite0"):
        Detector.load(path)


@pytest.mark.parametrize(
    ("part", "values", "problem"),
    [
        ("head", {"kernel": "rbf"}, r"unknown key 'head\.kernel'"),
        ("newstage", {"x": 1}, "unknown key 'newstage'"),
        ("features", {"backbone": "lenet"}, "unknown backbone 'lenet'"),
    ],
)
def test_a_config_of_another_version_is_refused(
    model: Path, tmp_path: Path, part: str, values: dict[str, object], problem: str
) -> None:
    config = load_model(model)[0].config
    odd = {**config, part: {**config.get(part, {}), **values}}
    path = _rewritten(model, tmp_path / "odd.safetensors", {}, config=odd)
    made = load_model(path)[0].provenance.get("sppdet", "another version")
    start = rf"odd\.safetensors: was written by sppdet {made}, whose settings this sppdet"
    end = "; install the sppdet that wrote it, or train again$"
    with pytest.raises(ModelFormatError, match=rf"{start}.*\({problem}\){end}"):
        Detector.load(path)


def test_models_that_are_not_there(tmp_path: Path) -> None:
    for source in (tmp_path / "absent.safetensors", "no such model"):
        with pytest.raises(ModelFormatError, match="no such model"):
            Detector.load(source)


def test_a_truncated_model_is_refused(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(ModelFormatError, match="truncated"):
        Detector.load(path)


def test_the_header_says_what_made_it(detector: Detector, model: Path) -> None:
    header = load_model(model)[0]
    assert isinstance(header, ModelHeader)
    assert header.classes == CLASSES
    assert header.backbone == "efficientnet_lite0"
    assert header.backbone_digest == detector.extractor.backbone.weights_digest()
    assert (header.description, header.provenance) == ("made", {"images": 0})


def test_parts_of_equal_shape_fit(model: Path, tmp_path: Path) -> None:
    dim = load_model(model)[1]["box.weights"].shape[1]
    changes = {"svm.weights": _zeros(3, 32), "box.weights": _zeros(3, dim, 4)}
    loaded = Detector.load(_rewritten(model, tmp_path / "zeros.safetensors", changes))
    assert isinstance(loaded.svms, LinearSvms)
    assert isinstance(loaded.regressors, BoxRegressors)


def test_settings_that_training_did_not_fix_can_be_changed(detector: Detector) -> None:
    image = picture()
    changes = ["features.scales=[64]", "proposals.max_proposals=50", "detection.nms_iou=0.5"]
    other = detector.configure(None, changes)
    boxes = other.propose(image)
    assert len(boxes) == 50
    (small,), (large,) = other.extract(image), detector.extract(image)
    assert small.scales == (64,)
    assert small.maps[0].values.shape[0] < large.maps[0].values.shape[0]
    regions = other.head.regions(other.head.prepare(small), boxes)
    assert regions.layers["fc7"].shape == (50, detector.head.layer_width("fc7"))
    assert _same(other.detect(image), other.detect_regions([small], boxes))
    # The detector that it came from is as it was, and the way back is open.
    assert detector.config.features.scales == detector.requests[0].scales == (96,)
    assert _same(other.with_settings(detector.config).detect(image), detector.detect(image))


def test_maps_can_be_made_in_floats_or_in_eight_bits(detector: Detector) -> None:
    image, config = picture(), detector.config
    assert config.features.quantize
    exact = in_floats(detector)
    backbone = detector.extractor.backbone
    assert exact.extractor.backbone is backbone
    assert not exact.extractor.config.quantize
    assert not exact.head.pooler.is_quantized
    assert exact.extractor.key != detector.extractor.key
    rounded, found = (one.extractor(image).maps[0].values for one in (detector, exact))
    x = backbone.preprocess(image, config.features.scales[0])[0]
    (expected,) = backbone(x, config.features.layers).values()
    np.testing.assert_allclose(found, expected[0].permute(1, 2, 0), rtol=1e-3, atol=1e-3)
    assert 0.01 < (rounded - found).norm() / found.norm() < 0.4
    assert _same(exact.with_settings(config).detect(image), detector.detect(image))


@pytest.mark.parametrize(
    "fixed", ["head.fc6=16", "head.svm_layer=fc6", 'features.layers=["stage4"]', "seed=3"]
)
def test_settings_that_training_fixed_cannot(detector: Detector, fixed: str) -> None:
    with pytest.raises(ConfigError, match=rf"{fixed.split('=')[0]} was fixed"):
        detector.with_settings(load(DetectorConfig, None, [fixed], base=detector.config))


@pytest.mark.parametrize("changed", ["svm.c=1", "finetune.steps=3", "context.c=1", "regression=1"])
def test_settings_of_training_come_too_late(
    detector: Detector, tmp_path: Path, changed: str
) -> None:
    name = changed.split("=")[0]
    file = tmp_path / "mine.toml"
    file.write_text(f"{changed}\n")
    for path, overrides in ((None, [changed]), (file, [])):
        with pytest.raises(ConfigError, match=rf"{name} was fixed .*train a model") as caught:
            detector.configure(path, overrides)
        assert "\n" not in str(caught.value)


def test_the_tables_of_training_are_all_known() -> None:
    assert set(TRAINING_TABLES) == set(TRAINING)


def test_settings_come_from_a_file_and_then_from_overrides(
    detector: Detector, tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[detection]\nnms_iou = 0.4\nvote_iou = 0.7\n")
    rules = detector.configure(file, ["detection.nms_iou=0.2"]).config.detection
    assert (rules.nms_iou, rules.vote_iou) == (0.2, 0.7)
    with pytest.raises(ConfigError, match=r"unknown key 'detection\.nms'"):
        detector.configure(None, ["detection.nms=0.2"])
