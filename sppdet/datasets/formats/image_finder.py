"""Where the images of an annotation file are: its names are tried in folders around it.

Annotation files travel, and their names of images with them: relative to the file, to a folder of
images beside it or above it, with the folders of the machine where they were written, with
Windows' separators. Names are only ever looked up below the folders that are searched: `..` and
the roots of absolute names are dropped, never followed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from sppdet.datasets.formats.folders import is_image, stem
from sppdet.datasets.raw import NO_ANNOTATION, Findings, RawImage
from sppdet.datasets.splits import split_of_name

# Folders of a name that count, from its end.
MAX_PARTS = 6
# Names that decide in which folders the images are.
SAMPLED_NAMES = 2000
# Folders searched around an annotation file.
MAX_FOLDERS = 300


def split_in_name(name: str) -> str | None:
    """Find the split that a file or folder is named after: `custom_train2017` gives `train`."""
    words = re.findall(r"[a-z]+", name.lower())
    return next((word for word in words if split_of_name(word) is not None), None)


def same_split(name: str | None, other: str | None) -> bool:
    """Tell if two names of splits mean the same, as `val` and `valid` do."""
    if name is None or other is None:
        return name is other
    return name == other or split_of_name(name) == split_of_name(other) is not None


def name_parts(name: str) -> tuple[str, ...]:
    """Split a name of an image into folders and file, without what would lead out of a folder."""
    try:
        os.fsencode(name)
    except ValueError:  # half a character, as JSON can hold
        return ()
    if "\0" in name:
        return ()
    parts = name.strip().replace("\\", "/").split("/")
    kept = [part for part in parts if part not in ("", ".", "..") and not part.endswith(":")]
    return tuple(kept[-MAX_PARTS:])


class FolderListings:
    """The files and folders in folders, each of which is listed once.

    Args:
        root: what lies outside of this folder is not listed; None: anything is.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = None if root is None else root.absolute()
        self._listed: dict[str, tuple[frozenset[str], tuple[str, ...]]] = {}
        self._folded: dict[str, dict[str, str | None]] = {}

    def files(self, folder: str | Path) -> frozenset[str]:
        """Return the names of the files in a folder; none where it cannot be listed."""
        return self._list(str(folder))[0]

    def folders(self, folder: Path) -> list[Path]:
        """Return the folders in a folder, sorted; hidden ones are left out."""
        return [folder / name for name in self._list(str(folder))[1]]

    def find(self, folder: Path, parts: Sequence[str]) -> Path | None:
        """Find `parts` below `folder`: as they are, else but for case, and blanks as `_`."""
        if not parts:
            return None
        inner = "/".join((str(folder), *parts[:-1]))
        name = parts[-1]
        if name in self.files(inner):
            return Path(inner, name)
        if inner not in self._folded:
            self._folded[inner] = _fold_all(self.files(inner))
        other = self._folded[inner].get(_fold(name))
        return None if other is None else Path(inner, other)

    def _list(self, folder: str) -> tuple[frozenset[str], tuple[str, ...]]:
        if folder not in self._listed:
            files: list[str] = []
            folders: list[str] = []
            if self._root is None or Path(folder).absolute().is_relative_to(self._root):
                with suppress(OSError, ValueError), os.scandir(folder) as entries:
                    for entry in entries:
                        (folders if entry.is_dir() else files).append(entry.name)
            shown = tuple(sorted(name for name in folders if not name.startswith(".")))
            self._listed[folder] = (frozenset(files), shown)
        return self._listed[folder]


def _fold(name: str) -> str:
    return name.casefold().replace(" ", "_")


def _fold_all(names: Iterable[str]) -> dict[str, str | None]:
    """Map folded names to the one name that folds so; None where there are several."""
    out: dict[str, str | None] = {}
    for name in names:
        key = _fold(name)
        out[key] = None if key in out else name
    return out


class ImageFinder:
    """Finds the images that an annotation file names, in the folders where most of them are.

    Args:
        names: of each image, as the file has it; with others that it may have instead.
        beside: the folder of the annotation file.
        images: the folder of images that a user named: only it is searched then.
        split: the split that the file is of: folders of other splits are not searched.
        listings: of folders listed before, to share.
    """

    def __init__(
        self,
        names: Sequence[tuple[str, ...]],
        beside: Path,
        *,
        images: Path | None = None,
        split: str | None = None,
        listings: FolderListings | None = None,
    ) -> None:
        self._listings = listings or FolderListings()
        self._home = beside if images is None else images
        step = max(1, -(-len(names) // SAMPLED_NAMES))
        sample = [[name_parts(name) for name in each] for each in names[::step]]
        self._roots = self._choose_roots(sample, beside, images, split)

    def find(self, *names: str) -> Path | None:
        """Find an image by the first of its names that is there; None if none is."""
        for parts in map(name_parts, names):
            for root in self._roots:
                found = _find_tail(self._listings, root, parts)
                if found is not None:
                    return found
        return None

    def locate(self, *names: str) -> Path:
        """Return an image's path; where it should be by its first name, if it is not there."""
        root = self._roots[0] if self._roots else self._home
        return self.find(*names) or root.joinpath(*name_parts(names[0]))

    def _choose_roots(
        self,
        sample: list[list[tuple[str, ...]]],
        beside: Path,
        images: Path | None,
        split: str | None,
    ) -> list[Path]:
        """Return the first group of folders that has half of the images, else that has most."""
        best: list[Path] = []
        most = 0
        for group in _groups(self._listings, beside, images, split):
            counts = [
                sum(
                    any(_find_tail(self._listings, root, parts) is not None for parts in each)
                    for each in sample
                )
                for root in group
            ]
            total = max(counts, default=0)
            if total > most:
                most = total
                ranked = sorted(range(len(group)), key=lambda i: -counts[i])
                best = [group[i] for i in ranked if counts[i]]
            if most and 2 * most >= len(sample):
                break
        return best


def _find_tail(listings: FolderListings, root: Path, parts: tuple[str, ...]) -> Path | None:
    """Find a name below a folder, whole, else without its first folders."""
    for start in range(len(parts)):
        found = listings.find(root, parts[start:])
        if found is not None:
            return found
    return None


def _groups(
    listings: FolderListings, beside: Path, images: Path | None, split: str | None
) -> Iterator[list[Path]]:
    """Yield folders to search, the nearest to the annotation file first."""

    def fits(folder: Path) -> bool:
        named = split_in_name(folder.name)
        return split is None or named is None or same_split(named, split)

    def below(folders: Iterable[Path]) -> list[Path]:
        found = [inner for folder in folders for inner in listings.folders(folder)]
        kept = [folder for folder in found if fits(folder)]
        # The split's own folders first: `sorted` is stable.
        kept.sort(key=lambda folder: not same_split(split_in_name(folder.name), split))
        return kept[:MAX_FOLDERS]

    if images is not None:
        group = [images]
        for _ in range(3):
            yield group
            group = below(group)
        return
    beside = beside.absolute()
    above = beside.parent
    yield [beside]
    inner = below([beside])
    yield inner
    yield [above]
    siblings = [folder for folder in below([above]) if folder != beside]
    yield siblings
    yield below(inner)
    yield below(siblings)


def find_bare_images(
    images: Iterable[RawImage],
    listings: FolderListings,
    findings: Findings,
    told: Collection[Path] = (),
) -> None:
    """Find the images that no annotation names, in folders where others have one.

    Those in `told` are passed over: they are of annotation files that cannot be read.
    """
    known: dict[str, set[str]] = {}
    splits: dict[str, set[str | None]] = {}
    for image in images:
        folder, name = os.path.split(image.path)
        known.setdefault(folder, set()).add(name)
        splits.setdefault(folder, set()).add(image.split)
    for folder, names in known.items():
        there = listings.files(folder)
        split = next(iter(splits[folder])) if len(splits[folder]) == 1 else None
        for name in sorted(there - names) if there & names else ():
            if is_image(name) and Path(folder, name) not in told:
                findings.add(NO_ANNOTATION, Path(folder, name), "no annotation names it", split)


def index_stems(folder: Path, listings: FolderListings) -> dict[str, Path]:
    """Map the stems of all images in a folder, those in it and beside it, to their paths."""
    folder = folder.absolute()
    folders = [folder, *listings.folders(folder)]
    folders += [inner for one in folders[1:] for inner in listings.folders(one)]
    folders += [one for one in listings.folders(folder.parent) if one != folder]
    by_stem: dict[str, Path] = {}
    for one in folders[:MAX_FOLDERS]:
        for name in sorted(listings.files(one)):
            if is_image(name):
                by_stem.setdefault(stem(name), one / name)
    return by_stem
