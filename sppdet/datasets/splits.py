"""Splits: their names in other people's data sets, held-out shares, and lists of their images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sppdet.core.errors import DatasetError
from sppdet.core.files import atomic_write_text
from sppdet.core.types import Dataset, Sample
from sppdet.datasets.raw import DUPLICATE, Findings, RawDataset, RawImage

# What tools call the same split; the first is what we call it.
SPLIT_NAMES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "validate", "dev"),
    "test": ("test", "testing"),
    "trainval": ("trainval",),
}
_MEANING = {name: ours for ours, names in SPLIT_NAMES.items() for name in names}

# What is trained and evaluated on where nobody says: the first of these that is there.
TRAIN_SPLITS = ("train", "trainval")
EVALUATION_SPLITS = ("val", "test")

# Held out of a data set without splits, unless another share is asked for.
HELD_OUT_SHARE = 0.2
# In the folder of a run: the ids of the images that were held out of it.
HELD_OUT_FILE = "held_out.txt"


def split_of_name(name: str) -> str | None:
    """Return `train`, `val`, `test` or `trainval` for what a folder or file is called, else None.

    A year may follow, as in COCO's `train2017`.
    """
    return _MEANING.get(name.lower().rstrip("0123456789").rstrip("_-"))


def match_splits(splits: Sequence[str], wanted: str) -> tuple[str, ...]:
    """Find which of a data set's splits `wanted` means: itself, another tool's word for it.

    `trainval` means `train` and `val` where it is not there itself. Empty if there is none.
    """
    if wanted in splits:
        return (wanted,)
    meaning = split_of_name(wanted)
    same = tuple(s for s in splits if meaning is not None and split_of_name(s) == meaning)
    if same or meaning != "trainval":
        return same
    parts = match_splits(splits, "train") + match_splits(splits, "val")
    return parts if len(parts) > 1 else ()


def choose_split(splits: Sequence[str], preferred: Sequence[str]) -> str | None:
    """Choose the split for a purpose that nobody named one for; None if none of them fits.

    Args:
        splits: those of the data set.
        preferred: `TRAIN_SPLITS` or `EVALUATION_SPLITS`.
    """
    found = (match for name in preferred for match in splits if split_of_name(match) == name)
    return next(found, None)


def is_list(split: str) -> bool:
    """Return whether a split is named by the path of a list of images."""
    return split.endswith(".txt") or "/" in split or "\\" in split


def select_images(raw: RawDataset, split: str | None, *, path: Path | None = None) -> RawDataset:
    """Keep the images of a split, in its order; all of them, each once, for None.

    Args:
        raw: as a reader gives it.
        split: a name, as `match_splits` takes it, or the path of a text file with an image's id,
            path or file name on each line.
        path: of the data set, named in messages.

    Raises:
        DatasetError: no such split (those that are there are listed), or none of its images.
    """
    if split is None:
        return replace(raw, images=_each_once(raw.images))
    if is_list(split):
        return replace(raw, images=_listed(raw.images, Path(split)), splits=(Path(split).stem,))
    names = match_splits(raw.splits, split)
    if not names:
        have = ", ".join(raw.splits)
        raise DatasetError(
            f"there is no split {split!r}",
            path=path,
            hint=f"splits that exist: {have}" if have else "it has no splits: name none",
        )
    kept = [image for name in names for image in raw.images if image.split == name]
    return replace(raw, images=_each_once(kept), splits=names)


def drop_repeats(raw: RawDataset, findings: Findings) -> RawDataset:
    """Keep the first of the annotations that a split has of one image, and tell the others."""
    if len({(image.path, image.split) for image in raw.images}) == len(raw.images):
        return raw
    seen: set[tuple[Path, str | None]] = set()
    kept = []
    for image in raw.images:
        key = (image.path, image.split)
        if key not in seen:
            seen.add(key)
            kept.append(image)
            continue
        count = len(image.objects)
        message = f"annotates {image.path} again ({count} object{'s' * (count != 1)} left out)"
        findings.add(DUPLICATE, image.source, message, image.split)
    return replace(raw, images=kept)


def hold_out(
    dataset: Dataset, share: float = HELD_OUT_SHARE, seed: int = 0
) -> tuple[Dataset, Dataset]:
    """Draw a share of the images, stratified by class: `(the rest, the share)`, in their order.

    Images are dealt out class by class, the rarest class first (Sechidis et al. 2011), so that
    each class keeps near `share` of its images, and every class of two images or more is in both.

    Raises:
        DatasetError: fewer than two images.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"a share of {share} is not between 0 and 1")
    count = len(dataset)
    if count < 2:
        raise DatasetError(
            f"{dataset.name}: nothing can be held out of {count} image{'s' * (count != 1)}",
            hint="annotate more images",
        )
    order = np.random.default_rng(seed).permutation(count)
    classes = [frozenset(int(k) for k in sample.labels) for sample in dataset]
    held = _draw(order.tolist(), classes, share)
    held_samples = tuple(s for n, s in enumerate(dataset) if n in held)
    rest = tuple(s for n, s in enumerate(dataset) if n not in held)
    percent = f"{100 * share:.3g} %"
    return (
        replace(dataset, name=f"{dataset.name} without {percent}", samples=rest),
        replace(dataset, name=f"{dataset.name}, {percent} held out", samples=held_samples),
    )


def write_split_list(path: Path, samples: Iterable[Sample]) -> None:
    """Write the samples' ids, one per line; `select_images` takes the file as a split."""
    atomic_write_text(path, "".join(f"{sample.image_id}\n" for sample in samples))


def read_split_list(path: Path) -> tuple[str, ...]:
    """Read the lines of a list of images, blank ones left out.

    Raises:
        DatasetError: no such file, not text, empty, or an image twice.
    """
    ids = read_lines(path)
    if not ids:
        raise DatasetError("the split lists no images", path=path, hint="write one id per line")
    image_id, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise DatasetError(f"lists {image_id} twice", path=path, hint="list each id once")
    return tuple(ids)


def read_lines(path: Path) -> list[str]:
    """Read a text file's lines, stripped, without blank ones.

    Raises:
        DatasetError: no such file, or not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DatasetError("no such split file", path=path, hint="check the path") from None
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"the split cannot be read ({error})", path=path, hint="give a text file of ids"
        ) from None
    return [line for one in text.splitlines() if (line := one.strip())]


def _draw(order: list[int], classes: list[frozenset[int]], share: float) -> set[int]:
    """Draw the held-out images' numbers: `round(share * count)` of them, at least one."""
    wanted = min(max(round(share * len(order)), 1), len(order) - 1)
    images = Counter(label for labels in classes for label in labels)
    # Images without objects are a class of their own.
    images[-1] = sum(not labels for labels in classes)
    quota = {
        label: min(max(round(share * n), 1), n - 1) if n > 1 else 0 for label, n in images.items()
    }
    held: set[int] = set()
    counts: Counter[int] = Counter()
    for label in sorted(images, key=lambda one: (images[one], one)):
        for n in order:
            own = classes[n] or {-1}
            if counts[label] >= quota[label] or len(held) >= wanted:
                break
            if n in held or label not in own or any(counts[k] >= quota[k] for k in own):
                continue
            held.add(n)
            counts.update(own)
    for n in order:  # what is still missing, while each class keeps an image
        if len(held) >= wanted:
            break
        own = classes[n] or {-1}
        if n not in held and all(counts[k] + 1 < images[k] for k in own):
            held.add(n)
            counts.update(own)
    return held or {order[0]}


def _each_once(images: Sequence[RawImage]) -> list[RawImage]:
    """Leave out images that another split had, and tell apart ids that two images share."""
    first: dict[Path, RawImage] = {}
    for image in images:
        first.setdefault(image.path, image)
    if len(first) == len(images) == len({image.image_id for image in images}):
        return list(images)
    ids = Counter(image.image_id for image in first.values())
    seen: set[str] = set()
    kept = []
    for image in first.values():
        name = image.image_id
        if ids[name] > 1 and image.split is not None:
            name = f"{image.split}/{name}"
        if name in seen:
            name = str(image.path)
        seen.add(name)
        kept.append(image if name == image.image_id else replace(image, image_id=name))
    return kept


def _listed(images: Sequence[RawImage], path: Path) -> list[RawImage]:
    each = _each_once(images)
    by_name: dict[str, RawImage] = {}
    for image in reversed(each):
        for key in (image.path.name, image.path.stem, str(image.path), image.image_id):
            by_name[key] = image
    by_name.update({image.image_id: image for image in each})
    kept = []
    for line in read_split_list(path):
        # Lists of other tools name images by paths of another machine.
        keys = (line, line.replace("\\", "/").rsplit("/", 1)[-1])
        found = next((by_name[key] for key in keys if key in by_name), None)
        if found is None:
            raise DatasetError(
                f"lists {line}, which is no image of the data set",
                path=path,
                hint="list ids or file names of its images, of those that can be read",
            )
        kept.append(found)
    return kept
