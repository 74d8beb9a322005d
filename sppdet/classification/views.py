"""Testing on many views of an image (He et al. 2014, sec. 3.1.4 and 3.3).

A view is a square of the network's input side in an image resized so that its short side is some
scale. Views are cut out of the image and run one by one, or they are windows pooled from the one
map of the whole resized image and the one of its mirror image. Scores are softmax probabilities
averaged over the views. The paper's scales are for an input side of 224; others are in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sppdet.classification.inputs import centre_crop, mirrored, resized
from sppdet.classification.networks import ClassificationNetwork
from sppdet.errors import ConfigError
from sppdet.projection import project
from sppdet.types import FloatArray, ImageArray, IntArray

Views = Literal["centre", "ten-crop", "ten-map", "full", "multi", "multi-full"]
# How a view finds its cells on a map. `crop`: as many as a crop's map has, from where the crop's
# first cell would be, to the nearest. `paper`: those whose centres lie inside the view (appendix
# A), at most borders one more a side. `release`: as the detector projects a box.
WindowRule = Literal["crop", "paper", "release"]
VIEWS: tuple[Views, ...] = get_args(Views)
WINDOW_RULES: tuple[WindowRule, ...] = get_args(WindowRule)

PAPER_SIDE = 224
# Short side of the image that crops, and the view of the whole image, are taken from.
PAPER_SCALE = 256
PAPER_SCALES = (224, 256, 300, 360, 448, 560)


@dataclass(frozen=True, slots=True)
class MapViews:
    """Which views are pooled from the map of an image at one scale; mirrored ones come with them.

    Attributes:
        scale: short side of the image in pixels.
        windows: none, the centre and four `corners`, or a `grid`: also the middles of the sides.
        full: also the whole map.
    """

    scale: int
    windows: Literal["none", "corners", "grid"] = "grid"
    full: bool = False


def predict(
    network: ClassificationNetwork,
    image: ImageArray,
    views: Views = "full",
    rule: WindowRule = "crop",
) -> FloatArray:
    """`float32 (K,)` class probabilities of an RGB image: softmax, averaged over the views.

    Args:
        network: in evaluation mode.
        image: `uint8 (H, W, 3)`.
        views: `centre`: one crop. `ten-crop`: four corners and the centre, and their mirror
            images, each run on its own; `ten-map`: the same, pooled from maps. `full`: the whole
            image. `multi`: 96 views of six scales from maps; `multi-full`: two of the whole image
            besides.
        rule: how views find their cells on a map.

    Raises ConfigError for views that do not exist, SppdetError where a plain network, which takes
    one size, is asked for the whole image.
    """
    with torch.inference_mode():
        probabilities = view_logits(network, image, views, rule).softmax(dim=1).mean(dim=0)
    return np.asarray(probabilities.cpu().numpy())


def view_logits(
    network: ClassificationNetwork, image: ImageArray, views: Views, rule: WindowRule = "crop"
) -> Tensor:
    """`float32 (V, K)` logits, one row a view; arguments and errors as for `predict`."""
    if views not in VIEWS or rule not in WINDOW_RULES:
        raise ConfigError(
            f"there are no views {views!r} by the rule {rule!r}",
            mend=f"use one of {', '.join(VIEWS)}, by {', '.join(WINDOW_RULES)}",
        )
    scale = proportional(PAPER_SCALE, network.input_side)
    if views == "full":
        return network.head(network.pool(conv_maps(network, image, scale, mirror=False)))
    if views == "ten-map":
        return map_logits(network, image, (MapViews(scale, "corners"),), rule)
    if views in ("multi", "multi-full"):
        return map_logits(network, image, multi_views(network, views == "multi-full"), rule)
    return crop_logits(network, image, scale, only_centre=views == "centre")


def proportional(scale: int, side: int) -> int:
    """A scale of the paper for networks of another input side than 224, rounded half up."""
    return (2 * scale * side + PAPER_SIDE) // (2 * PAPER_SIDE)


def multi_views(network: ClassificationNetwork, full: bool) -> tuple[MapViews, ...]:
    """The paper's 96 views of six scales for this network, with `full` those of the whole image."""
    side = network.input_side
    return tuple(
        MapViews(proportional(scale, side), "grid", full and scale == PAPER_SCALE)
        for scale in PAPER_SCALES
    )


def view_boxes(width: int, height: int, side: int, *, corners: bool = False) -> FloatArray:
    """`float32 (N, 4)` squares `x1 y1 x2 y2` in a resized image, half-open pixels.

    Nine: first, middle and last along each side; where the short side is the view's, three along
    the long one (the paper's 18 and 6 views, without mirror images). With `corners`, the four
    corners and, last, the centre. An image no longer than wide has all three in one place.

    Raises ValueError for a view larger than the image.
    """
    room = (width - side, height - side)
    if min(room) < 0:
        raise ValueError(f"a view of {side} pixels is larger than an image of {width} x {height}")
    if corners:
        starts = [(x, y) for y in (0, room[1]) for x in (0, room[0])]
        starts.append((room[0] // 2, room[1] // 2))
    else:
        xs = (0,) if room[0] == 0 < room[1] else (0, room[0] // 2, room[0])
        ys = (0,) if room[1] == 0 else (0, room[1] // 2, room[1])
        starts = [(x, y) for y in ys for x in xs]
    first = np.array(starts, np.float32)
    return np.concatenate([first, first + side], axis=1)


def view_windows(
    boxes: FloatArray, network: ClassificationNetwork, height: int, width: int, rule: WindowRule
) -> IntArray:
    """`int64 (N, 4)` half-open cells of a map of `height` x `width`, one window a view.

    Law: by the rule `crop`, a view that begins at a multiple of the stride has exactly the cells
    that the map of its crop has, where the map does not end before.
    """
    geometry, side = network.geometry, network.map_side
    if rule != "crop":
        return project(boxes, 1.0, 1.0, geometry, height, width, rule)
    first = np.floor(boxes[:, :2].astype(np.float64) / geometry.stride + 0.5).astype(np.int64)
    first = np.clip(first, 0, np.array([width - side, height - side]))
    return np.concatenate([first, first + side], axis=1)


def map_logits(
    network: ClassificationNetwork,
    image: ImageArray,
    plan: Sequence[MapViews],
    rule: WindowRule = "crop",
) -> Tensor:
    """`float32 (V, K)` logits of the planned views, each scale's pooled from two maps of it.

    In order: scale by scale the windows of the image, those of its mirror image, and then both
    whole images. The fully connected layers see all views at once.
    """
    pooled: list[Tensor] = []
    for views in plan:
        x = resized(network.backbone, image, views.scale)
        maps = network.conv_map(with_mirror(x).to(_device(network)))
        if views.windows != "none":
            boxes = view_boxes(
                x.shape[3], x.shape[2], network.input_side, corners=views.windows == "corners"
            )
            windows = view_windows(boxes, network, maps.shape[2], maps.shape[3], rule)
            pooled += [network.pool_windows(each, windows) for each in maps]
        if views.full:
            pooled.append(network.pool(maps))
    return network.head(torch.cat(pooled))


def crop_logits(
    network: ClassificationNetwork, image: ImageArray, scale: int, *, only_centre: bool = False
) -> Tensor:
    """`float32 (1 or 10, K)` logits of crops: the centre's, or corners', centre's and mirrored."""
    x = resized(network.backbone, image, scale).to(_device(network))
    side = network.input_side
    if only_centre:
        return network.forward(centre_crop(x, side))
    boxes = view_boxes(x.shape[3], x.shape[2], side, corners=True).astype(np.int64)
    return network.forward(torch.cat([crops(each, boxes) for each in with_mirror(x)]))


def crops(x: Tensor, boxes: IntArray) -> Tensor:
    """`(N, C, side, side)`: the squares `int64 (N, 4)` of one image `(C, h, w)`."""
    return torch.stack([x[:, y1:y2, x1:x2] for x1, y1, x2, y2 in boxes.tolist()])


def with_mirror(x: Tensor) -> Tensor:
    """`(2, C, h, w)`: an image `(1, C, h, w)` and its mirror image."""
    return torch.cat([x, mirrored(x)])


def conv_maps(
    network: ClassificationNetwork, image: ImageArray, scale: int, *, mirror: bool
) -> Tensor:
    """`float32 (1 or 2, C, h, w)`: the map of an image at a scale, and of its mirror image."""
    x = resized(network.backbone, image, scale)
    return network.conv_map((with_mirror(x) if mirror else x).to(_device(network)))


def _device(network: ClassificationNetwork) -> torch.device:
    return next(network.parameters()).device
