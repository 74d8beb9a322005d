"""Several models as one: what it finds is what they find, over the same regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.boxes import box_iou
from sppdet.core.errors import ConfigError, ModelFormatError
from sppdet.core.images import read_image
from sppdet.core.progress import NullProgress
from sppdet.core.types import Detections, FloatArray
from sppdet.datasets import load_dataset, make_synthetic_voc
from sppdet.detection import model_zoo
from sppdet.detection.dataset_inference import detect_dataset
from sppdet.detection.detector import Detector
from sppdet.detection.ensemble import Ensemble, load_detector
from sppdet.detection.postprocess import postprocess
from sppdet.detection.scoring import predict
from tests.helpers.made_detector import CLASSES, make_detector, picture

ONCE = ("detection.vote_iou=0", "detection.refine_top=0")
ALL = (*ONCE, "detection.soft_nms_sigma=0", "detection.nms_iou=1.0")
# Every region that passes the threshold is kept.
KEEP = (*ALL, "detection.max_per_class=100000", "detection.max_candidates=100000")
# What a backbone without a pretrained 1x1 head needs.
PLAIN = (
    "features.pretrained=false",
    "features.layers=['conv5']",
    "head.train_top_stages=false",
    "head.context_scales=[]",
)
GREEDY = (*ONCE, "detection.soft_nms_sigma=0", "detection.nms_iou=0.4")
FUSIONS = ("union", "mean")


# Two that average: of one backbone, at different scales.
MEMBERS = (
    make_detector("detection.max_candidates=100000"),
    make_detector("detection.max_candidates=100000", "features.scales=[128]", seed=1),
)


def rows(found: Detections) -> set[tuple[float, ...]]:
    """Every detection as numbers."""
    table = np.concatenate([found.boxes, found.scores[:, None], found.labels[:, None]], axis=1)
    return {tuple(row) for row in table.tolist()}


def as_boxes(found: list[tuple[float, ...]]) -> FloatArray:
    """The boxes `(N, 4)` of such rows."""
    return np.array([row[:4] for row in found], np.float32).reshape(-1, 4)


def test_a_union_finds_what_its_members_find() -> None:
    one, other = make_detector(*KEEP), make_detector(*KEEP, seed=1)
    image = picture(seed=3)
    apart = rows(one.detect(image)), rows(other.detect(image))
    assert apart[0]
    assert apart[1]
    assert not apart[0] & apart[1]
    for both in (Ensemble([one, other], "union"), Ensemble([other, one], "union")):
        assert rows(both.detect(image)) == apart[0] | apart[1]


def test_all_members_boxes_go_into_nms_together() -> None:
    image = picture(seed=4)
    every: set[tuple[float, ...]] = set()
    for seed in range(2):
        every |= rows(make_detector(*KEEP, seed=seed).detect(image))
    one, other = make_detector(*GREEDY), make_detector(*GREEDY, seed=1)
    both = rows(Ensemble([one, other], "union").detect(image))
    assert both <= every
    for row in every:
        # Regions of the same cells have the same score: either may be the one that is kept.
        rivals = [one for one in both - {row} if one[5] == row[5] and one[4] >= row[4]]
        overlap = box_iou(as_boxes([row]), as_boxes(rivals)).max(initial=0.0)
        assert (overlap <= 0.4) == (row in both)
    assert both & rows(one.detect(image))
    assert both & rows(other.detect(image))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_model_twice_finds_what_it_finds_once(fusion: str) -> None:
    one = make_detector(*GREEDY)
    for seed in range(3):
        image = picture(seed=seed)
        for members in ([one], [one, one]):
            assert rows(Ensemble(members, fusion).detect(image)) == rows(one.detect(image))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 99), flip=st.booleans())
def test_members_scores_and_boxes_are_averaged(seed: int, flip: bool) -> None:
    image = picture(seed=seed)
    changes = ["detection.margin_threshold=-1e9", "detection.refine_top=0"]
    changes.append(f"detection.box_regression={'mean' if seed % 2 else 'none'}")
    if flip:
        changes.append("detection.flipped_scale_factors=[1]")
    ensemble = Ensemble(MEMBERS).configure(None, changes)
    maps, boxes = ensemble.extract(image), ensemble.propose(image)
    rules, views = ensemble.config.detection, ensemble.views(maps)
    apart = [predict(of_one, boxes, rules) for of_one in views]
    both = predict([view for of_one in views for view in of_one], boxes, rules)
    # The same regions may be of the same classes, in the same order.
    assert len(both.labels) > len(CLASSES)
    assert np.array_equal(both.labels, apart[0].labels)
    assert np.array_equal(both.labels, apart[1].labels)
    np.testing.assert_allclose(both.scores, (apart[0].scores + apart[1].scores) / 2, atol=1e-4)
    side = (image.shape[1], image.shape[0]) * 2
    inside = np.ones(len(both.labels), bool)  # clipped boxes are clipped after the mean
    for found in apart:
        inside &= ((found.boxes > 0.01) & (found.boxes < np.array(side) - 0.01)).all(axis=1)
    mean = (apart[0].boxes + apart[1].boxes) / 2
    np.testing.assert_allclose(both.boxes[inside], mean[inside], atol=1e-3)
    detected = ensemble.detect_regions(maps, boxes)
    assert rows(detected) == rows(postprocess(both, CLASSES, rules, ensemble.calibration))


def test_the_order_of_members_does_not_matter_to_means() -> None:
    one, other = MEMBERS
    image = picture(seed=7)
    found, turned = Ensemble([one, other]).detect(image), Ensemble([other, one]).detect(image)
    assert len(found) > 0
    assert np.array_equal(found.labels, turned.labels)
    np.testing.assert_allclose(found.scores, turned.scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, turned.boxes, atol=1e-2)
    apart = rows(one.detect(image)) | rows(other.detect(image))
    assert not rows(found) & apart


def test_settings_hold_for_all_members() -> None:
    one, other = make_detector(*KEEP), make_detector(*KEEP, seed=1)
    both = Ensemble([one, other], "union")
    changes = ["detection.margin_threshold=-0.5", "features.scales=[128]"]
    changed, image = both.configure(None, changes), picture(seed=5)
    assert changed.fusion == "union"
    expected = [rows(member.configure(None, changes).detect(image)) for member in (one, other)]
    assert rows(changed.detect(image)) == expected[0] | expected[1]
    assert rows(changed.detect(image)) != rows(both.detect(image))
    with pytest.raises(ConfigError, match=r"svm\.c was fixed"):
        both.configure(None, ["svm.c=1"])


def test_members_see_with_their_own_networks() -> None:
    one, same = make_detector(*KEEP), make_detector(*KEEP, seed=1)
    large = make_detector(*KEEP, "features.scales=[160]", seed=2)
    flat = make_detector(*KEEP, "features.backbone=alexnet", *PLAIN, seed=3)
    image = picture(seed=6)
    every = Ensemble([one, same, large, flat, large], "union")
    # Maps that several read are computed once.
    assert sorted(maps.maps[0].values.shape for maps in every.extract(image)) == sorted(
        member.extractor(image).maps[0].values.shape for member in (one, large, flat)
    )
    apart = [rows(member.detect(image)) for member in (one, same, large, flat)]
    assert all(apart)
    assert rows(every.detect(image)) == set().union(*apart)


@pytest.mark.parametrize(("flip", "factor"), [(True, 1.25), (False, 0.8)])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_members_keep_their_own_augmentations(flip: bool, factor: float, fusion: str) -> None:
    plain, flipped = ([], [factor]) if flip else ([factor], [])
    own = (f"detection.scale_factors={plain}", f"detection.flipped_scale_factors={flipped}")
    first, other = make_detector(*KEEP), make_detector(*KEEP, *own, seed=1)
    both, image = Ensemble([first, other], fusion), picture(seed=6)
    (scale,) = other.config.features.scales
    asked = [(request.scales, request.flip) for request in both.requests]
    assert asked == [((scale,), False), ((round(factor * scale),), flip)]
    if fusion == "union":
        expected = rows(first.detect(image)) | rows(other.detect(image))
    else:
        views = [view for one in (first, other) for view in one.views(one.extract(image))]
        rules = first.config.detection
        found = predict(views, first.propose(image), rules)
        expected = rows(postprocess(found, CLASSES, rules, both.calibration))
    assert rows(both.detect(image)) == expected


def test_a_cache_keeps_the_maps_of_every_member(tmp_path: Path) -> None:
    root = make_synthetic_voc(tmp_path, train=2, val=0, test=0, width=120, height=90, seed=3)
    dataset, cache = load_dataset(root, "train"), tmp_path / "cache"
    flipped = "detection.flipped_scale_factors=[1]"
    both = Ensemble(
        [make_detector(flipped), make_detector("features.scales=[160]", flipped, seed=1)]
    )
    for _ in range(2):
        found = detect_dataset(both, dataset, cache, NullProgress())
        assert len(list((cache / "maps").iterdir())) == 2 * len(dataset.samples) * 2
        for sample in dataset:
            image = read_image(sample.path)
            halves = [maps.to(torch.float16) for maps in both.extract(image)]
            expected = both.detect_regions(halves, both.propose(image))
            assert np.array_equal(found[sample.image_id].scores, expected.scores)


def test_members_must_fit_together() -> None:
    one = make_detector()
    other = Detector(("a", "b", "c"), one.config, one.extractor, one.head, one.svms, one.regressors)
    with pytest.raises(ConfigError, match="different classes"):
        Ensemble([one, other])
    assert one.classes == CLASSES
    with pytest.raises(ConfigError, match="0 models"):
        Ensemble([])
    with pytest.raises(ConfigError, match=r"'median'.*mean, union"):
        Ensemble([one], "median")


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder with two shipped models, and a folder of presets in it."""
    monkeypatch.setattr(model_zoo, "SHIPPED", tmp_path)
    monkeypatch.setattr(model_zoo, "PRESETS", tmp_path / "presets")
    (tmp_path / "presets").mkdir()
    for seed, name in enumerate(("first", "second")):
        made, told = make_detector(*KEEP, seed=seed), {"dataset": f"{name} set"}
        made.save(tmp_path / f"{name}.safetensors", description="", provenance=dict(told))
    return tmp_path


def test_names_with_a_plus_are_an_ensemble(shelf: Path) -> None:
    plus = shelf / "b+c.safetensors"
    plus.write_bytes((shelf / "second.safetensors").read_bytes())
    # A file's own name may hold a plus.
    assert isinstance(load_detector(plus), Detector)
    both = load_detector(f"{shelf / 'first.safetensors'}+second")
    assert isinstance(both, Ensemble)
    assert both.fusion == "mean"
    image = picture()
    expected = Ensemble([Detector.load("first"), Detector.load(plus)])
    assert rows(both.detect(image)) == rows(expected.detect(image))
    with pytest.raises(ModelFormatError, match="gone: no such model"):
        load_detector("first+gone")


def test_a_preset_may_be_of_several_models(shelf: Path) -> None:
    (shelf / "presets" / "both.toml").write_text(
        """fusion = "union"
        [[members]]
        model = "first"
        [[members]]
        model = "second"
        detection.scale_factors = [0.8]
        [detection]
        margin_threshold = -0.5
        """
    )
    both, image = load_detector("both"), picture()
    assert isinstance(both, Ensemble)
    assert both.fusion == "union"
    assert [one.config.detection.margin_threshold for one in both.members] == [-0.5, -0.5]
    assert [one.config.detection.scale_factors for one in both.members] == [(1.0,), (0.8,)]
    changes = ["detection.margin_threshold=-0.5"]
    first = Detector.load("first").configure(None, changes)
    second = Detector.load("second").configure(None, [*changes, "detection.scale_factors=[0.8]"])
    assert rows(both.detect(image)) == rows(first.detect(image)) | rows(second.detect(image))
    assert model_zoo.training_datasets("both") == ["first set", "second set"]
    assert model_zoo.training_datasets("both+first") == ["first set", "second set"]
    with pytest.raises(ModelFormatError, match="several models"):
        Detector.load("both")


def test_one_model_is_a_detector(shelf: Path) -> None:
    (shelf / "presets" / "few.toml").write_text(
        """[[members]]
        model = "first"
        [proposals]
        max_proposals = 7
        """
    )
    plain, few = load_detector("first"), load_detector("few")
    assert isinstance(plain, Detector)
    assert isinstance(few, Detector)
    assert few.config.proposals.max_proposals == 7
    assert few.config == plain.configure(None, ["proposals.max_proposals=7"]).config
    image = picture()
    assert rows(load_detector(shelf / "first.safetensors").detect(image)) == rows(
        plain.detect(image)
    )
    # An ensemble of one is that one.
    assert rows(Ensemble.load("few").detect(image)) == rows(few.detect(image))


def test_every_preset_is_shipped_models_under_other_settings() -> None:
    presets = model_zoo.list_presets()
    assert [preset.name for preset in presets] == ["accurate", "balanced", "fast"]
    for preset in presets:
        found, base = load_detector(preset.name), Detector.load(preset.models[0])
        assert isinstance(found, Ensemble) == (len(preset.models) > 1)
        members = found.members if isinstance(found, Ensemble) else (found,)
        assert len(members) == len(preset.models)
        assert any(
            member.config != Detector.load(name).config
            for member, name in zip(members, preset.models, strict=True)
        )
        assert found.detect(picture()).classes == base.classes
    assert model_zoo.find_preset("default") is None
