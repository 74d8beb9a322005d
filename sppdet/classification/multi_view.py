"""Multi-view testing of an image (He et al. 2014, sec. 3.1.4 and 3.3).

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

from sppdet.classification.network import ClassificationNetwork
from sppdet.classification.transforms import center_crop, flip_input, to_input
from sppdet.core.errors import ConfigError
from sppdet.core.types import FloatArray, ImageArray, IntArray

ViewSet = Literal["center", "ten-crop", "ten-map", "full", "multi", "multi-full"]
VIEW_SETS: tuple[ViewSet, ...] = get_args(ViewSet)

PAPER_SIDE = 224
# Short side of the image that crops, and the view of the whole image, are taken from.
PAPER_SCALE = 256
PAPER_SCALES = (224, 256, 300, 360, 448, 560)


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """Views pooled from the map of an image at one scale; flipped ones come with them.

    Attributes:
        scale: short side of the image in pixels.
        windows: the center and four `corners`, or a `grid`: also the middles of the sides.
        full: also the whole map.
    """

    scale: int
    windows: Literal["corners", "grid"] = "grid"
    full: bool = False


def predict(
    network: ClassificationNetwork, image: ImageArray, views: ViewSet = "full"
) -> FloatArray:
    """Average the softmax over an image's views: `float32 (K,)` class probabilities.

    Args:
        network: in evaluation mode.
        image: RGB, `uint8 (H, W, 3)`.
        views: `center`: one crop. `ten-crop`: four corners and the center, and their mirror
            images, each run on its own; `ten-map`: the same, pooled from maps. `full`: the whole
            image. `multi`: 96 views of six scales from maps; `multi-full`: two of the whole image
            besides.

    Raises ConfigError for views that do not exist, SppdetError where a plain network, which takes
    one size, is asked for the whole image.
    """
    with torch.inference_mode():
        probabilities = view_logits(network, image, views).softmax(dim=1).mean(dim=0)
    return np.asarray(probabilities.cpu().numpy())


def view_logits(network: ClassificationNetwork, image: ImageArray, views: ViewSet) -> Tensor:
    """Compute `float32 (V, K)` logits, one row per view; arguments and errors as for `predict`."""
    if views not in VIEW_SETS:
        raise ConfigError(
            f"there are no views {views!r}", hint=f"use one of {', '.join(VIEW_SETS)}"
        )
    scale = scale_to_side(PAPER_SCALE, network.input_side)
    if views == "full":
        return network.forward(_input(network, image, scale))
    if views == "ten-map":
        return map_logits(network, image, (ViewPlan(scale, "corners"),))
    if views in ("multi", "multi-full"):
        return map_logits(network, image, plan_multi_view(network, views == "multi-full"))
    return crop_logits(network, image, scale, only_center=views == "center")


def scale_to_side(scale: int, side: int) -> int:
    """Convert a scale of the paper to another input side than 224, rounded half up."""
    return (2 * scale * side + PAPER_SIDE) // (2 * PAPER_SIDE)


def plan_multi_view(network: ClassificationNetwork, full: bool) -> tuple[ViewPlan, ...]:
    """Plan the paper's 96 views of six scales, with `full` those of the whole image."""
    side = network.input_side
    return tuple(
        ViewPlan(scale_to_side(scale, side), "grid", full and scale == PAPER_SCALE)
        for scale in PAPER_SCALES
    )


def view_boxes(width: int, height: int, side: int, *, corners: bool = False) -> FloatArray:
    """Squares `float32 (N, 4)` `x1 y1 x2 y2` in a resized image, half-open pixels.

    Nine: first, middle and last along each side; where the short side is the view's, three along
    the long one (the paper's 18 and 6 views, without mirror images). With `corners`, the four
    corners and, last, the center. An image no longer than wide has all three in one place.

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
    boxes: FloatArray, network: ClassificationNetwork, height: int, width: int
) -> IntArray:
    """Half-open cells `int64 (N, 4)` of a map of `height` x `width`, one window per view.

    A window has as many cells as a crop's map, from where the crop's first cell would be, to the
    nearest. Invariant: a view that begins at a multiple of the stride has exactly the cells that
    the map of its crop has, where the map does not end before.
    """
    side = network.map_side
    first = np.floor(boxes[:, :2].astype(np.float64) / network.geometry.stride + 0.5)
    first = np.clip(first.astype(np.int64), 0, np.array([width - side, height - side]))
    return np.concatenate([first, first + side], axis=1)


def map_logits(
    network: ClassificationNetwork, image: ImageArray, plan: Sequence[ViewPlan]
) -> Tensor:
    """Compute `float32 (V, K)` logits of the planned views, each scale's pooled from two maps.

    In order: scale by scale the windows of the image, those of its mirror image, and then both
    whole images. The fully connected layers take all views at once.
    """
    pooled: list[Tensor] = []
    for views in plan:
        x = with_flip(_input(network, image, views.scale))
        maps = network.conv_map(x)
        boxes = view_boxes(
            x.shape[3], x.shape[2], network.input_side, corners=views.windows == "corners"
        )
        windows = view_windows(boxes, network, maps.shape[2], maps.shape[3])
        pooled += [network.pool_windows(each, windows) for each in maps]
        if views.full:
            pooled.append(network.pool(maps))
    return network.head(torch.cat(pooled))


def crop_logits(
    network: ClassificationNetwork, image: ImageArray, scale: int, *, only_center: bool = False
) -> Tensor:
    """Compute `float32 (1 or 10, K)` logits of the center, or of ten crops."""
    x, side = _input(network, image, scale), network.input_side
    if only_center:
        return network.forward(center_crop(x, side))
    boxes = view_boxes(x.shape[3], x.shape[2], side, corners=True).astype(np.int64)
    return network.forward(torch.cat([crop_views(each, boxes) for each in with_flip(x)]))


def crop_views(x: Tensor, boxes: IntArray) -> Tensor:
    """Cut the squares `int64 (N, 4)` out of one image `(C, h, w)`: `(N, C, side, side)`."""
    return torch.stack([x[:, y1:y2, x1:x2] for x1, y1, x2, y2 in boxes.tolist()])


def with_flip(x: Tensor) -> Tensor:
    """Stack an image `(1, C, h, w)` and its mirror image: `(2, C, h, w)`."""
    return torch.cat([x, flip_input(x)])


def _input(network: ClassificationNetwork, image: ImageArray, scale: int) -> Tensor:
    device = next(network.parameters()).device
    return to_input(network.backbone, image, scale).to(device)
