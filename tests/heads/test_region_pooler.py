"""The pooled vector against torch's adaptive pooling, and what must not change it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sppdet.backbones.feature_maps import FeatureMap, FeatureMaps
from sppdet.core.types import FloatArray
from sppdet.heads.region_pooler import RegionPooler
from sppdet.spp.projection import project_boxes, select_scale
from tests.helpers.region_cases import FORMS, SEVERAL, extractor, head_of, random_boxes, random_maps

WIDTH, HEIGHT = 150, 100


def pooler_of(form: str, *, statistics: bool = True) -> RegionPooler:
    return head_of(form, statistics=statistics).pooler


def pool(pooler: RegionPooler, maps: FeatureMaps, boxes: FloatArray) -> Tensor:
    return pooler.pool(pooler.prepare(maps), boxes)


def plain_upsample(half: Tensor, height: int, width: int) -> Tensor:
    """Cell by cell: odd rows and columns are there, even ones the mean of their neighbors."""
    out = torch.zeros(height, width, half.shape[2])
    for y in range(height):
        for x in range(width):
            rows = [y // 2] if y % 2 else [max(y // 2 - 1, 0), y // 2]
            columns = [x // 2] if x % 2 else [max(x // 2 - 1, 0), x // 2]
            out[y, x] = torch.stack([half[r, c] for r in rows for c in columns]).mean(dim=0)
    return out


def plain_joined(pooler: RegionPooler, raw: Tensor) -> tuple[Tensor, Tensor]:
    """The map that the pyramid pools, and the one that the pretrained 1x1 head reads."""
    if pooler.top_stages is not None:
        high = pooler.top_stages(raw)
        return torch.cat([plain_upsample(high, *raw.shape[:2]), raw], dim=2), high
    return raw, raw[..., : extractor(pooler.rules).channels.get("bottleneck", 0)]


def plain_expand(box: FloatArray, factor: float) -> FloatArray:
    x1, y1, x2, y2 = box.astype(np.float64)
    half_x, half_y = (x2 - x1) / 2 * factor, (y2 - y1) / 2 * factor
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    larger = [
        max(x - half_x, 0),
        max(y - half_y, 0),
        min(x + half_x, WIDTH),
        min(y + half_y, HEIGHT),
    ]
    return np.array(larger, np.float32)


def oracle(pooler: RegionPooler, maps: FeatureMaps, box: FloatArray) -> Tensor:
    """One region's vector, bin by bin as torch pools the cut-out window."""
    rule, config = pooler.rules, pooler.config
    which = select_scale(box[None], maps.width, maps.height, rule.scales, rule.scale_rule)[0]
    source = maps.maps[which]

    def window(box: FloatArray, values: Tensor) -> Tensor:
        x1, y1, x2, y2 = project_boxes(
            box[None],
            source.scale_x,
            source.scale_y,
            pooler.receptive_field,
            values.shape[0],
            values.shape[1],
            rule.projection_rule,
        )[0]
        return values[y1:y2, x1:x2].permute(2, 0, 1)

    joined, head_source = plain_joined(pooler, source.values)
    parts = []
    if config.pyramid_levels:
        values = (joined - pooler.mean) / pooler.std
        if pooler.reduce is not None:
            values = values @ pooler.reduce.weight.T + pooler.reduce.bias
        cut = window(box, values)
        parts += [F.adaptive_max_pool2d(cut, n).flatten() for n in config.pyramid_levels]
    if config.context_scales:
        pretrained = extractor(rule).backbone.conv_head()
        assert pretrained is not None
        features = (head_source @ pretrained.weight + pretrained.bias).clamp(0, pretrained.limit)
        if pooler.top_stages is not None:
            features = plain_upsample(features, *source.values.shape[:2])
        for factor in config.context_scales:
            parts.append(window(plain_expand(box, factor), features).mean(dim=(1, 2)))
    return torch.cat(parts)


@pytest.mark.parametrize("form", FORMS)
def test_no_boxes(form: str) -> None:
    pooler = pooler_of(form)
    maps = random_maps(pooler.rules, WIDTH, HEIGHT)
    assert pool(pooler, maps, np.zeros((0, 4), np.float32)).shape == (0, pooler.dim)
    assert pooler.same_window_ids(maps, np.zeros((0, 4), np.float32)).shape == (0,)


@pytest.mark.parametrize("form", FORMS)
def test_pool_is_adaptive_pooling_of_each_window(form: str) -> None:
    pooler = pooler_of(form)
    maps = random_maps(pooler.rules, WIDTH, HEIGHT)
    boxes = random_boxes(12, WIDTH, HEIGHT)
    pooled = pool(pooler, maps, boxes)
    assert pooled.shape == (12, pooler.dim)
    assert pooled.dtype == torch.float32
    expected = torch.stack([oracle(pooler, maps, box) for box in boxes])
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_multiplying_first_is_multiplying_last(form: str) -> None:
    pooler = pooler_of(form)
    generator = torch.Generator().manual_seed(3)
    layer = torch.nn.Linear(pooler.dim, 9).requires_grad_(False)
    layer.weight.copy_(torch.randn(9, pooler.dim, generator=generator) / pooler.dim**0.5)
    layer.bias.copy_(torch.randn(9, generator=generator))
    prepared = pooler.prepare(random_maps(pooler.rules, WIDTH, HEIGHT), layer)
    for count in (0, 1, 12, 300):
        boxes = random_boxes(count, WIDTH, HEIGHT)
        found = pooler.pool_linear(prepared, boxes, layer)
        assert found.shape == (count, 9)
        torch.testing.assert_close(found, layer(pooler.pool(prepared, boxes)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_maps_are_prepared_once_for_any_number_of_regions(form: str) -> None:
    pooler = pooler_of(form)
    maps = random_maps(pooler.rules, WIDTH, HEIGHT)
    boxes = random_boxes(40, WIDTH, HEIGHT)
    expected = pool(pooler, maps, boxes)
    passes: list[object] = []
    if pooler.top_stages is not None:
        pooler.top_stages.register_forward_hook(lambda *call: passes.append(call))
    layer = torch.nn.Linear(pooler.dim, 9)
    prepared = pooler.prepare(maps, layer)
    assert prepared.maps is maps
    assert torch.equal(pooler.pool(prepared, boxes), expected)
    pooler.pool_linear(prepared, boxes, layer)
    assert torch.equal(pooler.pool(prepared, boxes[:9]), expected[:9])
    assert len(passes) == (pooler.top_stages is not None)


@pytest.mark.parametrize("form", FORMS)
def test_the_joined_map_has_all_channels_on_the_grid_of_the_map(form: str) -> None:
    pooler = pooler_of(form)
    for source in random_maps(pooler.rules, WIDTH, HEIGHT).maps:
        found = pooler.joined_map(source)
        assert found.shape == (*source.values.shape[:2], len(pooler.mean))
        torch.testing.assert_close(found, plain_joined(pooler, source.values)[0])


@pytest.mark.parametrize("form", FORMS)
def test_the_image_vector_is_the_mean_of_all_cells_at_every_scale(form: str) -> None:
    pooler = pooler_of(form)
    maps = random_maps(pooler.rules, WIDTH, HEIGHT)
    means = []
    for source in maps.maps:
        cells = source.values
        if pooler.config.context_scales:
            pretrained = extractor(pooler.rules).backbone.conv_head()
            assert pretrained is not None
            deepest = plain_joined(pooler, source.values)[1]
            cells = (deepest @ pretrained.weight + pretrained.bias).clamp(0, pretrained.limit)
        means.append(cells.mean(dim=(0, 1)))
    found = pooler.prepare(maps).image_vector()
    assert found.shape == (pooler.image_width(),)
    torch.testing.assert_close(found, torch.stack(means).mean(dim=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_other_boxes_never_change_a_vector(form: str) -> None:
    pooler = pooler_of(form)
    prepared = pooler.prepare(random_maps(pooler.rules, WIDTH, HEIGHT))
    boxes = random_boxes(40, WIDTH, HEIGHT)
    pooled = pooler.pool(prepared, boxes)
    shuffled = np.random.default_rng(0).permutation(40)
    assert torch.equal(pooler.pool(prepared, boxes[shuffled]), pooled[shuffled])
    for start in range(0, 40, 13):
        alone = pooler.pool(prepared, boxes[start : start + 1])
        assert torch.equal(alone[0], pooled[start])
    twice = pooler.pool(prepared, np.concatenate([boxes, boxes]))
    assert torch.equal(twice, torch.cat([pooled, pooled]))


def test_the_scales_forms_use_several_scales() -> None:
    pooler = pooler_of("scales")
    boxes = random_boxes(40, WIDTH, HEIGHT)
    chosen = select_scale(boxes, WIDTH, HEIGHT, SEVERAL.scales, SEVERAL.scale_rule)
    assert len(set(chosen.tolist())) > 1
    found = pooler.scale_of(random_maps(SEVERAL, WIDTH, HEIGHT), boxes)
    np.testing.assert_array_equal(found, chosen)


def test_the_scales_are_those_of_the_maps() -> None:
    """Of some of the maps, the nearest scale among them is taken, whatever the settings name."""
    pooler = pooler_of("scales")
    maps = random_maps(SEVERAL, WIDTH, HEIGHT)
    fewer = FeatureMaps((maps.maps[2], maps.maps[0]), WIDTH, HEIGHT)
    assert fewer.scales == (280, 160)
    boxes = random_boxes(40, WIDTH, HEIGHT)
    chosen = select_scale(boxes, WIDTH, HEIGHT, (280, 160), SEVERAL.scale_rule)
    np.testing.assert_array_equal(pooler.scale_of(fewer, boxes), chosen)
    pooled = pool(pooler, fewer, boxes)
    for index in (0, 1):
        mine = chosen == index
        assert mine.any()
        assert torch.equal(pooled[mine], pool(pooler, fewer.only(index), boxes[mine]))


@pytest.mark.parametrize("form", FORMS)
def test_degenerate_boxes_have_finite_vectors(form: str) -> None:
    pooler = pooler_of(form)
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
    pooled = pool(pooler, random_maps(pooler.rules, WIDTH, HEIGHT), boxes)
    assert pooled.shape == (len(boxes), pooler.dim)
    assert torch.isfinite(pooled).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (60, 1), (500, 50)])
@pytest.mark.parametrize("form", ["pyramid", "context", "scales"])
def test_degenerate_images_have_finite_vectors(form: str, size: tuple[int, int]) -> None:
    pooler = pooler_of(form)
    width, height = size
    boxes = np.concatenate(
        [random_boxes(5, width, height), np.array([[0, 0, width, height]], np.float32)]
    )
    pooled = pool(pooler, random_maps(pooler.rules, width, height), boxes)
    assert pooled.shape == (6, pooler.dim)
    assert torch.isfinite(pooled).all()


def test_a_real_image_is_pooled() -> None:
    pooler = pooler_of("context")
    photo = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    maps = extractor(pooler.rules)(photo)
    assert torch.isfinite(pool(pooler, maps, random_boxes(5, WIDTH, HEIGHT))).all()
    # The whole image in one window: what its average over the map is.
    whole = np.array([[0, 0, WIDTH, HEIGHT]], np.float32)
    expected = oracle(pooler, maps, whole[0])
    torch.testing.assert_close(pool(pooler, maps, whole)[0], expected, rtol=1e-4, atol=1e-4)


def test_half_precision_maps_are_pooled_in_single_precision() -> None:
    pooler = pooler_of("context")
    maps = random_maps(pooler.rules, WIDTH, HEIGHT).to(torch.float16)
    boxes = random_boxes(10, WIDTH, HEIGHT)
    pooled = pool(pooler, maps, boxes)
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, pool(pooler, maps.to(torch.float32), boxes))


@pytest.mark.parametrize("form", ["pyramid", "unreduced"])
def test_statistics_normalize_the_map(form: str) -> None:
    pooler, plain = pooler_of(form), pooler_of(form, statistics=False)
    maps = random_maps(pooler.rules, WIDTH, HEIGHT)
    (one,) = maps.maps
    values = (one.values - pooler.mean) / pooler.std
    normal = FeatureMap(values, one.scale_x, one.scale_y, one.short_side)
    boxes = random_boxes(10, WIDTH, HEIGHT)
    torch.testing.assert_close(
        pool(pooler, maps, boxes),
        pool(plain, FeatureMaps((normal,), WIDTH, HEIGHT), boxes),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("form", ["pyramid", "scales"])
def test_window_groups_are_equal_windows_of_one_scale(form: str) -> None:
    pooler = pooler_of(form)
    maps = random_maps(pooler.rules, WIDTH, HEIGHT)
    rng = np.random.default_rng(0)
    boxes = np.repeat(random_boxes(15, WIDTH, HEIGHT), 4, axis=0)
    boxes[:, 2:] += rng.uniform(0, 8, (60, 2)).astype(np.float32)
    groups = pooler.same_window_ids(maps, boxes)
    assert groups.shape == (60,)
    assert groups.dtype == np.int64
    rule = pooler.rules
    chosen = select_scale(boxes, WIDTH, HEIGHT, rule.scales, rule.scale_rule)
    cells = []
    for which, box in zip(chosen, boxes, strict=True):
        one = maps.maps[which]
        height, width = one.values.shape[:2]
        window = project_boxes(
            box[None], one.scale_x, one.scale_y, pooler.receptive_field, height, width
        )
        cells.append((int(which), *window[0].tolist()))
    equal = np.array([[a == b for b in cells] for a in cells])
    np.testing.assert_array_equal(groups[:, None] == groups[None, :], equal)
    assert 1 < len(set(groups.tolist())) < 60
