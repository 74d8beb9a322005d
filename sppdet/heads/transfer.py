"""A trained head's layers, taken over by a head for other classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sppdet.heads.head import RegionHead

# Layers whose shape follows from the classes, or from whether fc6 is factorized.
CLASS_LAYERS, FC6 = ("cls_score.", "bbox_pred."), ("fc6.", "fc6_in.")


def same_classes(known: Sequence[str], wanted: Sequence[str]) -> list[int | None]:
    """Find the place in `known` of each of the wanted classes, None where it is not there.

    Names are compared trimmed and in any case; of several known ones the first counts.
    """
    places = {_plain(name): place for place, name in reversed(list(enumerate(known)))}
    return [places.get(_plain(name)) for name in wanted]


def whole_fc6(head: RegionHead) -> tuple[Tensor, Tensor]:
    """Weight `(fc6, dim)` and bias `(fc6,)` of fc6 as one matrix, its factors multiplied."""
    outer, inner = head.fc6, head.fc6_in
    if inner is None:
        return outer.weight, outer.bias
    weight, bias = outer.weight.double(), outer.bias.double()
    return (weight @ inner.weight.double()).float(), (weight @ inner.bias.double() + bias).float()


@torch.no_grad()
def take_layers(
    head: RegionHead, classes: Sequence[str], source: RegionHead, source_classes: Sequence[str]
) -> None:
    """Copy a trained head's layers into `head`, which is of the same widths and not factorized.

    Of the class layers, the rows of the background and of classes of the same name are copied.
    The other classes' scores stay as they are, and their box deltas begin as the mean over all
    of the source's classes.

    Invariant: features of both heads are equal up to the rounding of fc6's product.
    """
    own = head.state_dict()
    for name, value in source.state_dict().items():
        if not name.startswith((*CLASS_LAYERS, *FC6)):
            own[name].copy_(value)
    weight, bias = whole_fc6(source)
    head.fc6.weight.copy_(weight)
    head.fc6.bias.copy_(bias)
    places = same_classes(source_classes, classes)
    for mine, theirs in (
        (head.cls_score.weight, source.cls_score.weight),
        (head.cls_score.bias, source.cls_score.bias),
    ):
        mine[0] = theirs[0]
        for row, place in enumerate(places):
            if place is not None:
                mine[row + 1] = theirs[place + 1]
    for mine, theirs in (
        (head.bbox_pred.weight, source.bbox_pred.weight),
        (head.bbox_pred.bias, source.bbox_pred.bias),
    ):
        deltas = theirs.reshape(-1, 4, *theirs.shape[1:])
        mean = deltas.mean(dim=0)
        for row, place in enumerate(places):
            mine[4 * row : 4 * row + 4] = mean if place is None else deltas[place]


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()
