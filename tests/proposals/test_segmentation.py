from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sppdet.core.types import ImageArray
from sppdet.proposals.color_spaces import convert_color, shrink
from sppdet.proposals.segmentation import (
    WEIGHT_SCALE,
    absorb_small,
    grid_edges,
    join,
    smooth,
)

Edge = tuple[int, int, int]
Ints = NDArray[np.int32]


def noise(height: int, width: int, seed: int, levels: int = 256) -> ImageArray:
    """Random pixels; few levels give many equal weights."""
    values = np.random.default_rng(seed).integers(0, levels, (height, width, 3))
    return (values * (255 // (levels - 1))).astype(np.uint8)


def listed(*arrays: NDArray[np.generic]) -> list[Edge]:
    return [(int(a), int(b), int(w)) for a, b, w in zip(*arrays, strict=True)]


def obvious_join(
    edges: list[Edge], sizes: list[int], inner: list[int], scale: int
) -> tuple[list[int], dict[int, int], dict[int, int], list[Edge]]:
    """The paper's algorithm 1 with explicit sets and no tricks; `scale / |C|` compared exactly.

    Returns each node's component (its lowest node), components' sizes and inner weights by that
    name, and the edges that did not join and whose ends stayed apart.
    """
    members = {i: {i} for i in range(len(sizes))}
    home = list(range(len(sizes)))
    size, most = dict(enumerate(sizes)), dict(enumerate(inner))
    for start, end, weight in edges:
        a, b = home[start], home[end]
        if a == b:
            continue
        # w <= Int(C) + scale / |C|, multiplied by |C|
        if all((weight - most[c]) * size[c] <= scale for c in (a, b)):
            low, high = min(a, b), max(a, b)
            members[low] |= members.pop(high)
            for node in members[low]:
                home[node] = low
            size[low] += size.pop(high)
            most.pop(high)
            most[low] = weight
    apart = [e for e in edges if home[e[0]] != home[e[1]]]
    return home, size, most, apart


def same_partition(a: NDArray[np.generic], b: list[int]) -> bool:
    pairs = set(zip(a.tolist(), b, strict=True))
    return len(pairs) == len(set(a.tolist())) == len(set(b))


def start_of(image: ImageArray) -> tuple[list[Edge], Ints, Ints]:
    pixels = image.shape[0] * image.shape[1]
    return listed(*grid_edges(smooth(image))), np.ones(pixels, np.int32), np.zeros(pixels, np.int32)


def test_one_pixel_has_no_edges_and_is_one_component() -> None:
    start, end, weight = grid_edges(smooth(noise(1, 1, 0)))
    assert len(start) == len(end) == len(weight) == 0
    numbers, sizes, *_ = join(
        start, end, weight, np.ones(1, np.int32), np.zeros(1, np.int32), WEIGHT_SCALE
    )
    assert numbers.tolist() == [0]
    assert sizes.tolist() == [1]
    assert absorb_small(start, end, sizes, 10)[1] == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 99))
def test_smooth_is_the_two_way_filter_with_a_repeated_border(
    height: int, width: int, seed: int
) -> None:
    image = noise(height, width, seed)
    padded = np.pad(image.astype(int), ((1, 1), (1, 1), (0, 0)), mode="edge")
    kernel = np.outer([1, 6, 1], [1, 6, 1])
    expected = np.zeros((3, height, width), int)
    for dy in range(3):
        for dx in range(3):
            window = padded[dy : dy + height, dx : dx + width]
            expected += kernel[dy, dx] * window.transpose(2, 0, 1)
    np.testing.assert_array_equal(smooth(image), expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 99), st.sampled_from([2, 4, 256]))
def test_grid_edges_are_all_there_sorted_and_stable(
    height: int, width: int, seed: int, levels: int
) -> None:
    planes = smooth(noise(height, width, seed, levels))
    expected = []
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0)):
                if y + dy < height and x + dx < width:
                    step = (planes[:, y, x] - planes[:, y + dy, x + dx]).astype(np.float64)
                    weight = int(np.floor(np.sqrt((step**2).sum()) + 0.5))
                    expected.append((y * width + x, (y + dy) * width + x + dx, weight))
    expected.sort(key=lambda edge: edge[2])
    got = listed(*grid_edges(planes))
    assert len(got) == len(expected)
    # float32 and float64 may differ by one unit in 16,000; the order must be that of the weights.
    assert [w for *_, w in got] == sorted(w for *_, w in got)
    assert {e[:2] for e in got} == {e[:2] for e in expected}
    by_ends = {e[:2]: e[2] for e in expected}
    assert all(abs(by_ends[a, b] - w) <= 1 for a, b, w in got)
    for earlier, later in itertools.pairwise(got):
        if earlier[2] == later[2]:
            assert earlier[0] <= later[0]


def test_the_largest_weight_fits() -> None:
    image = np.zeros((6, 8, 3), np.uint8)
    image[:, 4:] = 255
    weight = grid_edges(smooth(image))[2]
    assert 0 < weight.max() <= np.sqrt(3) * 255 * 64 + 1


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(0, 999),
    st.sampled_from([2, 3, 256]),
    st.lists(st.integers(1, 3000), min_size=1, max_size=3),
)
def test_join_equals_the_plain_algorithm_at_each_scale(
    height: int, width: int, seed: int, levels: int, scales: list[int]
) -> None:
    image = noise(height, width, seed, levels)
    start, end, weight = grid_edges(smooth(image))
    edges, sizes, inner = start_of(image)
    for scale in sorted(scales):
        home, size, most, apart = obvious_join(
            edges, sizes.tolist(), inner.tolist(), WEIGHT_SCALE * scale
        )
        numbers, sizes, inner, start, end, weight = join(
            start, end, weight, sizes, inner, WEIGHT_SCALE * scale
        )
        assert same_partition(numbers, home)
        roots = sorted(size)
        assert [home.index(r) for r in roots] == sorted(home.index(r) for r in roots)
        assert sizes.tolist() == [size[r] for r in roots]
        assert inner.tolist() == [most[r] for r in roots]
        edges = [(roots.index(home[a]), roots.index(home[b]), w) for a, b, w in apart]
        assert listed(start, end, weight) == edges


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 999), st.integers(0, 30))
def test_absorb_small_leaves_no_small_region_and_equals_sets(
    height: int, width: int, seed: int, min_size: int
) -> None:
    image = noise(height, width, seed)
    _, sizes, inner = start_of(image)
    start, end, weight = grid_edges(smooth(image))
    _, sizes, inner, start, end, weight = join(start, end, weight, sizes, inner, 64 * 200)
    region, count = absorb_small(start, end, sizes, min_size)
    home = list(range(len(sizes)))
    for a, b, _ in listed(start, end, weight):
        pixels = [sum(sizes[i] for i in range(len(home)) if home[i] == home[c]) for c in (a, b)]
        if home[a] != home[b] and min(pixels) < min_size:
            old, new = max(home[a], home[b]), min(home[a], home[b])
            home = [new if h == old else h for h in home]
    assert same_partition(region, home)
    assert count == len(set(home))
    totals = np.bincount(region, weights=sizes, minlength=count)
    assert count == 1 or totals.min() >= min_size


def test_a_flat_image_is_one_component() -> None:
    flat = np.full((30, 40, 3), 128, np.uint8)
    numbers, sizes, *_, weight = join(
        *grid_edges(smooth(flat)), np.ones(1200, np.int32), np.zeros(1200, np.int32), 64
    )
    assert set(numbers.tolist()) == {0}
    assert sizes.tolist() == [1200]
    assert len(weight) == 0


@pytest.mark.parametrize("scale", [60, 120, 240])
def test_component_counts_are_near_those_of_opencv(scale: int) -> None:
    data = pytest.importorskip("skimage.data")
    view = convert_color(shrink(np.array(data.astronaut()), 180, 180), "lab")
    _, sizes, inner = start_of(view)
    start, end, weight = grid_edges(smooth(view))
    _, sizes, _, start, end, _ = join(start, end, weight, sizes, inner, WEIGHT_SCALE * scale)
    ours = absorb_small(start, end, sizes, 18)[1]
    theirs = cv2.ximgproc.segmentation.createGraphSegmentation(0.5, float(scale), 18)
    count = int(theirs.processImage(view).max()) + 1
    assert 0.8 * count <= ours <= 1.25 * count
