"""Typed errors: each names the problem, the file and the remedy in one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

# Unusable images that an error names.
MAX_NAMED_IMAGES = 5


class SppdetError(Exception):
    """An error that a user can fix. `str()` is one line: `<path>: <message>; <hint>`."""

    def __init__(self, message: str, *, path: str | Path | None = None, hint: str = "") -> None:
        self.message = message
        self.path = None if path is None else str(path)
        self.hint = hint
        prefix = "" if self.path is None else f"{self.path}: "
        suffix = f"; {hint}" if hint else ""
        super().__init__(" ".join(f"{prefix}{message}{suffix}".split()))


class ImageError(SppdetError):
    """An image is missing, unreadable, of a refused format, or too large."""


class AnnotationError(SppdetError):
    """An annotation file is malformed, or holds a box or class that cannot be."""


class DatasetError(SppdetError):
    """A data set folder, split or class list is missing or inconsistent."""


class ConfigError(SppdetError):
    """A configuration key or value is unknown or out of range."""


class ModelFormatError(SppdetError):
    """A model file is truncated, corrupt, of another version, or not a model."""


class TrainingError(SppdetError):
    """Training cannot start or go on; what was reached so far is saved."""


class EvaluationError(SppdetError):
    """Detections and ground truth do not fit each other."""


def raise_for_images(errors: Sequence[SppdetError], count: int) -> None:
    """Raise one TrainingError that names the unusable ones of `count` images, if there are any."""
    if errors:
        named = "; ".join(str(error) for error in errors[:MAX_NAMED_IMAGES])
        rest = len(errors) - MAX_NAMED_IMAGES
        more = f"; and {rest} more" if rest > 0 else ""
        raise TrainingError(
            f"{len(errors)} of {count} images cannot be used: {named}{more}",
            hint="repair them or take them out of the data set",
        )
