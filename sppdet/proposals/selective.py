"""Selective search (Uijlings et al., IJCV 2013): regions of many segmentations, grouped bottom-up.

The image is shrunk to a fixed area, so the cost does not grow with its size. Each colour space
gives one graph, each scale one segmentation of it, each similarity one hierarchy; the boxes of
all regions of all hierarchies, without duplicates and in a useful order, are the proposals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sppdet.proposals import grouping, ranking, regions, segmentation, views
from sppdet.types import FloatArray, ImageArray

Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]
UInt32 = NDArray[np.uint32]


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
    area=70_000,
    spaces=(
        Space("hsv", (60, 100, 170, 290, 500)),
        Space("lab", (30, 50, 85, 145, 250)),
        Space("rgb", (60, 100, 170, 290, 500)),
        Space("luv", (60, 100, 170, 290, 500)),
        Space("yuv", (30, 50, 85, 145, 250)),
    ),
    min_size=24,
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
    out = _to_image(boxes[ranking.ranked(boxes, priority)], size, (width, height), min_side)
    return out[: max_proposals or None]


# Stand for what the first scale gives.
_NO_LABELS = np.zeros(0, np.uint32)
_NO_BOXES = np.zeros((0, 4), np.int32)


def _owned(image: ImageArray) -> UInt8:
    """The image as a writable C-ordered array: kernels are compiled for this layout alone."""
    if image.flags.c_contiguous and image.flags.writeable:
        return image
    return np.array(image, dtype=np.uint8, order="C")


class _Layer(NamedTuple):
    """One segmentation. Pixel i lies in region `region[labels[i]]`."""

    labels: UInt32
    region: UInt32
    sizes: Int32
    boxes: Int32
    pairs: Int32


def _layers(planes: Int32, scales: Sequence[int], min_size: int) -> Iterator[_Layer]:
    """The segmentations of one smoothed view, one a scale."""
    height, width = planes.shape[1:]
    start, end, weight = segmentation.grid_edges(planes)
    sizes, inner = np.ones(height * width, np.int32), np.zeros(height * width, np.int32)
    # Pixels are looked at once: `labels` are the components of the first scale, `numbers` what
    # became of those, `extents` the boxes of the present components.
    labels = numbers = np.arange(0, dtype=np.uint32)
    extents = np.empty((0, 4), np.int32)
    for index, scale in enumerate(scales):
        renumbered, sizes, inner, start, end, weight = segmentation.join(
            start, end, weight, sizes, inner, segmentation.WEIGHT_SCALE * scale
        )
        if index == 0:
            labels, numbers = renumbered, np.arange(len(sizes), dtype=np.uint32)
            extents = regions.pixel_extents(labels, width, len(sizes))
        else:
            numbers = regions.compose(numbers, renumbered)
            extents = regions.merge_extents(renumbered, extents, len(sizes))
        region, count = segmentation.absorb_small(start, end, sizes, min_size)
        yield _Layer(
            labels,
            regions.compose(numbers, region),
            regions.sum_sizes(region, sizes, count),
            regions.merge_extents(region, extents, count),
            regions.adjacency(region, start, end, count),
        )


def _hierarchies(small: UInt8, space: Space, min_size: int, texture: bool) -> list[Int32]:
    """Boxes of each hierarchy of one colour space, `int32 (M, 4)`, first regions first.

    Each segmentation is grouped twice: by all similarities, and by all but colour.
    """
    view = views.convert(small, space.name)
    planes = segmentation.smooth(view)
    area = view.shape[0] * view.shape[1]
    colours = regions.colour_bins(view)
    textures = regions.texture_bins(planes) if texture else None
    found: list[Int32] = []
    for layer in _layers(planes, space.scales, min_size):
        count = len(layer.sizes)
        histograms = regions.histograms(
            layer.labels, layer.region, colours, 3 * regions.COLOUR_BINS, count
        )
        rest, weight = histograms, 0
        if textures is not None:
            rest, weight = (
                regions.histograms(
                    layer.labels, layer.region, textures, 3 * regions.TEXTURE_BINS, count
                ),
                1,
            )
            histograms = np.concatenate([histograms, rest], axis=1)
        for counts, share in ((histograms, 1), (rest, weight)):
            merged, _ = grouping.group(layer.sizes, layer.boxes, counts, layer.pairs, share, area)
            found.append(merged)
    return found


def _to_image(
    boxes: Int32, size: tuple[int, int], image_size: tuple[int, int], min_side: int
) -> FloatArray:
    """Boxes in a view of `size` (width, height), put in pixels of the image; small ones left out.

    Rounding keeps boxes apart, as a view is never larger than its image.
    """
    scale = np.array([image_size[0] / size[0], image_size[1] / size[1]] * 2)
    out = np.rint(boxes * scale).astype(np.float32)
    large = np.minimum(out[:, 2] - out[:, 0], out[:, 3] - out[:, 1]) >= min_side
    return out[large] if large.any() else np.array([[0, 0, *image_size]], np.float32)
