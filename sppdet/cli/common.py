"""Options that several commands share, and the values behind them.

Nothing slow is imported here or at the top of a command's module: `--help` must come at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sppdet.errors import DatasetError, SppdetError

if TYPE_CHECKING:
    from sppdet.config import Config
    from sppdet.detector import Detector
    from sppdet.types import Dataset

# Settings that may differ from those a model was trained with.

DataArgument = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="A data set: a VOCdevkit or VOC-format folder, or a COCO instances file (.json).",
        show_default=False,
    ),
]
SplitOption = Annotated[
    str, typer.Option("--split", help="A name in ImageSets/Main, or a .txt file of image ids.")
]
YearOption = Annotated[
    int | None,
    typer.Option("--year", help="Which year of a VOCdevkit that holds several, such as 2007."),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option("--images", metavar="DIR", help="Where the images of a COCO file are."),
]
ClassesOption = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="A,B,..",
        help="Use these classes only, and leave out objects of any other.",
    ),
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Use the first so many images only.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="A TOML file of differences from the default settings."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting, such as svm.c=0.01; may be given many times.",
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", min=0, help="Where every random choice starts (default: 0)."),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="Where the network runs: cpu, cuda or cuda:N.")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Cores to use.", show_default="all of them"),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Keeps proposals and conv maps, by content; commands may share one.",
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A model file, or the name of a shipped one (see `sppdet models`); several with +"
        " between count as one.",
    ),
]


@dataclass(frozen=True)
class DataSource:
    """What the user said of a data set."""

    data: Path
    split: str
    year: int | None = None
    images: Path | None = None
    classes: str | None = None
    limit: int | None = None

    @property
    def is_coco(self) -> bool:
        """Whether it is one COCO file rather than a VOC folder."""
        return self.data.suffix.lower() == ".json"

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The chosen classes; None for all."""
        if self.classes is None:
            return None
        return tuple(name.strip() for name in self.classes.split(","))

    def load(self, problems: list[SppdetError] | None = None) -> Dataset:
        """The data set; raises DatasetError or AnnotationError as its reader does.

        With `problems`, what is wrong with single images of a VOC folder is gathered there.
        """
        from sppdet.datasets import load_coco, load_voc

        names = self.class_names
        if self.is_coco:
            if self.images is None:
                raise DatasetError(
                    "a COCO file does not say where its images are",
                    where=self.data,
                    mend="add --images DIR",
                )
            dataset = load_coco(self.data, self.images, names, ignore_unknown=names is not None)
        else:
            dataset = load_voc(
                self.data,
                self.split,
                year=self.year,
                classes=names,
                ignore_unknown=names is not None,
                problems=problems,
            )
        if self.limit is None or self.limit >= len(dataset):
            return dataset
        first = dataset.samples[: self.limit]
        return replace(dataset, name=f"{dataset.name}, first {self.limit}", samples=first)


def settings(config: Path | None, changes: Sequence[str] | None, seed: int | None) -> Config:
    """The settings that `--config`, `--set` and `--seed` ask for, in this order."""
    from sppdet.config import load_config

    overrides = list(changes or ())
    return load_config(config, overrides if seed is None else [*overrides, f"seed={seed}"])


def load_detector(
    model: str, device: str, config: Path | None = None, changes: Sequence[str] | None = None
) -> Detector:
    """The detector, with those settings changed that need no training.

    Raises:
        ConfigError: a change to a setting that the model was trained with.
    """
    from sppdet.config import load_config
    from sppdet.detector import Detector

    detector = Detector.load(model, device=checked_device(device))
    return detector.with_settings(load_config(config, changes or (), detector.config))


def use_threads(threads: int | None) -> None:
    """Make the libraries use that many cores; None leaves each its own choice."""
    if threads is None:
        return
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def checked_device(device: str) -> str:
    """The device; SppdetError where PyTorch has none of that name."""
    import torch

    try:
        torch.zeros(1, device=torch.device(device))
    # PyTorch tells an unknown name, a missing driver and a missing GPU by several types.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0].partition(".")[0]
        raise SppdetError(
            f"cannot use the device {device!r} ({reason})", mend="use --device cpu"
        ) from None
    return device


def peak_memory() -> float | None:
    """Most memory this process or one of its workers held, in gigabytes; None if not known."""
    try:
        import resource
    except ImportError:
        return None
    peaks = [
        resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    unit = 1 if sys.platform == "darwin" else 1024
    return max(peaks) * unit / 1e9


def costs(seconds: float) -> str:
    """Time and peak memory in words."""
    from sppdet.progress import duration

    memory = peak_memory()
    peak = "" if memory is None else f", {memory:.1f} GB of memory at most"
    return f"{duration(seconds)}{peak}"


def warn(message: str) -> None:
    """A line on standard error."""
    print(f"sppdet: {message}", file=sys.stderr, flush=True)


def examples(*pairs: tuple[str, str]) -> str:
    """The foot of a help text: commands to copy, each under what it is for."""
    lines = [
        f"[dim]{why}[/dim]\n\n  {command}" if why else f"  {command}" for why, command in pairs
    ]
    return "\n\n".join(["[bold]Examples[/bold]", *lines])
