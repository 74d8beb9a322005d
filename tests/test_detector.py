"""The detector: what it finds does not depend on how it is asked, and its file holds all of it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sppdet.boxes import iou_matrix
from sppdet.compression import Responses
from sppdet.config import load_config
from sppdet.detector import Detector
from sppdet.errors import ConfigError, ImageError, ModelFormatError, SppdetError
from sppdet.modelfile import ModelHeader, load_model, save_model
from sppdet.modelnames import find_preset, list_presets
from sppdet.region_features import RegionFeatures
from sppdet.regression import BoxRegressors
from sppdet.svm import LinearSvms
from sppdet.types import Detections, ImageArray
from tests.made_detector import CLASSES, UNTRAINED, make_detector, picture

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
    maps = detector.extractor(picture())
    found = detector.detect_regions([maps], np.zeros((0, 4), np.float32))
    assert len(found) == 0
    assert found.classes == CLASSES


def test_nothing_above_the_threshold_gives_no_detections() -> None:
    found = make_detector("detection.score_threshold=1000.0").detect(picture())
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


def test_detections_keep_their_promises(detector: Detector) -> None:
    image = picture(seed=7)
    found = detector.detect(image)
    assert len(found) > 5
    assert found.scores.min() > detector.config.detection.score_threshold
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, 2:] <= (image.shape[1], image.shape[0])).all()
    for label in np.unique(found.labels):
        boxes = found.boxes[found.labels == label]
        assert len(boxes) <= detector.config.detection.max_per_class
        overlaps, most = iou_matrix(boxes, boxes), detector.config.detection.nms_iou
        assert overlaps[~np.eye(len(boxes), dtype=bool)].max(initial=0.0) <= most + 1e-6


def test_a_class_without_an_svm_is_never_found(detector: Detector) -> None:
    labels = np.concatenate([detector.detect(picture(seed=seed)).labels for seed in range(3)])
    assert set(labels.tolist()) == set(range(len(CLASSES))) - {UNTRAINED}


def test_the_regressors_can_be_left_out(detector: Detector) -> None:
    image = picture()
    maps, boxes = detector.extractor(image), detector.propose(image)
    features = RegionFeatures(detector.head, maps, boxes)
    rules = replace(detector.config.detection, vote_iou=0.0)
    plain = detector.detect_features(features, rules=replace(rules, box_regression=False))
    proposed = {tuple(box) for box in boxes.tolist()}
    assert {tuple(box) for box in plain.boxes.tolist()} <= proposed
    found = {}
    for which in ("both", "ridge", "learned"):
        found[which] = detector.detect_features(features, rules=replace(rules, regressors=which))
        assert not {tuple(box) for box in found[which].boxes.tolist()} <= proposed
    assert not _same(found["both"], found["ridge"])
    assert not _same(found["both"], found["learned"])
    parts = (detector.extractor, detector.head, detector.svms, None, detector.scene)
    detector = Detector(CLASSES, detector.config, *parts)
    assert _same(detector.detect_features(features, rules=rules), found["learned"])
    ridge = replace(rules, regressors="ridge")
    assert _same(detector.detect_features(features, rules=ridge), plain)


def test_the_softmax_takes_part_as_weighted(detector: Detector) -> None:
    image = picture()
    features = RegionFeatures(detector.head, detector.extractor(image), detector.propose(image))
    assert (features.log_probabilities <= 0).all()
    rules = replace(detector.config.detection, score_threshold=-1e9, max_per_class=10**6)
    rules = replace(rules, max_candidates=10**6, nms_iou=1.0, vote_iou=0.0)
    rules = replace(rules, soft_nms=0.0, box_regression=False)
    rules = replace(rules, scene_weight=0.0, second_look=0)
    margins = detector.svms.scores(features.fc7)
    for weight in (0.0, 0.5, 2.0):
        found = detector.detect_features(features, rules=replace(rules, softmax_weight=weight))
        expected = margins + np.float32(weight) * features.log_probabilities
        expected = np.sort(expected[np.isfinite(expected)])[::-1]
        np.testing.assert_allclose(found.scores, expected, rtol=1e-5)


def test_the_features_of_a_region_do_not_depend_on_the_others(detector: Detector) -> None:
    image = picture()
    maps, boxes = detector.extractor(image), detector.propose(image)
    every = RegionFeatures(detector.head, maps, boxes)
    for chosen in ([0], [3, 1], list(range(len(boxes)))[::-1]):
        some = RegionFeatures(detector.head, maps, boxes[chosen])
        assert np.array_equal(some.pool, every.pool[chosen])
        # A product of matrices may round otherwise when it has another number of rows.
        np.testing.assert_allclose(some.fc7, every.fc7[chosen], rtol=1e-4, atol=1e-4)


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
        (np.zeros((10, 10), np.uint8), "shape (10, 10)"),
        (np.zeros((10, 10, 4), np.uint8), "shape (10, 10, 4)"),
        (np.zeros((3, 10, 10), np.uint8), "shape (3, 10, 10)"),
        (np.zeros((1, 10, 10, 3), np.uint8), "shape (1, 10, 10, 3)"),
        (np.zeros((10, 10, 3), np.float32), "type float32"),
        (np.zeros((10, 10, 3), np.uint16), "type uint16"),
        (np.zeros((10, 10, 3), np.bool_), "type bool"),
        (None, "type NoneType"),
        ([[[0, 0, 0]]], "type list"),
    ],
    ids=str,
)
def test_an_array_that_is_no_image_is_refused(detector: Detector, image: Any, said: str) -> None:
    with pytest.raises(ImageError, match=r"uint8 \(H, W, 3\)") as caught:
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
    features = RegionFeatures(detector.head, detector.extractor(image), boxes)
    for layer in ("pool", "fc6", "fc7"):
        values = features.layer(layer)
        assert values.shape == (len(boxes), detector.head.layer_width(layer))
        assert np.isfinite(values).all()


def test_no_files_give_nothing(detector: Detector) -> None:
    assert list(detector.detect_many([])) == []


def test_a_broken_file_does_not_stop_the_others(
    detector: Detector, files: list[Path], tmp_path: Path
) -> None:
    cut, empty = tmp_path / "cut.png", tmp_path / "empty.png"
    cut.write_bytes(files[0].read_bytes()[:300])
    empty.touch()
    paths = [cut, files[0], tmp_path / "absent.png", files[1], empty, tmp_path]
    found = list(detector.detect_many(paths))
    assert [path for path, _ in found] == paths
    for path, outcome in found:
        if path in files:
            assert isinstance(outcome, Detections)
        else:
            assert isinstance(outcome, ImageError)
            assert str(path) in str(outcome)


def test_what_is_found_does_not_depend_on_the_order(detector: Detector, files: list[Path]) -> None:
    forward = dict(detector.detect_many(files))
    backward = dict(detector.detect_many([*files[::-1], files[1]]))
    for path in files:
        one, other = forward[path], backward[path]
        assert isinstance(one, Detections)
        assert isinstance(other, Detections)
        assert len(one)
        assert _same(one, other)


def in_floats(detector: Detector) -> Detector:
    changed = load_config(None, ["features.eight_bits=false"], base=detector.config)
    return detector.with_settings(changed)


def test_a_saved_detector_comes_back(detector: Detector, model: Path) -> None:
    loaded = Detector.load(model)
    assert loaded.classes == detector.classes
    assert loaded.config == detector.config
    assert not loaded.head.training
    image = picture(seed=5)
    maps, boxes = detector.extractor(image), detector.propose(image)
    # The head is stored as float16, the SVMs and regressors as they are. In 8 bits, weights that
    # differ so little may be a step apart.
    saved, found = (
        one.svms.scores(RegionFeatures(in_floats(one).head, maps, boxes).fc7)
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


def test_the_whole_image_takes_part_as_weighted(detector: Detector) -> None:
    maps = detector.extractor(picture())
    features = RegionFeatures(detector.head, maps, detector.propose(picture()))
    cells = [detector.head.joined(one.map).semantic for one in maps.scaled]
    means = [one.flatten(0, 1).mean(dim=0).numpy() for one in cells if one is not None]
    assert features.scene is not None
    np.testing.assert_allclose(features.scene, np.mean(means, axis=0), rtol=1e-5, atol=1e-6)
    assert detector.scene is not None
    logits = detector.scene.weights @ features.scene + detector.scene.bias
    rules = replace(detector.config.detection, scene_weight=0.0)
    without = detector.judge.scores(features, rules)
    for weight in (0.2, 3.0):
        found = detector.judge.scores(features, replace(rules, scene_weight=weight))
        added = np.where(detector.scene.trained, weight * np.log(1 / (1 + np.exp(-logits))), 0)
        assert (added[detector.scene.trained] < 0).all()
        np.testing.assert_allclose(found, without + added, rtol=1e-4, atol=1e-5)
    # A model that has no scene classifier asks for none.
    parts = (detector.extractor, detector.head, detector.svms, detector.regressors)
    old = Detector(detector.classes, detector.config, *parts)
    rules = replace(rules, scene_weight=3.0)
    np.testing.assert_array_equal(old.judge.scores(features, rules), without)


def test_a_detector_with_a_squeezed_fc6_comes_back(detector: Detector, tmp_path: Path) -> None:
    image, detector = picture(), in_floats(detector)
    boxes = detector.propose(image)
    maps = detector.extractor(image)
    responses = Responses(detector.config.head.fc6)
    responses.add(detector.head.fc6_response(maps, boxes))
    head = copy.deepcopy(detector.head)
    head.squeeze_fc6(6, responses)
    parts = detector.extractor, head, detector.svms, detector.regressors
    squeezed = Detector(detector.classes, detector.config, *parts)
    path = tmp_path / "squeezed.safetensors"
    squeezed.save(path, description="", provenance={})
    loaded = RegionFeatures(Detector.load(path).head, maps, boxes).fc7
    # Weights are stored as float16.
    np.testing.assert_allclose(loaded, RegionFeatures(head, maps, boxes).fc7, atol=1e-2)
    whole = RegionFeatures(detector.head, maps, boxes).fc7
    assert 1e-2 < np.abs(loaded - whole).max() < np.abs(whole).max() / 2


def test_a_detector_without_regressors_comes_back(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    plain = Detector(
        CLASSES, detector.config, detector.extractor, detector.head, detector.svms, None
    )
    plain.save(path, description="", provenance={})
    loaded = Detector.load(path)
    assert loaded.regressors is None
    assert loaded.scene is None


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
        {"scene.bias": _zeros(0)},
        {"scene.weights": _zeros(3, 5)},
        {"head.fc6.weight": _zeros(32, 5)},
        {"head.fc7.bias": _zeros(0)},
        {"head.fc8.bias": _zeros(3)},
        {"head.mean": _zeros(1)},
        {"head.squeeze.weight": _zeros(4, 400)},
        {"head.squeeze.weight": _zeros(4, 399)},
        {"head.squeeze.weight": np.float32(1)},
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


def test_a_config_of_another_version_is_refused(model: Path, tmp_path: Path) -> None:
    config = load_model(model)[0].config
    odd = {**config, "svm": {**config["svm"], "kernel": "rbf"}}
    path = _rewritten(model, tmp_path / "odd.safetensors", {}, config=odd)
    with pytest.raises(ConfigError, match=r"odd\.safetensors: unknown key 'svm\.kernel'"):
        Detector.load(path)


def test_an_unknown_network_is_refused(model: Path, tmp_path: Path) -> None:
    config = load_model(model)[0].config
    odd = {**config, "features": {**config["features"], "backbone": "lenet"}}
    path = _rewritten(model, tmp_path / "odd.safetensors", {}, config=odd)
    with pytest.raises(SppdetError, match="unknown backbone 'lenet'"):
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
    changed = load_config(
        None,
        ["features.scales=[64]", "proposals.max_proposals=50", "detection.nms_iou=0.5"],
        base=detector.config,
    )
    other = detector.with_settings(changed)
    assert len(other.propose(image)) == 50
    small, large = other.extractor(image), detector.extractor(image)
    assert small.scaled[0].map.shape[0] < large.scaled[0].map.shape[0]
    regions = RegionFeatures(other.head, small, other.propose(image))
    assert regions.fc7.shape == (50, detector.head.layer_width("fc7"))
    assert _same(other.detect(image), other.detect_features(regions))
    # The detector that it came from is as it was, and the way back is open.
    assert detector.config.features.scales == detector.head.features.scales == (96,)
    assert _same(other.with_settings(detector.config).detect(image), detector.detect(image))


def test_maps_can_be_made_in_floats_or_in_eight_bits(detector: Detector) -> None:
    image, config = picture(), detector.config
    assert config.features.eight_bits
    exact = in_floats(detector.combined(detector))
    backbone = detector.extractor.backbone
    assert all(one.backbone is backbone for one in exact.extractors)
    assert [one.config.eight_bits for one in exact.extractors] == [False]
    assert exact.extractor.digest() != detector.extractor.digest()
    rounded, found = (one.extractor(image).scaled[0].map for one in (detector, exact))
    x = backbone.preprocess(image, config.features.scales[0])[0]
    (expected,) = backbone(x, config.features.taps).values()
    np.testing.assert_allclose(found, expected[0].permute(1, 2, 0), rtol=1e-3, atol=1e-3)
    assert 0.01 < (rounded - found).norm() / found.norm() < 0.4
    assert _same(exact.with_settings(config).partners[0].detect(image), detector.detect(image))


@pytest.mark.parametrize("fixed", ["head.fc6=16", "svm.c=1", 'features.taps=["stage4"]'])
def test_settings_that_training_fixed_cannot(detector: Detector, fixed: str) -> None:
    with pytest.raises(ConfigError, match=rf"{fixed.split('=')[0]} was fixed"):
        detector.with_settings(load_config(None, [fixed], base=detector.config))


def test_every_preset_is_a_shipped_model_under_other_settings() -> None:
    presets = list_presets()
    assert [preset.name for preset in presets] == ["accurate", "balanced", "fast"]
    for preset in presets:
        found, base = Detector.load(preset.name), Detector.load(preset.base)
        assert found.config != base.config
        assert found.config == load_config(preset.path, base=base.config)
        assert found.detect(picture()).classes == base.classes
    assert find_preset("default") is None
