"""Which classes a data set has: as asked for, as its format lists them, or as its objects do."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sppdet.core.errors import DatasetError
from sppdet.core.types import Dataset
from sppdet.datasets.raw import NO_OBJECTS, SIMILAR_NAMES, Findings, RawDataset


def choose_classes(
    raw: RawDataset,
    asked: Sequence[str] | None,
    findings: Findings,
    *,
    allow_missing: bool = False,
    path: Path | None = None,
) -> tuple[str, ...]:
    """Choose the class names: those asked for, else the format's with objects, else the data's.

    Names are trimmed. Objects count over all splits, so that all have the same labels.

    Raises:
        DatasetError: no class at all, a name asked for twice or empty, or that no object has.
    """
    objects: Counter[str] = Counter()
    for name, count in Counter(one.name for image in raw.images for one in image.objects).items():
        objects[trim(name)] += count
    listed = list(dict.fromkeys(trim(name) for name in raw.classes or ()))
    known = [*listed, *sorted(name for name in objects if name not in set(listed))]
    source = path or Path(raw.name)
    # One that a list lacks is left out, and told with the name that it is like.
    _find_similar(listed if listed and asked is None else known, source, findings)
    if asked is not None:
        return _check_asked(asked, objects, known, allow_missing=allow_missing, path=path)
    if raw.fixed_classes:
        return tuple(listed)
    if not objects:
        raise DatasetError(
            "has no object in any image" if raw.images else f"holds no annotations in {raw.format}",
            path=path,
            hint="annotate some, or name the folder that holds the annotations too",
        )
    if not listed:
        return tuple(known)
    for name in listed:
        if not objects[name]:
            findings.add(NO_OBJECTS, source, f"{name!r} is listed, but no object has it")
    return tuple(name for name in listed if objects[name])


def trim(name: str) -> str:
    """Strip a class name, and make runs of blanks in it one blank."""
    return " ".join(name.split())


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known class that a name is likely a slip of; None if it is like none."""
    lowered = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    return lowered[near[0]] if near else None


def _check_asked(
    asked: Sequence[str],
    objects: Counter[str],
    known: Sequence[str],
    *,
    allow_missing: bool,
    path: Path | None,
) -> tuple[str, ...]:
    if isinstance(asked, str):
        raise DatasetError(f"classes is the string {asked!r}", hint=f"give a list: [{asked!r}]")
    names = [trim(name) for name in asked]
    if not names or not all(names):
        raise DatasetError(
            "the class list is empty or has an empty name", hint="name at least one class"
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DatasetError(
            f"the class list repeats {', '.join(repeated)}", hint="name each class once"
        )
    missing = [name for name in names if not objects[name]]
    if missing and (not allow_missing or len(missing) == len(names)):
        present = [name for name in known if objects[name]]
        near = nearest_name(missing[0], present)
        hint = f"classes with objects: {', '.join(present) or 'none'}"
        problem = f"no object has the class {missing[0]!r}"
        if missing[0] in known:
            problem, hint = f"{problem}, which the data lists", f"omit it; {hint}"
        elif near:
            hint = f"did you mean {near!r}?"
        raise DatasetError(problem, path=path, hint=hint)
    return tuple(names)


def adopt_names(raw: RawDataset, known: Sequence[str]) -> dict[str, str]:
    """Rename the classes of a data set as a model knows them, where case and blanks alone differ.

    Returns:
        The new names by the old ones.
    """
    have = {trim(one.name) for image in raw.images for one in image.objects}
    counts = Counter(map(_fold, known))
    folded = {_fold(name): name for name in known if name not in have and counts[_fold(name)] == 1}
    new = {name: folded[_fold(name)] for name in sorted(have) if _fold(name) in folded}
    for image in raw.images if new else ():
        image.objects = [
            one._replace(name=new.get(trim(one.name), one.name)) for one in image.objects
        ]
    if raw.classes is not None:
        raw.classes = tuple(new.get(trim(name), name) for name in raw.classes)
    return new


def _fold(name: str) -> str:
    return "".join(name.lower().split())


def _find_similar(names: Sequence[str], source: Path, findings: Findings) -> None:
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(_fold(name), name)
        if other != name:
            message = f"{other!r} and {name!r} are taken as different classes: write one of them "
            message += "in the files, or leave one out with --classes"
            findings.add(SIMILAR_NAMES, source, message)


def keep_present(dataset: Dataset) -> Dataset:
    """Leave out classes without an object."""
    present = {int(label) for sample in dataset for label in sample.labels}
    kept = sorted(present)
    places = np.zeros(len(dataset.classes), np.int64)
    places[kept] = np.arange(len(kept))
    return replace(
        dataset,
        classes=tuple(dataset.classes[label] for label in kept),
        samples=tuple(replace(sample, labels=places[sample.labels]) for sample in dataset),
    )
