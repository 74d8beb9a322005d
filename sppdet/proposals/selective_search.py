"""Selective search (Uijlings et al., IJCV 2013): regions of many segmentations, grouped bottom-up.

The image is shrunk to a fixed area, so the cost does not grow with its size. Each color space
gives one graph, each scale one segmentation of it, each similarity one hierarchy; the boxes of
all regions of all hierarchies, without duplicates and in a useful order, are the proposals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from sppdet.core.jit import register_warm_up
from sppdet.core.types import FloatArray, ImageArray, Int32Array, UInt8Array, UInt32Array
from sppdet.proposals.color_spaces import convert_color, resized_shape, shrink
from sppdet.proposals.grouping import group
from sppdet.proposals.ranking import priorities, rank_boxes
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
from sppdet.proposals.segmentation import WEIGHT_SCALE, absorb_small, grid_edges, join, smooth


@dataclass(frozen=True, slots=True)
class ColorSpace:
    """A color space and the segmentation scales k used in it, ascending."""

    name: str
    scales: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """Segmentations to make. Scales and sizes are for an image of `area` pixels."""

    area: int
    spaces: tuple[ColorSpace, ...]
    min_size: int


FAST = SearchPlan(
    area=30_000,
    spaces=(ColorSpace("hsv", (80, 160, 320)), ColorSpace("lab", (40, 80, 160))),
    min_size=16,
)
QUALITY = SearchPlan(
    area=70_000,
    spaces=(
        ColorSpace("hsv", (60, 100, 170, 290, 500)),
        ColorSpace("lab", (30, 50, 85, 145, 250)),
        ColorSpace("rgb", (60, 100, 170, 290, 500)),
        ColorSpace("luv", (60, 100, 170, 290, 500)),
        ColorSpace("yuv", (30, 50, 85, 145, 250)),
    ),
    min_size=24,
)


def selective_search(
    image: ImageArray,
    plan: SearchPlan = FAST,
    *,
    min_side: int = 12,
    max_proposals: int = 0,
    seed: int = 0,
) -> FloatArray:
    """Propose boxes `float32 (N, 4)` of an RGB image, best first; x1 y1 x2 y2, original pixels.

    At least one box, all within the image, whole numbers, no two alike; the same for the same
    arguments. Boxes narrower or lower than `min_side` pixels are left out; should none remain,
    the whole image is the one proposal. `max_proposals` cuts the list (0: all of it).
    """
    height, width = image.shape[:2]
    size = resized_shape(width, height, plan.area)
    small = _owned(image)
    if size != (width, height):
        small = shrink(small, *size)
    hierarchies = [
        boxes for space in plan.spaces for boxes in _hierarchies(small, space, plan.min_size)
    ]
    order = [priorities(len(boxes), seed, i) for i, boxes in enumerate(hierarchies)]
    boxes, priority = np.concatenate(hierarchies), np.concatenate(order)
    out = _to_image(boxes[rank_boxes(boxes, priority)], size, (width, height), min_side)
    return out[: max_proposals or None]


@register_warm_up
def _warm_up() -> None:
    image = (np.indices((48, 48)).sum(axis=0) % 7 * 36).astype(np.uint8)
    selective_search(np.stack([image] * 3, axis=2), replace(FAST, area=1000))


def _owned(image: ImageArray) -> UInt8Array:
    """Return the image writable and C-ordered: kernels are compiled for this layout alone."""
    if image.flags.c_contiguous and image.flags.writeable:
        return image
    return np.array(image, dtype=np.uint8, order="C")


class Segmentation(NamedTuple):
    """A segmentation: pixel i lies in region `region[labels[i]]`."""

    labels: UInt32Array
    region: UInt32Array
    sizes: Int32Array
    boxes: Int32Array
    pairs: Int32Array


def _segmentations(
    planes: Int32Array, scales: Sequence[int], min_size: int
) -> Iterator[Segmentation]:
    """Compute the segmentations of one smoothed color space, one per scale."""
    height, width = planes.shape[1:]
    start, end, weight = grid_edges(planes)
    sizes, inner = np.ones(height * width, np.int32), np.zeros(height * width, np.int32)
    # Pixels are read once: `labels` are the components of the first scale, `numbers` what
    # became of those, `extents` the boxes of the present components.
    labels = numbers = np.arange(0, dtype=np.uint32)
    extents = np.empty((0, 4), np.int32)
    for index, scale in enumerate(scales):
        renumbered, sizes, inner, start, end, weight = join(
            start, end, weight, sizes, inner, WEIGHT_SCALE * scale
        )
        if index == 0:
            labels, numbers = renumbered, np.arange(len(sizes), dtype=np.uint32)
            extents = pixel_extents(labels, width, len(sizes))
        else:
            numbers = compose_labels(numbers, renumbered)
            extents = merge_extents(renumbered, extents, len(sizes))
        region, count = absorb_small(start, end, sizes, min_size)
        yield Segmentation(
            labels,
            compose_labels(numbers, region),
            sum_sizes(region, sizes, count),
            merge_extents(region, extents, count),
            adjacency(region, start, end, count),
        )


def _hierarchies(small: UInt8Array, space: ColorSpace, min_size: int) -> Iterator[Int32Array]:
    """Boxes of each hierarchy of one color space, `int32 (M, 4)`, first regions first.

    Each segmentation is grouped twice: by all similarities, and by all but color.
    """
    pixels = convert_color(small, space.name)
    area, bins = pixels.shape[0] * pixels.shape[1], color_bins(pixels)
    for found in _segmentations(smooth(pixels), space.scales, min_size):
        counts = histograms(found.labels, found.region, bins, 3 * COLOR_BINS, len(found.sizes))
        for weight in (1, 0):
            yield group(found.sizes, found.boxes, counts, found.pairs, weight, area)


def _to_image(
    boxes: Int32Array, size: tuple[int, int], image_size: tuple[int, int], min_side: int
) -> FloatArray:
    """Scale boxes of an image shrunk to `size` to original pixels, leaving out small ones.

    Rounding keeps boxes apart, as images are never enlarged.
    """
    scale = np.array([image_size[0] / size[0], image_size[1] / size[1]] * 2)
    out = np.rint(boxes * scale).astype(np.float32)
    large = np.minimum(out[:, 2] - out[:, 0], out[:, 3] - out[:, 1]) >= min_side
    return out[large] if large.any() else np.array([[0, 0, *image_size]], np.float32)
