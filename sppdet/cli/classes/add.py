"""`sppdet add-class`: classes that a trained model learns besides its own, and corrections."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sppdet.cli.classes.files import (
    OneModelOption,
    OutOption,
    check_out,
    find_model,
    load_model,
    read_classes,
)
from sppdet.cli.classes.wrong import Wrong, choose_wrong, read_wrong
from sppdet.cli.common import format_cost, use_threads, warn
from sppdet.cli.dataset import DataSource, OpenData, count_images
from sppdet.cli.options import (
    ClassesOption,
    DeviceOption,
    FormatOption,
    ImagesOption,
    LimitOption,
    SplitOption,
    StrictOption,
    ThreadsOption,
    YearOption,
    examples,
)
from sppdet.cli.terminal.notes import say
from sppdet.core.errors import ConfigError, DatasetError
from sppdet.datasets.class_names import keep_present

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sppdet.core.types import Dataset
    from sppdet.detection.detector import Detector

# The regions of all images stand in memory, about 2 MB of them per image where there are many.
MOST_IMAGES = 1000


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            ("the classes of your images", "sppdet add-class my-data/ --out mine.safetensors"),
            ("some of them", "sppdet add-class my-data/ --classes fox,owl --out mine.safetensors"),
            (
                "photos that show no fox, though foxes were found",
                "sppdet add-class --model mine.safetensors --classes fox --not wrong/"
                " --out mine.safetensors",
            ),
            (
                "or what was found in them",
                "sppdet detect wrong/ --model mine.safetensors --json wrong.json",
            ),
            (
                "",
                "sppdet add-class --model mine.safetensors --not wrong.json --out mine.safetensors",
            ),
        )
    )(add_class)


def add_class(
    out: OutOption,
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="A data set with the new classes, as `sppdet train` takes it. Without it, classes"
            " that were added before are corrected (--not).",
            show_default=False,
        ),
    ] = None,
    model: OneModelOption = "default",
    wrong: Annotated[
        Path | None,
        typer.Option(
            "--not",
            metavar="DIR|JSON",
            help="Images that do not show the class, or a file of `sppdet detect --json` whose"
            " detections of it are wrong: taught away.",
        ),
    ] = None,
    split: SplitOption = None,
    format: FormatOption = None,
    year: YearOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    strict: StrictOption = None,
    limit: LimitOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Add classes to a trained model, from one image or some hundreds, in seconds.

    What the model finds of its other classes stays as it is, to the last bit. All images are
    learned from; how well a class is found is told by cross-validation. All objects of a new class
    must be annotated in them, others need not be.
    """
    from sppdet.cli.terminal.progress import terminal_progress
    from sppdet.core.jit import warm_up

    check_out(out)
    if source is None and wrong is None:
        raise ConfigError("nothing to learn from", hint="give DATA, or --not with what is wrong")
    mistakes = {} if wrong is None else read_wrong(wrong)
    member, dataset = find_model(model), None
    start, progress = time.perf_counter(), terminal_progress()
    if source is not None:
        data = _open(DataSource(source, split, format, year, images, classes, strict, limit))
        dataset = _choose(data, read_classes(member))
        say(count_images(dataset))
    use_threads(threads)
    loaded = load_model(member, device)
    detector = loaded.detector
    names = dataset.classes if dataset else _to_correct(detector, classes, mistakes)
    corrections = {} if wrong is None else choose_wrong(mistakes, names, wrong)
    warm_up()
    if dataset is not None:
        detector = detector.add_classes(dataset, progress=progress)
    for name, images_of_class in corrections.items():
        detector = detector.correct_class(name, images_of_class, progress=progress)
    say(f"{loaded.save(detector, out)}, in {format_cost(time.perf_counter() - start)}")
    say(f"now: sppdet detect photo.jpg --model {out}")


def _open(source: DataSource) -> OpenData:
    from sppdet.datasets.splits import TRAIN_SPLITS

    opened = source.open(TRAIN_SPLITS)
    say(opened.describe("learning from"))
    return opened


def _choose(opened: OpenData, known: Sequence[str]) -> Dataset:
    """Load the images with the classes that a model does not have yet; say which it has.

    Raises:
        DatasetError: no new class, one asked for that the data lacks, or too many images.
    """
    path, asked = opened.source.data, opened.source.class_names
    counts = opened.count_objects()
    wanted = asked or sorted(name for name, count in counts.items() if count)
    for name in wanted:
        if name not in counts:
            hint = f"it has {', '.join(sorted(counts)) or 'none'}"
            raise DatasetError(f"has no class {name!r}", path=path, hint=hint)
    folded = {name.casefold() for name in known}
    old = [name for name in wanted if name.casefold() in folded]
    new = tuple(name for name in wanted if name not in old)
    if not new:
        raise DatasetError(
            f"has no class that is new to the model, but {', '.join(old) or 'no objects'}",
            path=path,
            hint="remove or rename the model's own first (sppdet remove-class, rename-class), or"
            " train on the data (sppdet train)",
        )
    if old:
        warn(f"the model has these already, and they stay as they are: {', '.join(old)}")
    dataset = opened.load(new)
    if len(dataset) > MOST_IMAGES:
        raise DatasetError(
            f"has {len(dataset)} images, and a class is learned from {MOST_IMAGES} at most",
            path=path,
            hint="use the first of them (--limit 300), or sppdet train",
        )
    empty = sorted(set(range(len(new))) - {int(n) for one in dataset for n in one.labels})
    if not empty:
        return dataset
    if asked or len(empty) == len(new):
        missing = " or ".join(new[label] for label in empty)
        raise DatasetError(f"has no object of {missing}", path=path, hint="annotate some")
    warn(f"no object in these images, left out: {', '.join(new[label] for label in empty)}")
    return keep_present(dataset)


def _to_correct(detector: Detector, classes: str | None, mistakes: Wrong) -> Sequence[str]:
    """Name the added classes that mistakes were made with; ConfigError where that is not clear."""
    added = [one.name for one in detector.parts.added]
    if classes is not None:
        return [name.strip() for name in classes.split(",")]
    if None not in mistakes:
        return [name for name in added if name in mistakes]
    if len(added) != 1:
        raise ConfigError(
            "which class do the images not show?",
            hint=f"name it with --classes; added are {', '.join(added) or 'none'}",
        )
    return added
