"""Augmentation: what is shown, that its regions go along, and that a seed decides it all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.backbones.feature_maps import FeatureExtractor
from sppdet.core.images import read_sample
from sppdet.core.progress import NullProgress
from sppdet.core.settings import load
from sppdet.core.types import Sample
from sppdet.datasets import load_dataset, make_synthetic_voc
from sppdet.heads.head import RegionHead
from sppdet.spp.projection import select_scale
from sppdet.training.augmentation import BatchSlot, color_jitter, load_training_image
from sppdet.training.config import FineTuneConfig, TrainingConfig
from sppdet.training.data import TrainingData, prepare_data
from sppdet.training.finetune import FineTuner, TrainingImage

SCALES = (96, 288)
CONFIG = load(
    TrainingConfig,
    None,
    [
        f"features.scales={list(SCALES)}",
        "proposals.max_proposals=200",
        "head.pyramid_channels=8",
        "head.fc6=16",
        "head.fc7=16",
    ],
)
# Augmented every time, in one way only.
PLAIN = FineTuneConfig(augment_prob=1.0, flip_prob=0.0, scale_jitter=1.0, color_jitter=0.0)
FLIPPED = PLAIN.replace(flip_prob=1.0)
RESIZED = PLAIN.replace(scale_jitter=1.5)
RECOLORED = PLAIN.replace(color_jitter=0.5)
ALL = FineTuneConfig(augment_prob=1.0)
CACHED = FineTuneConfig(augment_prob=0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    folder = tmp_path_factory.mktemp("augmented")
    dataset = load_dataset(make_synthetic_voc(folder / "voc", train=4, val=0, test=0), "train")
    # The shapes are small; one object as large as its image is seen at the smaller scale.
    first, *others = dataset.samples
    whole = np.array([[0, 0, first.width, first.height]], np.float32)
    large = replace(first, boxes=whole, labels=first.labels[:1], difficult=first.difficult[:1])
    dataset = replace(dataset, samples=(large, *others))
    extractor = FeatureExtractor(CONFIG.features, seed=0)
    return prepare_data(CONFIG, dataset, folder / "cache", extractor, NullProgress(), workers=1)


def load_images(
    data: TrainingData, config: FineTuneConfig, count: int = 24
) -> Iterator[tuple[int, TrainingImage]]:
    for position in range(count):
        image = position * len(data.dataset) // count
        yield image, load_training_image(data, config, 0, BatchSlot(position, image))


def nearest_scale(seen: TrainingImage) -> int:
    """The number of the scale that an image is shown at, resized or not."""
    (one,) = seen.maps.maps
    return int(np.abs(np.log(np.array(SCALES) / one.short_side)).argmin())


def same(a: TrainingImage, b: TrainingImage) -> bool:
    return all(
        torch.equal(x.values, y.values) for x, y in zip(a.maps.maps, b.maps.maps, strict=True)
    ) and np.array_equal(a.targets.boxes, b.targets.boxes)


def without_objects(sample: Sample) -> Sample:
    none = sample.boxes[:0], sample.labels[:0], sample.difficult[:0]
    return replace(sample, boxes=none[0], labels=none[1], difficult=none[2])


def test_what_is_not_augmented_is_the_cached_map_of_one_scale(data: TrainingData) -> None:
    shown = set()
    for image, seen in load_images(data, CACHED):
        scale = nearest_scale(seen)
        shown.add(scale)
        maps, every = data.load(image)
        size = (maps.width, maps.height)
        of_box = select_scale(every.boxes, *size, SCALES, CONFIG.features.scale_rule)
        assert same(seen, TrainingImage(maps.only(scale), every.take(of_box == scale)))
        assert seen.maps.maps[0].values.dtype == torch.float16
    assert shown == {0, 1}


def test_a_share_of_the_images_is_augmented(data: TrainingData) -> None:
    half = FineTuneConfig(augment_prob=0.5)
    # Cached maps are of half the precision.
    types = [seen.maps.maps[0].values.dtype for _, seen in load_images(data, half, 40)]
    assert 10 <= types.count(torch.float16) <= 30
    assert types.count(torch.float16) + types.count(torch.float32) == 40


def test_an_image_follows_from_seed_and_position(data: TrainingData) -> None:
    one = load_training_image(data, ALL, 0, BatchSlot(0, 1))
    assert same(one, load_training_image(data, ALL, 0, BatchSlot(0, 1)))
    assert not same(one, load_training_image(data, ALL, 0, BatchSlot(1, 1)))
    assert not same(one, load_training_image(data, ALL, 1, BatchSlot(0, 1)))


def test_an_image_augmented_in_nothing_has_its_own_map(data: TrainingData) -> None:
    features = data.maps.extractor
    seen_scales = set()
    for image, seen in load_images(data, PLAIN):
        scale = nearest_scale(seen)
        seen_scales.add(scale)
        own = features(read_sample(data.dataset.samples[image])).maps[scale]
        (shown,) = seen.maps.maps
        assert torch.equal(shown.values, own.values)
        assert (shown.scale_x, shown.scale_y) == (own.scale_x, own.scale_y)
        assert shown.short_side == own.short_side == SCALES[scale]
    assert seen_scales == {0, 1}


@pytest.mark.parametrize("config", [CACHED, PLAIN, FLIPPED, RESIZED, RECOLORED, ALL])
def test_the_regions_are_those_of_the_scale_that_is_shown(
    data: TrainingData, config: FineTuneConfig
) -> None:
    rule = CONFIG.features
    for image, seen in load_images(data, config):
        every, size = data.targets(image), (seen.maps.width, seen.maps.height)
        of_box = select_scale(every.boxes, *size, rule.scales, rule.scale_rule)
        mine = of_box == nearest_scale(seen)
        assert np.array_equal(seen.targets.max_iou, every.max_iou[mine])
        assert np.array_equal(seen.targets.matched_object, every.matched_object[mine])
        assert np.array_equal(seen.targets.gt_labels, every.gt_labels)
        assert seen.targets.max_iou.max() >= config.foreground_iou
        # Flipped or not, the rule sends them to that scale.
        again = select_scale(seen.targets.boxes, *size, rule.scales, rule.scale_rule)
        assert (again == nearest_scale(seen)).all()


def test_a_flipped_image_takes_its_regions_along(data: TrainingData) -> None:
    features = data.maps.extractor
    for image, seen in load_images(data, FLIPPED):
        scale = nearest_scale(seen)
        pixels = read_sample(data.dataset.samples[image])
        turned = np.ascontiguousarray(pixels[:, ::-1])
        assert torch.equal(seen.maps.maps[0].values, features(turned).maps[scale].values)
        every = data.targets(image)
        of_box = select_scale(
            every.boxes, pixels.shape[1], pixels.shape[0], SCALES, CONFIG.features.scale_rule
        )
        pairs = [(every.boxes[of_box == scale], seen.targets.boxes)]
        pairs.append((every.gt_boxes, seen.targets.gt_boxes))
        for before, after in pairs:
            for (x1, y1, x2, y2), (u1, v1, u2, v2) in zip(
                before.astype(int), after.astype(int), strict=True
            ):
                assert np.array_equal(turned[v1:v2, u1:u2], pixels[y1:y2, x1:x2][:, ::-1])


def test_scale_jitter_lies_on_both_sides_of_one_and_within_its_bounds(data: TrainingData) -> None:
    factors = []
    for _, seen in load_images(data, RESIZED):
        scale, short = nearest_scale(seen), min(seen.maps.width, seen.maps.height)
        factors.append(seen.maps.maps[0].scale_x * short / SCALES[scale])
    assert 1 / 1.52 < min(factors) < 0.9
    assert 1.1 < max(factors) < 1.52


def test_a_step_learns_from_augmented_images_of_two_scales(data: TrainingData) -> None:
    head = RegionHead(CONFIG.head, data.maps.extractor, len(data.dataset.classes), seed=0)
    settled = ALL.replace(steps=12, images_per_step=2, regions_per_image=16, learning_rate=4e-4)
    tuner = FineTuner(head, settled, 0)
    seen = [one for _, one in load_images(data, ALL)]
    assert {nearest_scale(one) for one in seen} == {0, 1}
    before = head.fc6.weight.detach().clone()
    for step in range(12):
        assert np.isfinite(tuner.step(seen[2 * step : 2 * step + 2]).total)
    assert not torch.equal(head.fc6.weight, before)


def test_an_image_without_any_region_is_shown(data: TrainingData) -> None:
    bare = without_objects(data.dataset.samples[0])
    none = np.zeros((0, 4), np.float32)
    empty = replace(data, dataset=replace(data.dataset, samples=(bare,)), proposals=(none,))
    assert len(load_training_image(empty, ALL, 0, BatchSlot(0, 0)).targets.boxes) == 0


def test_an_image_without_objects_is_shown_at_any_scale(data: TrainingData) -> None:
    samples = tuple(map(without_objects, data.dataset))
    bare = replace(data, dataset=replace(data.dataset, samples=samples))
    for config in (CACHED, ALL):
        for image in range(len(samples)):
            every, size = bare.targets(image), (samples[image].width, samples[image].height)
            of_box = select_scale(every.boxes, *size, SCALES, CONFIG.features.scale_rule)
            shown = [
                load_training_image(bare, config, 0, BatchSlot(place, image)) for place in range(20)
            ]
            assert {nearest_scale(one) for one in shown} == set(of_box.tolist())
            for one in shown:
                assert len(one.targets.boxes) == np.count_nonzero(of_box == nearest_scale(one))


@settings(max_examples=50, deadline=None)
@given(
    color=st.tuples(*[st.integers(0, 255)] * 3),
    strength=st.floats(0, 0.9),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_flat_image_stays_flat(color: tuple[int, int, int], strength: float, seed: int) -> None:
    image = np.full((5, 7, 3), color, np.uint8)
    out = color_jitter(image, strength, np.random.default_rng(seed))
    assert out.dtype == np.uint8
    assert out.shape == image.shape
    assert (out == out[0, 0]).all()
    if strength == 0:
        assert np.array_equal(out, image)
    if len(set(color)) == 1:  # gray: contrast and saturation leave it alone
        low, high = (1 - strength) * (1 - strength / 4), (1 + strength) * (1 + strength / 4)
        assert (out >= np.floor(low * image)).all()
        assert (out <= np.ceil(np.minimum(high * image, 255))).all()


def test_recoloring_follows_its_seed_and_changes_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    first, again, other = (color_jitter(image, 0.3, np.random.default_rng(n)) for n in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, image)


def test_images_come_from_files_that_can_vanish(data: TrainingData, tmp_path: Path) -> None:
    (sample, *_) = data.dataset.samples
    gone = replace(sample, path=tmp_path / "gone.jpg")
    lost = replace(data, dataset=replace(data.dataset, samples=(gone,)))
    with pytest.raises(Exception, match=r"gone\.jpg"):
        load_training_image(lost, ALL, 0, BatchSlot(0, 0))
