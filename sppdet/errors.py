"""Typed errors. Each says what is wrong, with which file, and how to mend it, in one line."""

from __future__ import annotations

from pathlib import Path


class SppdetError(Exception):
    """An error a user can mend. `str()` is one line: `<where>: <problem>; <mend>`."""

    def __init__(self, problem: str, *, where: str | Path | None = None, mend: str = "") -> None:
        self.problem = problem
        self.where = None if where is None else str(where)
        self.mend = mend
        prefix = "" if self.where is None else f"{self.where}: "
        suffix = f"; {mend}" if mend else ""
        super().__init__(" ".join(f"{prefix}{problem}{suffix}".split()))


class ImageError(SppdetError):
    """An image is missing, unreadable, of a refused format, or too large."""


class AnnotationError(SppdetError):
    """An annotation file is malformed, or holds a box or class that cannot be."""


class DatasetError(SppdetError):
    """A data set folder, split or class list is missing or inconsistent."""


class ConfigError(SppdetError):
    """A configuration key or value is unknown or out of range."""


class ProposalError(SppdetError):
    """A proposal source was asked for something it cannot give."""


class ModelFormatError(SppdetError):
    """A model file is truncated, corrupt, of another version, or not a model."""


class TrainingError(SppdetError):
    """Training cannot start or go on; what was reached so far is saved."""


class EvaluationError(SppdetError):
    """Detections and ground truth do not fit each other."""
