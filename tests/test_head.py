"""The pooled vector against torch's adaptive pooling, and what must not change it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sppdet.errors import ConfigError
from sppdet.features import FeatureConfig, FeatureMaps, ScaledMap
from sppdet.head import FEW_BOXES, RegionHead
from sppdet.head_config import HeadConfig
from sppdet.projection import best_scale, project
from sppdet.types import FloatArray
from tests.region_cases import CUT, PLAIN, PRETRAINED, extractor, random_boxes, random_maps

TAPS = ("bottleneck", "stage5")
SEVERAL = FeatureConfig(taps=TAPS, scales=(160, 480, 280))
NARROW = HeadConfig((2, 1), 8, (1,), (2.0,), fc6=16, fc7=12, upper=False)
# Ratios of bins, kinds of pooling and windows, with narrow layers.
FORMS = {
    "pyramid": (PLAIN, replace(NARROW, levels=(6, 3, 2, 1), semantic_levels=(), context=())),
    "unreduced": (PLAIN, replace(NARROW, reduce=0, semantic_levels=(), context=())),
    "semantic": (
        PRETRAINED,
        replace(NARROW, levels=(), reduce=0, semantic_levels=(2, 1), context=()),
    ),
    "context": (PRETRAINED, replace(NARROW, levels=(3, 1), context=(1.5, 3.0))),
    "scales": (SEVERAL, NARROW),
    "paper": (
        FeatureConfig(taps=TAPS, scales=(96,), projection="paper", scale_rule="paper"),
        replace(NARROW, levels=(4, 2, 1)),
    ),
    "upper": (CUT, replace(NARROW, upper=True)),
    "upper, pyramid alone": (
        CUT,
        replace(NARROW, upper=True, semantic_levels=(), context=()),
    ),
}
WIDTH, HEIGHT = 150, 100
# Boxes with longer sides than this always hold a cell's centre after the release's shrinking.
MIN_SIDE = 45


def head_of(form: str, *, statistics: bool = True, seed: int = 0) -> RegionHead:
    features, config = FORMS[form]
    head = RegionHead(config, extractor(features), 3, seed=seed).eval()
    if statistics:
        generator = torch.Generator().manual_seed(7)
        channels = len(head.mean)
        head.set_statistics(
            torch.randn(channels, generator=generator),
            torch.rand(channels, generator=generator) + 0.5,
        )
    return head.requires_grad_(False)


def plain_spread(half: Tensor, height: int, width: int) -> Tensor:
    """Cell by cell: odd rows and columns are there, even ones the mean of their neighbours."""
    out = torch.zeros(height, width, half.shape[2])
    for y in range(height):
        for x in range(width):
            rows = [y // 2] if y % 2 else [max(y // 2 - 1, 0), y // 2]
            columns = [x // 2] if x % 2 else [max(x // 2 - 1, 0), x // 2]
            out[y, x] = torch.stack([half[r, c] for r in rows for c in columns]).mean(dim=0)
    return out


def plain_joined(head: RegionHead, raw: Tensor) -> tuple[Tensor, Tensor]:
    """The map that the pyramid pools, and the one that the pretrained 1x1 head reads."""
    if head.upper is not None:
        deep = head.upper(raw)
        return torch.cat([plain_spread(deep, *raw.shape[:2]), raw], dim=2), deep
    return raw, raw[..., : extractor(head.features).channels.get("bottleneck", 0)]


def oracle(head: RegionHead, maps: FeatureMaps, box: FloatArray, flip: bool) -> Tensor:
    """One region's vector, bin by bin as torch pools the cut-out window."""
    rule, config = head.features, head.config
    which = best_scale(box[None], maps.width, maps.height, rule.scales, rule.scale_rule)[0]
    scaled = maps.scaled[which]

    def window(grown: FloatArray, values: Tensor) -> Tensor:
        height, width = values.shape[:2]
        x1, y1, x2, y2 = project(
            grown[None],
            scaled.factor_x,
            scaled.factor_y,
            head.geometry,
            height,
            width,
            rule.projection,
        )[0]
        cut = values[y1:y2, x1:x2].permute(2, 0, 1)
        return cut.flip(2) if flip else cut

    joined, source = plain_joined(head, scaled.map)
    parts = []
    if config.levels:
        values = (joined - head.mean) / head.std
        if head.reduce is not None:
            values = values @ head.reduce.weight.T + head.reduce.bias
        cut = window(box, values)
        parts += [F.adaptive_max_pool2d(cut, n).flatten() for n in config.levels]
    pretrained = extractor(rule).backbone.pointwise_head()
    if (config.semantic_levels or config.context) and pretrained is not None:
        semantic = (source @ pretrained.weight + pretrained.bias).clamp(0, pretrained.limit)
        if head.upper is not None:
            semantic = plain_spread(semantic, *scaled.map.shape[:2])
        cut = window(box, semantic)
        parts += [F.adaptive_avg_pool2d(cut, n).flatten() for n in config.semantic_levels]
        for factor in config.context:
            x1, y1, x2, y2 = box.astype(np.float64)
            half_x, half_y = (x2 - x1) / 2 * factor, (y2 - y1) / 2 * factor
            x, y = (x1 + x2) / 2, (y1 + y2) / 2
            larger = np.array(
                [
                    max(x - half_x, 0),
                    max(y - half_y, 0),
                    min(x + half_x, maps.width),
                    min(y + half_y, maps.height),
                ],
                np.float32,
            )
            parts.append(window(larger, semantic).mean(dim=(1, 2)))
    return torch.cat(parts)


@pytest.mark.parametrize("form", FORMS)
def test_no_boxes(form: str) -> None:
    head = head_of(form)
    maps = random_maps(head.features, WIDTH, HEIGHT)
    pooled = head.pool(maps, np.zeros((0, 4), np.float32))
    assert pooled.shape == (0, head.dim)
    output = head(pooled)
    assert output.logits.shape == (0, 4)
    assert output.offsets.shape == (0, 3, 4)
    assert head.window_groups(maps, np.zeros((0, 4), np.float32)).shape == (0,)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_pool_is_adaptive_pooling_of_each_window(form: str, flip: bool) -> None:
    head = head_of(form)
    maps = random_maps(head.features, WIDTH, HEIGHT)
    boxes = random_boxes(12, WIDTH, HEIGHT)
    pooled = head.pool(maps, boxes, flip=flip)
    assert pooled.shape == (12, head.dim)
    assert pooled.dtype == torch.float32
    expected = torch.stack([oracle(head, maps, box, flip) for box in boxes])
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_the_short_way_to_fc6_is_the_long_one(form: str) -> None:
    head = head_of(form)
    maps = random_maps(head.features, WIDTH, HEIGHT)
    for count in (0, 12, FEW_BOXES, 300):
        boxes = random_boxes(count, WIDTH, HEIGHT)
        expected = head.run_fc6(head.pool(maps, boxes))
        torch.testing.assert_close(head.pool_fc6(maps, boxes), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_joined_maps_are_pooled_as_the_maps_are_and_made_once(form: str) -> None:
    head = head_of(form)
    maps = random_maps(head.features, WIDTH, HEIGHT)
    boxes = random_boxes(FEW_BOXES, WIDTH, HEIGHT)
    expected = head.pool(maps, boxes), head.pool_fc6(maps, boxes)
    passes: list[object] = []
    if head.upper is not None:
        head.upper.register_forward_hook(lambda *call: passes.append(call))
    joined = head.join(maps)
    assert head.join(joined) is joined
    assert torch.equal(head.pool(joined, boxes), expected[0])
    assert torch.equal(head.pool_fc6(joined, boxes), expected[1])
    assert torch.equal(head.pool(joined, boxes[:9]), expected[0][:9])
    assert len(passes) == (head.upper is not None)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_made_of_maps_is_kept_unless_weights_may_change(form: str) -> None:
    head = head_of(form)
    maps = random_maps(head.features, WIDTH, HEIGHT)
    boxes, others = random_boxes(FEW_BOXES, WIDTH, HEIGHT), random_boxes(300, WIDTH, HEIGHT, seed=1)
    joined = head.join(maps)
    with torch.no_grad():
        first = head.fc6_response(joined, boxes)
        # Fewer boxes go the other way, with what is known already.
        assert torch.equal(head.fc6_response(joined, boxes[:9]), head.fc6_response(maps, boxes[:9]))
        assert torch.equal(head.fc6_response(joined, others), head.fc6_response(maps, others))
        assert torch.equal(head.fc6_response(joined, boxes), first)
        head.fc6.weight.mul_(2)
        head.fc6.bias.mul_(2)
    joined = head.join(maps)
    with torch.enable_grad():
        torch.testing.assert_close(head.fc6_response(joined, boxes), 2 * first)
        head.fc6.weight.data.mul_(2)
        head.fc6.bias.data.mul_(2)
        torch.testing.assert_close(head.fc6_response(joined, boxes), 4 * first)


@pytest.mark.parametrize("form", FORMS)
def test_other_boxes_never_change_a_vector(form: str) -> None:
    head = head_of(form)
    maps = random_maps(head.features, WIDTH, HEIGHT)
    boxes = random_boxes(40, WIDTH, HEIGHT)
    for flip in (False, True):
        pooled = head.pool(maps, boxes, flip=flip)
        shuffled = np.random.default_rng(0).permutation(40)
        assert torch.equal(head.pool(maps, boxes[shuffled], flip=flip), pooled[shuffled])
        for start in range(0, 40, 13):
            alone = head.pool(maps, boxes[start : start + 1], flip=flip)
            assert torch.equal(alone[0], pooled[start])
        twice = head.pool(maps, np.concatenate([boxes, boxes]), flip=flip)
        assert torch.equal(twice, torch.cat([pooled, pooled]))


def test_the_scales_forms_use_several_scales() -> None:
    boxes = random_boxes(40, WIDTH, HEIGHT)
    chosen = best_scale(boxes, WIDTH, HEIGHT, SEVERAL.scales, SEVERAL.scale_rule)
    assert len(set(chosen.tolist())) > 1


def mirrored(maps: FeatureMaps) -> FeatureMaps:
    flipped = tuple(ScaledMap(one.map.flip(1), one.factor_x, one.factor_y) for one in maps.scaled)
    return FeatureMaps(flipped, maps.width, maps.height)


def centred_maps(head: RegionHead, cells: int = 8, seed: int = 0) -> FeatureMaps:
    """Maps whose cells lie symmetrically in the image, so that mirroring maps cells on cells."""
    side = round(2 * head.geometry.offset) + head.geometry.stride * (cells - 1)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(cells, cells, len(head.mean), generator=generator)
    return FeatureMaps((ScaledMap(values, 1.0, 1.0),), side, side)


@pytest.mark.parametrize("form", ["pyramid", "unreduced", "semantic", "context"])
def test_flip_is_pooling_of_the_mirrored_image(form: str) -> None:
    head = head_of(form)
    maps = centred_maps(head)
    # The middle of a window without cells is rounded to the left: no mirrored rule has that.
    boxes = random_boxes(60, maps.width, maps.height)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2]).min(axis=1) > MIN_SIDE]
    assert len(boxes) > 10
    there = boxes.copy()
    there[:, 0], there[:, 2] = maps.width - boxes[:, 2], maps.width - boxes[:, 0]
    torch.testing.assert_close(
        head.pool(maps, boxes, flip=True), head.pool(mirrored(maps), there), rtol=1e-5, atol=1e-5
    )


def test_flip_mirrors_the_bins() -> None:
    head = head_of("pyramid")
    maps = random_maps(head.features, WIDTH, HEIGHT)
    boxes = random_boxes(20, WIDTH, HEIGHT)
    plain, flipped = head.pool(maps, boxes), head.pool(maps, boxes, flip=True)
    start = 0
    for level in head.config.levels:
        size = 8 * level * level
        bins = plain[:, start : start + size].reshape(20, 8, level, level)
        assert torch.equal(bins.flip(3).reshape(20, size), flipped[:, start : start + size])
        start += size
    assert start == head.dim


@pytest.mark.parametrize("form", FORMS)
def test_degenerate_boxes_have_finite_vectors(form: str) -> None:
    head = head_of(form)
    corner = [WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT]
    boxes = np.array(
        [
            [0, 0, WIDTH, HEIGHT],
            [0, 0, 1, 1],
            corner,
            [10, 10, 10.01, 10.01],  # smaller than a pixel
            [10, 10, 10, 10],  # without area
            [0, 50, WIDTH, 50.5],
            [75, 0, 75.5, HEIGHT],
            [WIDTH, HEIGHT, WIDTH, HEIGHT],
            [-20, -20, -10, -10],  # outside
            [WIDTH + 500, 0, WIDTH + 900, 10],
        ],
        np.float32,
    )
    maps = random_maps(head.features, WIDTH, HEIGHT)
    for flip in (False, True):
        pooled = head.pool(maps, boxes, flip=flip)
        assert pooled.shape == (len(boxes), head.dim)
        assert torch.isfinite(pooled).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (60, 1), (500, 50)])
@pytest.mark.parametrize("form", ["pyramid", "context", "scales"])
def test_degenerate_images_have_finite_vectors(form: str, size: tuple[int, int]) -> None:
    head = head_of(form)
    width, height = size
    maps = random_maps(head.features, width, height)
    boxes = np.concatenate(
        [random_boxes(5, width, height), np.array([[0, 0, width, height]], np.float32)]
    )
    pooled = head.pool(maps, boxes)
    assert pooled.shape == (6, head.dim)
    assert torch.isfinite(pooled).all()


def test_a_real_image_is_pooled() -> None:
    head = head_of("context")
    photo = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    maps = extractor(head.features)(photo)
    pooled = head.pool(maps, random_boxes(5, WIDTH, HEIGHT))
    assert torch.isfinite(pooled).all()
    # The whole image in one window: what its average over the map is.
    whole = np.array([[0, 0, WIDTH, HEIGHT]], np.float32)
    torch.testing.assert_close(
        head.pool(maps, whole)[0], oracle(head, maps, whole[0], False), rtol=1e-4, atol=1e-4
    )


def test_half_precision_maps_are_pooled_in_single_precision() -> None:
    head = head_of("context")
    maps = random_maps(head.features, WIDTH, HEIGHT).to(torch.float16)
    boxes = random_boxes(10, WIDTH, HEIGHT)
    pooled = head.pool(maps, boxes)
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, head.pool(maps.to(torch.float32), boxes))


@pytest.mark.parametrize("form", ["pyramid", "unreduced"])
def test_statistics_normalise_the_map(form: str) -> None:
    head, plain = head_of(form), head_of(form, statistics=False)
    maps = random_maps(head.features, WIDTH, HEIGHT)
    (scaled,) = maps.scaled
    normal = ScaledMap((scaled.map - head.mean) / head.std, scaled.factor_x, scaled.factor_y)
    boxes = random_boxes(10, WIDTH, HEIGHT)
    torch.testing.assert_close(
        head.pool(maps, boxes),
        plain.pool(FeatureMaps((normal,), WIDTH, HEIGHT), boxes),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("form", ["pyramid", "scales"])
def test_window_groups_are_equal_windows_of_one_scale(form: str) -> None:
    head = head_of(form)
    maps = random_maps(head.features, WIDTH, HEIGHT)
    rng = np.random.default_rng(0)
    boxes = np.repeat(random_boxes(15, WIDTH, HEIGHT), 4, axis=0)
    boxes[:, 2:] += rng.uniform(0, 8, (60, 2)).astype(np.float32)
    groups = head.window_groups(maps, boxes)
    assert groups.shape == (60,)
    assert groups.dtype == np.int64
    rule = head.features
    chosen = best_scale(boxes, WIDTH, HEIGHT, rule.scales, rule.scale_rule)
    cells = []
    for which, box in zip(chosen, boxes, strict=True):
        one = maps.scaled[which]
        height, width = one.map.shape[:2]
        window = project(box[None], one.factor_x, one.factor_y, head.geometry, height, width)
        cells.append((int(which), *window[0].tolist()))
    equal = np.array([[a == b for b in cells] for a in cells])
    np.testing.assert_array_equal(groups[:, None] == groups[None, :], equal)
    assert 1 < len(set(groups.tolist())) < 60


@pytest.mark.parametrize("form", FORMS)
def test_layers_have_the_widths_they_say(form: str) -> None:
    head = head_of(form)
    pooled = head.pool(random_maps(head.features, WIDTH, HEIGHT), random_boxes(5, WIDTH, HEIGHT))
    fc6 = head.run_fc6(pooled)
    fc7 = head.run_fc7(fc6)
    for name, values in (("pool", pooled), ("fc6", fc6), ("fc7", fc7)):
        assert values.shape == (5, head.layer_width(name))
    assert (fc6 >= 0).all()
    assert (fc7 >= 0).all()
    output = head(pooled)
    assert output.logits.shape == (5, 4)
    assert output.offsets.shape == (5, 3, 4)
    assert torch.equal(output.logits, head.classify(fc7))


def test_dropout_acts_in_training_only() -> None:
    head = head_of("pyramid")
    pooled = torch.randn(4, head.dim)
    assert torch.equal(head(pooled).logits, head(pooled).logits)
    head.train()
    assert not torch.equal(head(pooled).logits, head(pooled).logits)


def test_the_first_weights_follow_the_seed() -> None:
    first, again, other = (head_of("context", seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["fc6.weight"], other["fc6.weight"])


def test_weights_of_the_backbone_are_neither_trained_nor_stored() -> None:
    features, config = FORMS["context"]
    head = RegionHead(config, extractor(features), 3)
    trained = {name for name, _ in head.named_parameters()}
    layers = {name.split(".")[0] for name in trained}
    assert layers == {"reduce", "fc6", "fc7", "classify", "offset"}
    assert set(head.state_dict()) == trained | {"mean", "std"}


def test_the_upper_stages_are_trained_and_stored() -> None:
    features, config = FORMS["upper"]
    head = RegionHead(config, extractor(features), 3)
    stages = {name for name, _ in head.named_parameters() if name.startswith("upper.")}
    # Five inverted residuals of stage 6 and one of stage 7: three convolutions each.
    assert len(stages) == 2 * 3 * 6
    assert stages <= set(head.state_dict())
    below = {id(parameter) for parameter in head.below_fc6()}
    assert below == {
        id(parameter)
        for name, parameter in head.named_parameters()
        if name.startswith(("upper.", "reduce."))
    }
    # A copy: the backbone stays frozen as it was.
    assert not any(p.requires_grad for p in extractor(features).backbone.parameters())


@pytest.mark.parametrize("taps", [TAPS, ("stage3",), ("bottleneck",)])
def test_upper_stages_need_the_one_tap_below_them(taps: tuple[str, ...]) -> None:
    features = extractor(FeatureConfig(taps=taps, scales=(96,)))
    with pytest.raises(ConfigError, match=r"no stages to train above.*head\.upper"):
        RegionHead(replace(NARROW, upper=True), features, 3)


@pytest.mark.parametrize("form", ["context", "upper"])
def test_gradients_reach_every_layer(form: str) -> None:
    features, config = FORMS[form]
    head = RegionHead(config, extractor(features), 3)
    maps = random_maps(features, WIDTH, HEIGHT)
    output = head(head.pool(maps, random_boxes(10, WIDTH, HEIGHT), flip=True))
    (output.logits.square().sum() + output.offsets.square().sum()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_state_dicts_carry_a_head_over() -> None:
    head, other = head_of("context"), head_of("context", statistics=False, seed=5)
    maps, boxes = random_maps(head.features, WIDTH, HEIGHT), random_boxes(10, WIDTH, HEIGHT)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(other.pool(maps, boxes)).logits, head(head.pool(maps, boxes)).logits)


@pytest.mark.parametrize(
    "config",
    [
        HeadConfig(context=(), upper=False),
        HeadConfig(semantic_levels=(), upper=False),
        HeadConfig(upper=False),
    ],
)
def test_a_backbone_without_a_head_cannot_be_averaged(config: HeadConfig) -> None:
    with pytest.raises(ConfigError, match=r"zf5 has no pretrained 1x1 head.*to \[\]"):
        RegionHead(config, extractor(PLAIN), 3)


@pytest.mark.parametrize(
    "values",
    [
        {"levels": (), "semantic_levels": ()},
        {"levels": (3, 0)},
        {"semantic_levels": (-1,)},
        {"levels": (3, 3)},
        {"semantic_levels": (1, 1)},
        {"context": (0.0,)},
        {"context": (-2.0,)},
        {"reduce": -1},
        {"fc6": 0},
        {"fc7": 0},
        {"dropout": 1.0},
        {"dropout": -0.1},
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        HeadConfig(**values)  # type: ignore[arg-type]
