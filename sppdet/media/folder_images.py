"""The images of a folder or pattern, and a word on whatever else is there."""

from __future__ import annotations

import glob
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sppdet.core.errors import ImageError
from sppdet.core.images import IMAGE_SUFFIXES, SELECTED_SUFFIXES

# Suffixes that a note counts one by one.
MAX_SUFFIXES = 3


@dataclass(slots=True)
class Listing:
    """What a folder or pattern gives, and what of it is left out.

    Attributes:
        kind: what it is, for messages.
        images: files with the suffix of an image, links to nothing included.
        others: how many other files there are, by suffix.
        hidden: hidden files with the suffix of an image.
        folders: folders inside that were not looked into.
        links: links to folders, which are never followed.
        errors: folders inside that cannot be listed.
    """

    kind: str
    images: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    folders: int = 0
    links: int = 0
    errors: list[ImageError] = field(default_factory=list)

    def add(self, path: Path) -> None:
        """Take a file in, or count it."""
        suffix, is_hidden = path.suffix.lower(), path.name.startswith(".")
        if suffix not in SELECTED_SUFFIXES:
            self.others[suffix] += not is_hidden
        elif is_hidden:
            self.hidden += 1
        else:
            self.images.append(path)

    def checked(self, name: str) -> list[Path]:
        """Return the images, sorted; ImageError if there is nothing that can be said of one."""
        if self.images or self.errors:
            return sorted(self.images)
        if self.folders:
            hint = f"--recursive looks into {_count(self.folders, 'folder')} inside"
        else:
            suffixes = " ".join(sorted(IMAGE_SUFFIXES))
            hint = f"name one with image files ({suffixes})"
        raise ImageError(f"{self.kind} no images", path=name, hint=hint)

    def note(self, name: str) -> str:
        """Say in a line what is left out; empty if nothing is."""
        parts = []
        others = sum(self.others.values())
        if others:
            most = [(n, suffix) for suffix, n in self.others.most_common(MAX_SUFFIXES) if n]
            named = ", ".join(f"{n} {suffix or 'without suffix'}" for n, suffix in most)
            rest = others - sum(n for n, _ in most)
            more = f", {rest} more" if rest else ""
            parts.append(f"{_count(others, 'file')} of other kinds ({named}{more})")
        if self.hidden:
            parts.append(_count(self.hidden, "hidden image"))
        if self.folders:
            parts.append(f"{_count(self.folders, 'folder')} inside (--recursive looks into them)")
        if self.links:
            parts.append(_count(self.links, "link") + " to folders")
        return f"{name}: left out: {', '.join(parts)}" if parts else ""


def list_folder(folder: Path, *, recursive: bool) -> Listing:
    """List a folder's images; with `recursive`, those of the folders inside, at any depth.

    Raises:
        OSError: it cannot be listed.
    """
    listing = Listing("the folder holds")
    waiting = _add_folder(listing, folder, recursive)
    while waiting:
        inner = waiting.pop()
        try:
            waiting += _add_folder(listing, inner, recursive)
        except OSError as error:
            problem, hint = f"cannot be read ({error.strerror})", "change its permissions"
            listing.errors.append(ImageError(problem, path=inner, hint=hint))
    return listing


def _add_folder(listing: Listing, folder: Path, recursive: bool) -> list[Path]:
    """Take in what lies directly in a folder; return the folders that are to be listed next."""
    inner = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir():
                listing.add(folder / entry.name)
            elif entry.name.startswith("."):
                continue
            elif not recursive:
                listing.folders += 1
            elif entry.is_symlink():
                listing.links += 1
            else:
                inner.append(folder / entry.name)
    return inner


def list_matches(pattern: str) -> Listing:
    """List the images that a glob pattern matches; `**` stands for folders at any depth."""
    listing = Listing("matches")
    for name in glob.iglob(pattern, recursive=True):  # noqa: PTH207
        path = Path(name)
        if not path.is_dir():
            listing.add(path)
        elif "**" not in pattern:
            listing.folders += 1
    return listing


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
