"""Images seen anew: what is shown, that its regions go along, and that a seed decides it all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.config import Config, load_config
from sppdet.datasets import load_voc, make_synthetic_voc
from sppdet.features import FeatureExtractor
from sppdet.finetune import FineTuner, Seen
from sppdet.finetune_config import FineTuneConfig
from sppdet.head import RegionHead
from sppdet.images import read_sample
from sppdet.progress import NullProgress
from sppdet.projection import best_scale
from sppdet.training.altered import View, recoloured, seen_image
from sppdet.training.data import TrainingData
from sppdet.training.run import prepare

SCALES = (96, 288)
CONFIG = load_config(
    None,
    [
        f"features.scales={list(SCALES)}",
        "proposals.max_proposals=200",
        "head.reduce=8",
        "head.fc6=16",
        "head.fc7=16",
    ],
)
# Altered every time, in one way only.
PLAIN = FineTuneConfig(altered=1.0, flip=0.0, zoom=1.0, recolour=0.0)
MIRRORED = replace(PLAIN, flip=1.0)
ZOOMED = replace(PLAIN, zoom=1.5)
RECOLOURED = replace(PLAIN, recolour=0.5)
ALL = FineTuneConfig(altered=1.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    folder = tmp_path_factory.mktemp("altered")
    dataset = load_voc(make_synthetic_voc(folder / "voc", train=4, val=0, test=0), "train")
    # The shapes are small; one object as large as its image is seen at the smaller scale.
    first, *others = dataset.samples
    whole = np.array([[0, 0, first.width, first.height]], np.float32)
    large = replace(first, boxes=whole, labels=first.labels[:1], difficult=first.difficult[:1])
    dataset = replace(dataset, samples=(large, *others))
    return prepare(CONFIG, dataset, folder / "cache", extractor(CONFIG), NullProgress(), workers=1)


def extractor(config: Config) -> FeatureExtractor:
    return FeatureExtractor(config.features, seed=0)


def views(
    data: TrainingData, config: FineTuneConfig, count: int = 24
) -> Iterator[tuple[int, Seen]]:
    for position in range(count):
        image = position * len(data.dataset) // count
        yield image, seen_image(data, config, 0, View(position, image))


def shown_scale(seen: Seen) -> int:
    """The one scale at which an altered image has a map."""
    (scale,) = (index for index, one in enumerate(seen.maps.scaled) if one.map.numel())
    return scale


def same(a: Seen, b: Seen) -> bool:
    return (
        all(torch.equal(x.map, y.map) for x, y in zip(a.maps.scaled, b.maps.scaled, strict=True))
        and np.array_equal(a.found.boxes, b.found.boxes)
        and a.altered == b.altered
    )


def test_what_is_not_altered_is_as_it_is_stored(data: TrainingData) -> None:
    for image, seen in views(data, FineTuneConfig(altered=0.0)):
        maps, found = data.load(image)
        assert same(seen, Seen(maps, found))


def test_a_share_of_the_views_is_altered(data: TrainingData) -> None:
    altered = [seen.altered for _, seen in views(data, FineTuneConfig(altered=0.5), 40)]
    assert 10 <= sum(altered) <= 30


def test_a_view_follows_from_seed_and_position(data: TrainingData) -> None:
    one = seen_image(data, ALL, 0, View(0, 1))
    assert same(one, seen_image(data, ALL, 0, View(0, 1)))
    assert not same(one, seen_image(data, ALL, 0, View(1, 1)))
    assert not same(one, seen_image(data, ALL, 1, View(0, 1)))


def test_an_image_altered_in_nothing_has_its_own_map(data: TrainingData) -> None:
    features = data.maps.extractor
    seen_scales = set()
    for image, seen in views(data, PLAIN):
        scale = shown_scale(seen)
        seen_scales.add(scale)
        own = features(read_sample(data.dataset.samples[image])).scaled[scale]
        shown = seen.maps.scaled[scale]
        assert torch.equal(shown.map, own.map)
        assert (shown.factor_x, shown.factor_y) == (own.factor_x, own.factor_y)
    assert seen_scales == {0, 1}


@pytest.mark.parametrize("config", [PLAIN, MIRRORED, ZOOMED, RECOLOURED, ALL])
def test_the_regions_are_those_of_the_scale_that_is_shown(
    data: TrainingData, config: FineTuneConfig
) -> None:
    rule = CONFIG.features
    for image, seen in views(data, config):
        every, size = data.candidates(image), (seen.maps.width, seen.maps.height)
        of_box = best_scale(every.boxes, *size, rule.scales, rule.scale_rule)
        mine = of_box == shown_scale(seen)
        assert np.array_equal(seen.found.overlap, every.overlap[mine])
        assert np.array_equal(seen.found.match, every.match[mine])
        assert np.array_equal(seen.found.labels, every.labels)
        assert seen.found.overlap.max() >= config.foreground_iou
        # The rule sends them to that scale still: an absent map is never pooled from.
        again = best_scale(seen.found.boxes, *size, rule.scales, rule.scale_rule)
        assert (again == shown_scale(seen)).all()


def test_a_mirrored_image_takes_its_regions_along(data: TrainingData) -> None:
    features = data.maps.extractor
    for image, seen in views(data, MIRRORED):
        scale = shown_scale(seen)
        pixels = read_sample(data.dataset.samples[image])
        turned = np.ascontiguousarray(pixels[:, ::-1])
        assert torch.equal(seen.maps.scaled[scale].map, features(turned).scaled[scale].map)
        every = data.candidates(image)
        of_box = best_scale(
            every.boxes, pixels.shape[1], pixels.shape[0], SCALES, CONFIG.features.scale_rule
        )
        pairs = [(every.boxes[of_box == scale], seen.found.boxes)]
        pairs.append((every.objects, seen.found.objects))
        for before, after in pairs:
            for (x1, y1, x2, y2), (u1, v1, u2, v2) in zip(
                before.astype(int), after.astype(int), strict=True
            ):
                assert np.array_equal(turned[v1:v2, u1:u2], pixels[y1:y2, x1:x2][:, ::-1])


def test_zoom_lies_on_both_sides_of_one_and_within_its_bounds(data: TrainingData) -> None:
    factors = []
    for _, seen in views(data, ZOOMED):
        scale, short = shown_scale(seen), min(seen.maps.width, seen.maps.height)
        factors.append(seen.maps.scaled[scale].factor_x * short / SCALES[scale])
    assert 1 / 1.52 < min(factors) < 0.9
    assert 1.1 < max(factors) < 1.52


def test_a_step_learns_from_altered_images_of_two_scales(data: TrainingData) -> None:
    head = RegionHead(CONFIG.head, data.maps.extractor, len(data.dataset.classes), seed=0)
    tuner = FineTuner(head, replace(ALL, steps=12, images=2, regions=16), 0)
    seen = [one for _, one in views(data, ALL)]
    assert {shown_scale(one) for one in seen} == {0, 1}
    shown = iter(seen)
    before = head.fc6.weight.detach().clone()
    for _ in range(12):
        assert np.isfinite(tuner.run_step(len(data.dataset), lambda _: next(shown)).total)
    assert not torch.equal(head.fc6.weight, before)


def test_an_image_without_any_region_is_shown(data: TrainingData) -> None:
    (sample, *_) = data.dataset.samples
    none = np.zeros((0, 4), np.float32)
    bare = replace(
        sample,
        boxes=none,
        labels=np.zeros(0, np.int64),
        difficult=np.zeros(0, np.bool_),
    )
    empty = replace(data, dataset=replace(data.dataset, samples=(bare,)), proposals=(none,))
    assert len(seen_image(empty, ALL, 0, View(0, 0)).found.boxes) == 0


@settings(max_examples=50, deadline=None)
@given(
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    strength=st.floats(0, 0.9),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_flat_image_stays_flat(colour: tuple[int, int, int], strength: float, seed: int) -> None:
    image = np.full((5, 7, 3), colour, np.uint8)
    out = recoloured(image, strength, np.random.default_rng(seed))
    assert out.dtype == np.uint8
    assert out.shape == image.shape
    assert (out == out[0, 0]).all()
    if strength == 0:
        assert np.array_equal(out, image)
    if len(set(colour)) == 1:  # grey: contrast and saturation leave it alone
        low, high = (1 - strength) * (1 - strength / 4), (1 + strength) * (1 + strength / 4)
        assert (out >= np.floor(low * image)).all()
        assert (out <= np.ceil(np.minimum(high * image, 255))).all()


def test_recolouring_follows_its_seed_and_changes_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    first, again, other = (recoloured(image, 0.3, np.random.default_rng(n)) for n in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, image)


def test_images_come_from_files_that_can_vanish(data: TrainingData, tmp_path: Path) -> None:
    (sample, *_) = data.dataset.samples
    gone = replace(sample, path=tmp_path / "gone.jpg")
    lost = replace(data, dataset=replace(data.dataset, samples=(gone,)))
    with pytest.raises(Exception, match=r"gone\.jpg"):
        seen_image(lost, ALL, 0, View(0, 0))
