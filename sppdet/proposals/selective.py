"""Selective search (Uijlings et al., IJCV 2013): regions of many segmentations, grouped bottom-up.

The image is shrunk to a fixed area, so the cost does not grow with its size. Each colour space
gives one graph, each scale one segmentation of it, each similarity one hierarchy; the boxes of
all regions of all hierarchies, without duplicates and in a useful order, are the proposals.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sppdet.proposals import grouping, ranking, regions, segmentation, views
from sppdet.types import FloatArray, ImageArray

Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Space:
    """A colour space and the segmentation scales k used in it, ascending."""

    name: str
    scales: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which segmentations to make. Scales and sizes are for an image of `area` pixels."""

    area: int
    spaces: tuple[Space, ...]
    min_size: int


FAST = Plan(
    area=30_000,
    spaces=(Space("hsv", (80, 160, 320)), Space("lab", (40, 80, 160))),
    min_size=16,
)
QUALITY = Plan(
    area=40_000,
    spaces=(
        Space("hsv", (30, 60, 120, 240)),
        Space("lab", (15, 30, 60, 120)),
        Space("rgb", (30, 60, 120, 240)),
        Space("luv", (30, 60, 120, 240)),
        Space("hls", (30, 60, 120, 240)),
    ),
    min_size=18,
)


def selective_search(
    image: ImageArray,
    plan: Plan = FAST,
    *,
    texture: bool = False,
    min_side: int = 12,
    max_proposals: int = 0,
    seed: int = 0,
    executor: Executor | None = None,
) -> FloatArray:
    """`float32 (N, 4)` proposals of an RGB image, best first; x1 y1 x2 y2, original pixels.

    At least one box, all within the image, whole numbers, no two alike; the same for the same
    arguments, whatever `executor` (which may run the colour spaces at the same time). Boxes
    narrower or lower than `min_side` pixels are left out; should none remain, the whole image is
    the one proposal. `max_proposals` cuts the list (0: all of it). `texture` adds the paper's
    texture similarity in a simplified form (slower, and measured to help nothing).
    """
    height, width = image.shape[:2]
    size = views.working_size(width, height, plan.area)
    small = _owned(image)
    if size != (width, height):
        small = views.shrink(small, *size)
    jobs = [(small, space, plan.min_size, texture) for space in plan.spaces]
    run = map if executor is None else executor.map
    found = [boxes for group in run(_hierarchies, *zip(*jobs, strict=True)) for boxes in group]
    order = [ranking.priorities(len(boxes), seed, i) for i, boxes in enumerate(found)]
    boxes, priority = np.concatenate(found), np.concatenate(order)
    best = ranking.unique_best(boxes, priority)
    best = best[np.argsort(priority[best], kind="stable")]
    return _to_image(boxes[best], size, (width, height), min_side, max_proposals)


# Stand for what the first scale gives.
_NO_LABELS = np.zeros(0, np.uint32)
_NO_BOXES = np.zeros((0, 4), np.int32)


def _owned(image: ImageArray) -> UInt8:
    """The image as a writable C-ordered array: kernels are compiled for this layout alone."""
    if image.flags.c_contiguous and image.flags.writeable:
        return image
    return np.array(image, dtype=np.uint8, order="C")


def _hierarchies(small: UInt8, space: Space, min_size: int, texture: bool) -> list[Int32]:
    """Boxes of each hierarchy of one colour space, `int32 (M, 4)`, first regions first."""
    view = views.convert(small, space.name)
    height, width = view.shape[:2]
    planes = segmentation.smooth(view)
    start, end, weight = segmentation.grid_edges(planes)
    sizes = np.ones(height * width, np.int32)
    inner = np.zeros(height * width, np.int32)
    bins, n_bins = regions.colour_bins(view), 3 * regions.COLOUR_BINS
    found: list[Int32] = []
    labels, numbers, extents = _NO_LABELS, _NO_LABELS, _NO_BOXES
    for number, scale in enumerate(space.scales):
        renumbered, sizes, inner, start, end, weight = segmentation.join(
            start, end, weight, sizes, inner, segmentation.WEIGHT_SCALE * scale
        )
        if number == 0:
            labels = renumbered
            numbers = np.arange(len(sizes), dtype=np.uint32)
            extents = regions.pixel_extents(labels, width, len(sizes))
        else:
            numbers = regions.compose(numbers, renumbered)
            extents = regions.merge_extents(renumbered, extents, len(sizes))
        region, count = segmentation.absorb_small(start, end, sizes, min_size)
        counts = regions.histograms(labels, regions.compose(numbers, region), bins, n_bins, count)
        pixels = regions.sum_sizes(region, sizes, count)
        boxes = regions.merge_extents(region, extents, count)
        pairs = regions.adjacency(region, start, end, count)
        for weight_colour in (1, 0):
            merged, _ = grouping.group(pixels, boxes, counts, pairs, weight_colour, height * width)
            found.append(merged)
    return found


def _to_image(
    boxes: Int32,
    size: tuple[int, int],
    image_size: tuple[int, int],
    min_side: int,
    max_proposals: int,
) -> FloatArray:
    """Boxes of the small image in whole pixels of the original, without the narrow ones."""
    scale = np.array([image_size[0] / size[0], image_size[1] / size[1]] * 2)
    out: FloatArray = np.rint(boxes * scale).astype(np.float32)
    large = np.minimum(out[:, 2] - out[:, 0], out[:, 3] - out[:, 1]) >= min_side
    out = out[large]
    if len(out) == 0:
        out = np.array([[0, 0, *image_size]], np.float32)
    return out[:max_proposals] if max_proposals else out
