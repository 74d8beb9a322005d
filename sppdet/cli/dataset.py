"""A data set as the options of a command name it: opened, described in a line, its split chosen."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sppdet.cli.common import warn
from sppdet.cli.terminal.notes import say
from sppdet.core.errors import DatasetError, printable

if TYPE_CHECKING:
    from sppdet.core.types import Dataset
    from sppdet.datasets.raw import Findings, RawDataset

# As a split: all images, whatever the splits.
ALL = "all"


@dataclass(frozen=True)
class DataSource:
    """The options that name a data set and what of it is used.

    `strict` False is lenient: much may be left out.
    """

    data: Path
    split: str | None = None
    format: str | None = None
    year: int | None = None
    images: Path | None = None
    classes: str | None = None
    strict: bool | None = None
    limit: int | None = None

    @property
    def max_lost(self) -> float:
        """The share of images, or objects, that may be left out, as in `build_dataset`."""
        from sppdet.datasets.build import MAX_LOST

        return 1.0 if self.strict is False else MAX_LOST

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The chosen classes; None for all."""
        chosen = self.classes
        return None if chosen is None else tuple(name.strip() for name in chosen.split(","))

    def open(self, preferred: Sequence[str] = ()) -> OpenData:
        """Read the annotations; choose the split where none is named.

        Args:
            preferred: the splits to choose from, as `choose_split` takes them; all images where
                it has none of them.

        Raises DatasetError or AnnotationError as `read_dataset` does.
        """
        from sppdet.datasets.load import locate, read_dataset
        from sppdet.datasets.raw import Findings
        from sppdet.datasets.splits import choose_split

        findings = Findings()
        split = None if self.split == ALL else self.split
        raw = read_dataset(
            self.data, findings, split, format=self.format, images=self.images, year=self.year
        )
        if self.split is None:
            split = choose_split(raw.splits, preferred)
        name, folder = locate(self.data, self.format)
        return OpenData(self, raw, split, name, folder, findings)

    def load(self, preferred: Sequence[str] = ()) -> Dataset:
        """Open and load at once, and say what is wrong with it."""
        return self.open(preferred).load()


@dataclass(slots=True)
class OpenData:
    """A data set whose annotations are read, and the split of it that is used.

    Attributes:
        source: the options.
        raw: the annotations of all splits, or those that the split needs.
        split: None for all images.
        format: as `--format` names it.
        folder: where the data set was found.
        findings: what is wrong.
        renamed: classes called as a model does, by what the data calls them.
    """

    source: DataSource
    raw: RawDataset
    split: str | None
    format: str
    folder: Path
    findings: Findings = field(repr=False)
    renamed: dict[str, str] = field(default_factory=dict)

    @property
    def is_chosen(self) -> bool:
        """Whether nobody named a split."""
        return self.source.split is None

    @property
    def file_split(self) -> str:
        """Name of the split in the names of result files."""
        if self.split is not None:
            return Path(self.split).stem
        return self.source.data.stem if self.source.data.is_file() else ALL

    def describe(self, use: str, *, holds_out: bool = False) -> str:
        """Describe in one line what was found, and which images are used.

        Args:
            use: what the chosen split is for, such as `training on`.
            holds_out: whether a share of the images is held out next.
        """
        from sppdet.datasets.load import describe

        if not self.is_chosen:
            return describe(self.raw, self.split)
        which = "all images" if self.split is None else self.split
        if holds_out and len({image.path for image in self.raw.images}) > 1:
            return f"{describe(self.raw)}: a fifth of the images is held out"
        return f"{describe(self.raw)}; no split given: {use} {which}"

    def count_objects(self) -> Counter[str]:
        """Count the objects per class, of the chosen split; classes of others count 0."""
        from sppdet.datasets.class_names import trim
        from sppdet.datasets.splits import select_images

        counts = Counter({name: 0 for name in self.raw.classes or () if self.raw.fixed_classes})
        counts.update({trim(one.name): 0 for image in self.raw.images for one in image.objects})
        chosen = select_images(self.raw, self.split, path=self.source.data).images
        counts.update(trim(one.name) for image in chosen for one in image.objects)
        return counts

    def load(
        self,
        classes: Sequence[str] | None = None,
        *,
        whole: bool = False,
        max_lost: float | None = None,
        with_pixels: bool = True,
    ) -> Dataset:
        """Check the annotations and make them a data set; say what is wrong with them.

        Raises as `build_dataset` does.

        Args:
            classes: instead of those that the options name; some may have no object.
            whole: use all images, whatever the options limit them to.
            max_lost, with_pixels: as in `build_dataset`.
        """
        from sppdet.datasets.build import build_dataset

        dataset = build_dataset(
            self.raw,
            self.findings,
            split=self.split,
            classes=self.source.class_names if classes is None else classes,
            allow_missing=classes is not None,
            strict=bool(self.source.strict),
            max_lost=self.source.max_lost if max_lost is None else max_lost,
            with_pixels=with_pixels,
            path=self.source.data,
        )
        print_findings(self.findings)
        return dataset if whole else self.limit(dataset)

    def lost_images(self) -> list[str]:
        """Say in a line each which images cannot be read, or are not there."""
        from sppdet.datasets.raw import UNUSABLE_IMAGES

        return [one.line for one in self.findings.all if one.kind in UNUSABLE_IMAGES]

    def count_unusable(self) -> int:
        """Count the images and annotation files that cannot be read, or are not there."""
        from sppdet.datasets.raw import BROKEN_ANNOTATION

        return self.findings.counts()[BROKEN_ANNOTATION] + len(self.lost_images())

    def limit(self, dataset: Dataset) -> Dataset:
        """Keep the first so many images, if the options say so."""
        limit = self.source.limit
        if limit is None or limit >= len(dataset):
            return dataset
        return replace(
            dataset, name=f"{dataset.name}, first {limit}", samples=dataset.samples[:limit]
        )


def print_findings(findings: Findings) -> None:
    """Print what is wrong on standard error: each kind with its number and the first of it."""
    for line in findings.lines():
        if line.startswith(" "):
            print(printable(line), file=sys.stderr, flush=True)
        else:
            warn(line)


def count_images(dataset: Dataset) -> str:
    """Format the numbers of images, objects and classes."""
    objects = sum(len(sample.labels) for sample in dataset)
    counts = ((len(dataset), "image"), (objects, "object"), (len(dataset.classes), "class"))
    words = [f"{n} {one}" if n == 1 else f"{n} {one}{'e' * (one == 'class')}s" for n, one in counts]
    return f"{dataset.name}: {', '.join(words)}"


def hold_out_share(dataset: Dataset, run: Path, seed: int) -> Dataset:
    """Draw a fifth of the images of a data set without splits, list them in the run's folder.

    Returns the rest.
    """
    from sppdet.datasets.splits import HELD_OUT_FILE, hold_out, write_split_list

    if len(dataset) < 2:
        warn("nothing is held out of a single image: evaluate on others")
        return dataset
    rest, held = hold_out(dataset, seed=seed)
    path = run / HELD_OUT_FILE
    run.mkdir(parents=True, exist_ok=True)
    write_split_list(path, held)
    say(
        f"{len(held)} of {len(dataset)} images are held out to evaluate on (seed {seed}): "
        f"they are listed in {path}; --split {ALL} trains on all"
    )
    return rest


def drop_empty_classes(dataset: Dataset, opened: OpenData) -> Dataset:
    """Leave out classes without an object in the images to train on, and say so.

    The classes of a benchmark stay, and are named.

    Raises:
        DatasetError: one of them was asked for.
    """
    from sppdet.datasets.class_names import keep_present

    present = {int(label) for sample in dataset for label in sample.labels}
    empty = [name for label, name in enumerate(dataset.classes) if label not in present]
    if not empty or len(empty) == len(dataset.classes):
        return dataset
    named = ", ".join(empty)
    if opened.source.classes is not None:
        raise DatasetError(
            f"no object in the images to train on has the class {named}",
            path=opened.source.data,
            hint="omit it from --classes, or train on more images (--split, --limit)",
        )
    verb = "keep their places" if opened.raw.fixed_classes else "are left out"
    warn(f"classes without an object in the images to train on {verb}, not trained: {named}")
    if opened.raw.fixed_classes:
        return dataset
    return keep_present(dataset)


def match_classes(known: Sequence[str], opened: OpenData) -> tuple[str, ...]:
    """Choose the classes to evaluate a model on: those that it and the data have, in its order.

    Says which ones either lacks, or writes with other capitals or blanks.

    Raises:
        DatasetError: none in common, or one was asked for that the model does not know.
    """
    from sppdet.datasets.class_names import adopt_names

    opened.renamed = adopt_names(opened.raw, known)
    for old, new in opened.renamed.items():
        warn(f"the data's class {old!r} is taken as the model's {new!r}")
    counts = opened.count_objects()
    asked = opened.source.class_names
    for name in asked or ():
        if name not in known:
            raise DatasetError(
                f"the model does not know the class {name!r}", hint=f"it knows {', '.join(known)}"
            )
    common = tuple(asked or (name for name in known if name in counts))
    if not common:
        raise DatasetError(
            "no object has one of the model's classes",
            path=opened.source.data,
            hint=f"the data has {', '.join(sorted(counts)) or 'none'}; the model knows "
            + ", ".join(known),
        )
    unknown = {name: count for name, count in counts.items() if name not in known}
    if unknown and asked is None:
        named = ", ".join(f"{name} ({count} objects)" for name, count in unknown.items())
        warn(f"classes that the model does not know are left out ({len(unknown)}): {named}")
    missing = [name for name in known if name not in counts]
    if missing and asked is None:
        named = ", ".join(missing)
        warn(f"{len(missing)} of the model's {len(known)} classes not in the data: {named}")
    return common
