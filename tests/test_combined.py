"""Several models as one: what it finds is what they find, over the same regions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet import modelnames
from sppdet.batch import detect_dataset
from sppdet.boxes import flip_horizontal, iou_matrix
from sppdet.config import load_config
from sppdet.datasets import load_voc, make_synthetic_voc
from sppdet.detection import select
from sppdet.detector import Detector
from sppdet.errors import ConfigError
from sppdet.images import mirrored, read_image
from sppdet.judging import RegionView, judged
from sppdet.progress import NullProgress
from sppdet.rcnn import RcnnDetector
from sppdet.region_features import RegionFeatures
from sppdet.types import Detections, FloatArray
from tests.made_detector import CLASSES, make_detector, picture

# Every region that passes the threshold is kept.
UNION = "detection.combination=union"
ONCE = (UNION, "detection.vote_iou=0", "detection.second_look=0")
ALL = (*ONCE, "detection.soft_nms=0", "detection.nms_iou=1.0")
KEEP = (*ALL, "detection.max_per_class=100000", "detection.max_candidates=100000")
# What a backbone without a pretrained 1x1 head needs.
PLAIN = (
    "features.pretrained=false",
    "features.taps=['conv5']",
    "head.upper=false",
    "head.semantic_levels=[]",
    "head.context=[]",
)
GREEDY = (*ONCE, "detection.soft_nms=0", "detection.nms_iou=0.4")


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


def test_a_combination_finds_what_its_members_find() -> None:
    one, other = make_detector(*KEEP), make_detector(*KEEP, seed=1)
    image = picture(seed=3)
    apart = rows(one.detect(image)), rows(other.detect(image))
    assert apart[0]
    assert apart[1]
    assert not apart[0] & apart[1]
    for both in (one.combined(other), other.combined(one)):
        assert rows(both.detect(image)) == apart[0] | apart[1]


def test_nms_judges_all_members_boxes_together() -> None:
    image = picture(seed=4)
    every: set[tuple[float, ...]] = set()
    for seed in range(2):
        every |= rows(make_detector(*KEEP, seed=seed).detect(image))
    one, other = make_detector(*GREEDY), make_detector(*GREEDY, seed=1)
    both = rows(one.combined(other).detect(image))
    assert both <= every
    for row in every:
        # Regions of the same cells have the same score: either may be the one that is kept.
        rivals = [one for one in both - {row} if one[5] == row[5] and one[4] >= row[4]]
        overlap = iou_matrix(as_boxes([row]), as_boxes(rivals)).max(initial=0.0)
        assert (overlap <= 0.4) == (row in both)
    assert both & rows(one.detect(image))
    assert both & rows(other.detect(image))


@pytest.mark.parametrize("combination", ["union", "mean"])
def test_a_model_twice_finds_what_it_finds_once(combination: str) -> None:
    one = make_detector(*GREEDY, f"detection.combination={combination}")
    for seed in range(3):
        image = picture(seed=seed)
        assert rows(one.combined(one).detect(image)) == rows(one.detect(image))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 99), mirror=st.booleans())
def test_members_scores_and_boxes_are_averaged(seed: int, mirror: bool) -> None:
    image = picture(seed=seed)
    every = load_config(None, ["detection.score_threshold=-1e9"], base=MEMBERS[0].config)
    views = []
    for member in MEMBERS:
        maps, boxes = member.extractor(image), MEMBERS[0].propose(image)
        views.append([RegionView(member.judge, RegionFeatures(member.head, maps, boxes))])
        if mirror:
            turned, flipped = member.extractor(mirrored(image)), flip_horizontal(boxes, maps.width)
            features = RegionFeatures(member.head, turned, flipped)
            views[-1].append(RegionView(member.judge, features, mirrored=True))
    rules = replace(every.detection, combination="mean", box_regression=bool(seed % 2))
    rules = replace(rules, second_look=0)
    apart = [judged(rules, [of_one])[0] for of_one in views]
    (both,) = judged(rules, views)
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


def test_the_order_of_members_does_not_matter_to_means() -> None:
    one, other = MEMBERS
    image = picture(seed=7)
    found, turned = one.combined(other).detect(image), other.combined(one).detect(image)
    assert len(found) > 0
    assert np.array_equal(found.labels, turned.labels)
    np.testing.assert_allclose(found.scores, turned.scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, turned.boxes, atol=1e-2)
    apart = rows(one.detect(image)) | rows(other.detect(image))
    assert not rows(found) & apart


def test_a_combination_of_combinations_holds_all() -> None:
    one, other, third = (make_detector(*KEEP, seed=seed) for seed in range(3))
    image = picture()
    every = rows(one.combined(other, third).detect(image))
    assert rows(one.combined(other.combined(third)).detect(image)) == every
    assert rows(one.combined(other).combined(third).detect(image)) == every


def test_settings_hold_for_all_members() -> None:
    one, other = make_detector(*KEEP), make_detector(*KEEP, seed=1)
    both = one.combined(other)
    config = load_config(
        None, ["detection.score_threshold=-0.5", "features.scales=[128]"], base=both.config
    )
    changed = both.with_settings(config)
    image = picture(seed=5)
    expected = rows(one.with_settings(config).detect(image))
    settings = replace(other.config, detection=config.detection, features=config.features)
    expected |= rows(other.with_settings(settings).detect(image))
    assert rows(changed.detect(image)) == expected
    assert rows(changed.detect(image)) != rows(both.detect(image))


def test_names_with_a_plus_are_combined(tmp_path: Path) -> None:
    paths = [tmp_path / "a.safetensors", tmp_path / "b+c.safetensors"]
    for seed, path in enumerate(paths):
        make_detector(*KEEP, seed=seed).save(path, description="", provenance={})
    second = tmp_path / "second.safetensors"
    second.write_bytes(paths[1].read_bytes())
    # A file's own name may hold a plus.
    assert not Detector.load(paths[1]).partners
    both = Detector.load(f"{paths[0]}+{second}")
    image = picture()
    expected = Detector.load(paths[0]).combined(Detector.load(second))
    assert rows(both.detect(image)) == rows(expected.detect(image))


def test_a_preset_may_be_of_several_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelnames, "SHIPPED", tmp_path)
    for seed, name in enumerate(("first", "second")):
        made = make_detector(*KEEP, seed=seed)
        made.save(
            tmp_path / f"{name}.safetensors", description="", provenance={"dataset": f"{name} set"}
        )
    (tmp_path / "both.first+second.toml").write_text("[detection]\nscore_threshold = -0.5\n")
    both = Detector.load("both")
    assert both.config.detection.score_threshold == -0.5
    image = picture()
    members = Detector.load("first").combined(Detector.load("second"))
    assert rows(both.detect(image)) == rows(members.with_settings(both.config).detect(image))
    assert modelnames.training_sets("both") == ["first set", "second set"]
    assert modelnames.training_sets("both+first") == ["first set", "second set", "first set"]


def test_members_see_with_their_own_networks() -> None:
    one, same = make_detector(*KEEP), make_detector(*KEEP, seed=1)
    large = make_detector(*KEEP, "features.scales=[160]", seed=2)
    flat = make_detector(*KEEP, "features.backbone=alexnet", *PLAIN, seed=3)
    image = picture(seed=6)
    every = one.combined(same, large, flat, large)
    assert [maps.scaled[0].map.shape for maps in every.look(image)] == [
        member.extractor(image).scaled[0].map.shape for member in (one, large, flat)
    ]
    apart = [rows(member.detect(image)) for member in (one, same, large, flat)]
    assert all(apart)
    assert rows(every.detect(image)) == set().union(*apart)


def test_scales_are_changed_for_those_that_read_the_same_maps() -> None:
    one, same = make_detector(*KEEP), make_detector(*KEEP, seed=1)
    large = make_detector(*KEEP, "features.scales=[160]", seed=2)
    both = one.combined(same, large)
    changed = both.with_settings(load_config(None, ["features.scales=[128]"], base=both.config))
    assert [member.config.features.scales for member in changed.partners] == [(128,), (160,)]
    assert len(changed.extractors) == 2
    assert len(changed.look(picture())) == 2


@pytest.mark.parametrize(("way", "zoom"), [("mirror_zooms", 1.25), ("zooms", 0.8)])
@pytest.mark.parametrize("combination", ["union", "mean"])
def test_partners_may_look_in_a_way_of_their_own(way: str, zoom: float, combination: str) -> None:
    """Both models read the same maps where they look alike, and here they do not."""
    rules = (*KEEP, f"detection.combination={combination}", f"detection.partner_{way}=[{zoom}]")
    first, other = make_detector(*rules), make_detector(*rules, seed=1)
    both, image, turned = first.combined(other), picture(seed=6), way == "mirror_zooms"
    (_, seen) = both.views
    assert seen.mirrored == turned
    assert seen.extractor.config.scales == (round(zoom * other.config.features.scales[0]),)
    boxes, shown = first.propose(image), mirrored(image) if turned else image
    maps = other.extractor.zoomed(zoom)(shown)
    theirs = flip_horizontal(boxes, maps.width) if turned else boxes
    features = RegionFeatures(other.head, maps, theirs)
    if combination == "mean":
        own = RegionView(first.judge, RegionFeatures(first.head, first.extractor(image), boxes))
        views = [own, RegionView(other.judge, features, turned)]
        expected = rows(
            select(judged(first.config.detection, [views]), CLASSES, both.config.detection)
        )
        assert rows(both.detect(image)) == expected
        return
    alone = other.detect_features(features)
    back = flip_horizontal(alone.boxes, maps.width) if turned else alone.boxes
    wanted = rows(first.detect(image)) | rows(replace(alone, boxes=back))
    found = both.detect(image)
    assert len(found) == len(wanted) > len(alone) > 0
    for row in wanted:
        alike = found.boxes[(found.scores == row[4]) & (found.labels == row[5])]
        assert np.abs(alike - as_boxes([row])).max(axis=1).min() < 1e-3


def test_a_cache_keeps_the_maps_of_every_member(tmp_path: Path) -> None:
    root = make_synthetic_voc(tmp_path, train=2, val=0, test=0, width=120, height=90, seed=3)
    dataset, cache = load_voc(root, "train"), tmp_path / "cache"
    large = make_detector("features.scales=[160]", "detection.mirror=true", seed=1)
    both = make_detector("detection.mirror=true").combined(large)
    for _ in range(2):
        found = detect_dataset(both, dataset, cache, NullProgress())
        assert len(list((cache / "maps").iterdir())) == 2 * len(dataset.samples) * 2
        for sample in dataset:
            image = read_image(sample.path)
            halves = [maps.to(torch.float16) for maps in both.look(image)]
            expected = both.detect_regions(halves, both.propose(image))
            assert np.array_equal(found[sample.image_id].scores, expected.scores)


def test_members_must_fit_together() -> None:
    one = make_detector()
    other = Detector(("a", "b", "c"), one.config, one.extractor, one.head, one.svms, one.regressors)
    with pytest.raises(ConfigError, match="different classes"):
        one.combined(other)
    assert one.classes == CLASSES


def test_what_a_combination_cannot_do(tmp_path: Path) -> None:
    both = make_detector().combined(make_detector(seed=1))
    with pytest.raises(ConfigError, match="have no file"):
        both.save(tmp_path / "both.safetensors", description="", provenance={})
    with pytest.raises(ConfigError, match="R-CNN"):
        RcnnDetector(both)
