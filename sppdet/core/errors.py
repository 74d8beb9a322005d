"""Typed errors: each names the problem, the file and the remedy in one line."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path

# Unusable images that an error names.
MAX_NAMED_IMAGES = 5
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


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


class VideoError(SppdetError):
    """A video or camera cannot be opened or ends early, or a video cannot be written."""


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


class OutputError(SppdetError):
    """A result cannot be written: no space, no permission, something else in its place.

    Attributes:
        is_full: whether the disk is full, so that nothing else can be written either.
    """

    is_full = False

    @classmethod
    def of(cls, error: OSError, path: str | Path | None = None) -> OutputError:
        """Describe what the system said, with the remedy; of `error`'s own file if none is given.

        Also used for files that cannot be read, where a command has no better words.
        """
        code = error.errno or 0
        problem = os.strerror(code) if code in _REMEDIES else error.strerror or str(error)
        made = cls(problem, path=path or error.filename, hint=_REMEDIES.get(code, ""))
        made.is_full = code in _FULL
        return made


_FULL = (errno.ENOSPC, errno.EDQUOT)
_ELSEWHERE = "change its permissions, or name another place"
_REMEDIES = {
    **dict.fromkeys(_FULL, "free some space, then give the same command again"),
    errno.EACCES: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE,
    errno.EROFS: "name a place that can be written",
    errno.EISDIR: "name a file, not a folder",
    errno.EEXIST: "a file is where a folder has to be: name another place",
    errno.ENOTDIR: "one of its folders is a file: name another place",
    errno.ENAMETOOLONG: "name a shorter one",
    errno.EMFILE: "raise the limit: ulimit -n 4096",
    errno.EFBIG: "name a place that holds larger files",
}


def printable(text: str) -> str:
    """Escape what would steer a terminal: control characters, but for line ends and tabs.

    Names of classes and files come from other people.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


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


def count_noun(number: object, one: str, many: str = "") -> str:
    """Count things in words: "1 image", "2 images"; `many` is the plural where it is irregular."""
    return f"{number} {one if number == 1 else many or one + 's'}"
