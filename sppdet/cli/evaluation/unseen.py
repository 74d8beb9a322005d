"""Images to evaluate on that a model has not seen, and a warning where it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sppdet.cli.common import warn
from sppdet.cli.dataset import DataSource, OpenData


def open_unseen(
    data: DataSource, model: str | None, preferred: Sequence[str] | None = None
) -> OpenData:
    """Read the annotations; choose `val`, else `test`, else what was held out of the training.

    `preferred` are other splits to choose from.
    """
    from sppdet.datasets.splits import EVALUATION_SPLITS, HELD_OUT_FILE, select_images

    opened = data.open(EVALUATION_SPLITS if preferred is None else preferred)
    held_out = None if model is None else Path(model).parent / HELD_OUT_FILE
    if opened.is_chosen and opened.split is None and held_out is not None and held_out.is_file():
        from sppdet.core.errors import DatasetError

        try:
            select_images(opened.raw, str(held_out))
        except DatasetError:  # another data set's
            return opened
        return replace(opened, split=str(held_out))
    return opened


def warn_of_training_images(model: str, opened: OpenData) -> None:
    """Warn if one of the model's networks, or an added class, learned from the data set."""
    from sppdet.datasets.splits import HELD_OUT_FILE
    from sppdet.detection.model_zoo import training_datasets

    name, split = opened.raw.name, opened.split
    if split is not None and Path(split).name == HELD_OUT_FILE:
        return
    for trained in training_datasets(model):
        base, _, part = trained.partition(",")[0].partition(name)
        if base or (part and not part.startswith(" ")):
            continue
        part = part.strip()
        parts = ("train", "val", "trainval") if part == "trainval" else (part,)
        if not part or split is None or split in parts or part.startswith("without "):
            shown = f"{name} {split}" if split is not None else name
            warn(f"{model} was trained on {trained}: figures on {shown} say nothing of new images")
