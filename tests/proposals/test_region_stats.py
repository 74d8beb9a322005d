from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.types import UInt32Array
from sppdet.proposals.region_stats import (
    COLOR_BINS,
    adjacency,
    color_bins,
    compose_labels,
    histograms,
    merge_extents,
    pixel_extents,
    sum_sizes,
)

label_images = st.tuples(
    st.integers(1, 7), st.integers(1, 7), st.integers(1, 5), st.integers(0, 99)
)


def labeled(case: tuple[int, int, int, int]) -> tuple[UInt32Array, int, int]:
    """Random labels of a height x width image, all of 0 .. count - 1 present; width, count."""
    height, width, wanted, seed = case
    raw = np.random.default_rng(seed).integers(0, wanted, height * width)
    found, labels = np.unique(raw, return_inverse=True)
    return labels.astype(np.uint32), width, len(found)


@settings(max_examples=40, deadline=None)
@given(label_images)
def test_extents_sizes_and_histograms_equal_plain_loops(case: tuple[int, int, int, int]) -> None:
    labels, width, count = labeled(case)
    rng = np.random.default_rng(case[3])
    image = rng.integers(0, 256, (len(labels) // width, width, 3), dtype=np.uint8)
    bins = color_bins(image)
    identity = np.arange(count, dtype=np.uint32)
    boxes = pixel_extents(labels, width, count)
    counts = histograms(labels, identity, bins, 3 * COLOR_BINS, count)
    for label in range(count):
        where = np.flatnonzero(labels == label)
        xs, ys = where % width, where // width
        assert boxes[label].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        expected = np.zeros((3, COLOR_BINS), int)
        for pixel in image.reshape(-1, 3)[where]:
            for channel, value in enumerate(pixel):
                expected[channel, int(value) * COLOR_BINS // 256] += 1
        np.testing.assert_array_equal(counts[label], expected.ravel())


@settings(max_examples=40, deadline=None)
@given(label_images, st.integers(1, 4))
def test_statistics_of_merged_components_equal_those_of_their_pixels(
    case: tuple[int, int, int, int], wanted: int
) -> None:
    labels, width, count = labeled(case)
    raw = np.random.default_rng(case[3] + 1).integers(0, wanted, count)
    found, numbers = np.unique(raw, return_inverse=True)
    region = numbers.astype(np.uint32)
    merged = compose_labels(labels, region)
    np.testing.assert_array_equal(merged, region[labels])
    boxes = merge_extents(region, pixel_extents(labels, width, count), len(found))
    np.testing.assert_array_equal(boxes, pixel_extents(merged, width, len(found)))
    sizes = sum_sizes(region, np.bincount(labels).astype(np.int32), len(found))
    np.testing.assert_array_equal(sizes, np.bincount(merged))


def test_adjacency_without_edges_is_empty() -> None:
    none = np.zeros(0, np.uint32)
    assert adjacency(np.zeros(1, np.uint32), none, none, 1).shape == (0, 2)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30),
    st.lists(st.integers(0, 4), min_size=10, max_size=10),
)
@settings(deadline=None)
def test_adjacency_lists_each_pair_once_in_order(
    edges: list[tuple[int, int]], region: list[int]
) -> None:
    ends = np.array(edges, np.uint32).reshape(-1, 2)
    pairs = adjacency(
        np.array(region, np.uint32),
        np.ascontiguousarray(ends[:, 0]),
        np.ascontiguousarray(ends[:, 1]),
        5,
    )
    expected = {tuple(sorted((region[a], region[b]))) for a, b in edges if region[a] != region[b]}
    assert [tuple(p) for p in pairs.tolist()] == sorted(expected)
