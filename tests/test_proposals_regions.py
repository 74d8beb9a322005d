from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sppdet.proposals.regions import (
    COLOUR_BINS,
    TEXTURE_BINS,
    adjacency,
    colour_bins,
    compose,
    histograms,
    merge_extents,
    pixel_extents,
    sum_sizes,
    texture_bins,
)
from sppdet.proposals.segmentation import smooth

Labels = NDArray[np.uint32]
label_images = st.tuples(
    st.integers(1, 7), st.integers(1, 7), st.integers(1, 5), st.integers(0, 99)
)


def labelled(case: tuple[int, int, int, int]) -> tuple[Labels, int, int]:
    """Random labels of a height x width image, all of 0 .. count - 1 present; width, count."""
    height, width, wanted, seed = case
    raw = np.random.default_rng(seed).integers(0, wanted, height * width)
    found, labels = np.unique(raw, return_inverse=True)
    return labels.astype(np.uint32), width, len(found)


@settings(max_examples=40, deadline=None)
@given(label_images)
def test_extents_sizes_and_histograms_equal_plain_loops(case: tuple[int, int, int, int]) -> None:
    labels, width, count = labelled(case)
    rng = np.random.default_rng(case[3])
    image = rng.integers(0, 256, (len(labels) // width, width, 3), dtype=np.uint8)
    bins = colour_bins(image)
    identity = np.arange(count, dtype=np.uint32)
    boxes = pixel_extents(labels, width, count)
    counts = histograms(labels, identity, bins, 3 * COLOUR_BINS, count)
    for label in range(count):
        where = np.flatnonzero(labels == label)
        xs, ys = where % width, where // width
        assert boxes[label].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        expected = np.zeros((3, COLOUR_BINS), int)
        for pixel in image.reshape(-1, 3)[where]:
            for channel, value in enumerate(pixel):
                expected[channel, int(value) * COLOUR_BINS // 256] += 1
        np.testing.assert_array_equal(counts[label], expected.ravel())


@settings(max_examples=40, deadline=None)
@given(label_images, st.integers(1, 4))
def test_statistics_of_merged_components_equal_those_of_their_pixels(
    case: tuple[int, int, int, int], wanted: int
) -> None:
    labels, width, count = labelled(case)
    raw = np.random.default_rng(case[3] + 1).integers(0, wanted, count)
    found, numbers = np.unique(raw, return_inverse=True)
    region = numbers.astype(np.uint32)
    merged = compose(labels, region)
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


def test_texture_bins_tell_direction_and_strength() -> None:
    x = np.arange(16)
    ramp = np.repeat((x * 10).astype(np.uint8)[None, :, None], 16, axis=0).repeat(3, axis=2)
    rising, falling = texture_bins(smooth(ramp)), texture_bins(smooth(ramp[:, ::-1].copy()))
    upright = texture_bins(smooth(ramp.transpose(1, 0, 2).copy()))
    middle = 8 * 16 + 8
    directions = {bins[middle, 0] // 4 for bins in (rising, falling, upright)}
    assert len(directions) == 3
    flat = texture_bins(smooth(np.full((4, 4, 3), 90, np.uint8)))
    assert (flat == flat[0]).all()
    assert rising[middle, 0] % 4 > flat[0, 0] % 4
    for channel in range(3):
        low = TEXTURE_BINS * channel
        assert (rising[:, channel] >= low).all()
        assert (rising[:, channel] < low + TEXTURE_BINS).all()
