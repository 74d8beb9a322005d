"""Steps that several commands share: settings, model, failed images, cost."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import typer

from sppdet.cli.terminal.notes import say as say
from sppdet.cli.terminal.notes import warn as warn
from sppdet.core.errors import SppdetError

if TYPE_CHECKING:
    from sppdet.core.progress import Advance
    from sppdet.core.settings import Settings
    from sppdet.detection.detector import Detector
    from sppdet.detection.ensemble import Ensemble
    from sppdet.media.sources import ImageSource

Config = TypeVar("Config", bound="Settings")
Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")


def load_config(
    cls: type[Config],
    config: Path | None,
    changes: Sequence[str] | None,
    seed: int | None = None,
    base: Config | None = None,
) -> Config:
    """Load the settings that `--config`, `--set` and `--seed` ask for, in this order.

    They change `base`, or the defaults.
    """
    from sppdet.core.settings import load

    words = [*(changes or ()), *([] if seed is None else [f"seed={seed}"])]
    return load(cls, config, words, base)


def load_detector(
    model: str, device: str, config: Path | None = None, changes: Sequence[str] | None = None
) -> Detector | Ensemble:
    """Load a model under changed settings; ConfigError for those that training fixed."""
    from sppdet.core.parallel import paused_collection

    with paused_collection():
        from sppdet.detection import ensemble

    detector = ensemble.load_detector(model, device=checked_device(device))
    return detector.configure(config, changes or ())


def attempt(work: Callable[[Item], Result]) -> Callable[[Item], Result | SppdetError]:
    """Wrap a function so that it returns an SppdetError instead of raising it."""

    def wrapped(item: Item) -> Result | SppdetError:
        try:
            return work(item)
        except SppdetError as error:
            return error

    return wrapped


class Failures(Generic[Item]):
    """Errors of single items of a batch, each printed when it occurs.

    Attributes:
        errors: by item, in their order.
    """

    def __init__(self) -> None:
        self.errors: dict[Item, SppdetError] = {}

    def skip(
        self, outcomes: Iterable[tuple[Item, Result | SppdetError]], advance: Advance
    ) -> Iterator[tuple[Item, Result]]:
        """Yield what is no error; print and keep the errors; count both as done."""
        for item, outcome in outcomes:
            advance(1)
            if isinstance(outcome, SppdetError):
                self.add(item, outcome)
            else:
                yield item, outcome

    def add(self, item: Item, error: SppdetError) -> None:
        """Print and keep the error of an item, unless it is known."""
        if item not in self.errors:
            warn(str(error))
            self.errors[item] = error

    def finish(self, problem: str) -> None:
        """Say in one line how many failed, and leave with exit code 1, if any did."""
        if self.errors:
            warn(f"{len(self.errors)} {problem}")
            raise typer.Exit(1)


def find_inputs(
    inputs: Sequence[str], recursive: bool, failures: Failures[ImageSource]
) -> tuple[ImageSource, ...]:
    """Find the images that inputs name; say at once what is wrong with inputs, or left out.

    Sources with an `error` are among them, in `failures` already, to be counted and recorded.
    Leaves with exit code 1 if none of them can be read.
    """
    from sppdet.media.sources import find_sources

    found = find_sources(inputs, recursive=recursive)
    for note in found.notes:
        warn(note)
    for source in found.images:
        if source.error is not None:
            failures.add(source, source.error)
    if all(source.error is not None for source in found.images):
        raise typer.Exit(1)
    return found.images


def use_threads(threads: int | None) -> None:
    """Make the libraries use that many cores; None leaves each its own choice."""
    if threads is None:
        return
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def checked_device(device: str) -> str:
    """Return the device; SppdetError where PyTorch has none of that name."""
    import torch

    try:
        torch.zeros(1, device=torch.device(device)).item()  # `meta` has no values
    # PyTorch tells an unknown name, a missing driver and a missing GPU by several types.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0].partition(".")[0]
        raise SppdetError(
            f"cannot use the device {device!r} ({reason})", hint="use --device cpu"
        ) from None
    return device


def format_cost(seconds: float) -> str:
    """Format time and peak memory in words."""
    from sppdet.core.parallel import peak_memory
    from sppdet.core.progress import duration

    memory = peak_memory()
    peak = "" if memory is None else f", {memory:.1f} GB of memory at most"
    return f"{duration(seconds)}{peak}"
