"""The loop of `sppdet detect` over its images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sppdet.cli.common import Failures, say
from sppdet.core.errors import OutputError, SppdetError
from sppdet.core.parallel import memory_errors
from sppdet.outputs.records import detection_record, read_detections
from sppdet.outputs.results import Results, write_pictures

if TYPE_CHECKING:
    from sppdet.core.progress import Progress
    from sppdet.core.types import Detections, ImageArray
    from sppdet.media.sources import ImageSource
    from sppdet.outputs.pictures import Pictures


class AnyDetector(Protocol):
    """Protocol of detectors, ensembles, and R-CNN mode."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of what it detects."""
        ...

    def detect(self, image: ImageArray) -> Detections:
        """Detect the objects of an image `uint8 (H, W, 3)`."""
        ...


@dataclass(slots=True)
class Batch:
    """Detects in image after image, and hands on what it found.

    Attributes:
        detector, results, threshold, max_pixels: as the command's options say.
        unread: images that cannot be read.
        undrawn: images of which not all pictures can be written.
        done, before: images with results, and those of them that an earlier run left.
        objects: how many were found.
        best: the highest score, of any size.
    """

    detector: AnyDetector
    results: Results
    threshold: float
    max_pixels: int
    unread: Failures[ImageSource]
    undrawn: Failures[ImageSource] = field(default_factory=Failures)
    done: int = 0
    before: int = 0
    objects: int = 0
    best: float = 0.0

    def run(self, sources: Sequence[ImageSource], progress: Progress) -> None:
        """Detect in all images; those with results, and all their pictures, are skipped.

        Raises:
            OutputError: results cannot be written any more.
        """
        with progress.task("detecting", len(sources)) as advance:
            for source in sources:
                try:
                    self._detect(source)
                except OutputError:
                    raise
                except SppdetError as error:
                    self.unread.add(source, error)
                    self.results.add_error(source, error)
                advance(1)

    def _detect(self, source: ImageSource) -> None:
        """Find an image's objects, unless they are known; write, draw, and print them."""
        record = self.results.find(source)
        lacking = self.results.lacking(source, record)
        if record is not None:
            self.before += 1
            if lacking:
                found = read_detections(record, self.detector.classes)
                self._draw(lacking, source, source.read(max_pixels=self.max_pixels), found)
            self._count(len(record["detections"]))
            return
        image = source.read(max_pixels=self.max_pixels)
        start = time.perf_counter()
        with memory_errors(source.name, "shrink the image, or lower features.scales"):
            everything = self.detector.detect(image)
        seconds = time.perf_counter() - start
        self.best = max(self.best, float(everything.scores.max(initial=0.0)))
        found = everything.above(self.threshold)
        self.results.add(source, detection_record(image, found))
        self._draw(lacking, source, image, found)
        self._count(len(found))
        say(format_detections(source.name, found, seconds))

    def _count(self, objects: int) -> None:
        self.done += 1
        self.objects += objects

    def _draw(
        self,
        kinds: Sequence[Pictures],
        source: ImageSource,
        image: ImageArray,
        found: Detections,
    ) -> None:
        """Write an image's pictures; one that cannot be written does not stop the run."""
        try:
            write_pictures(kinds, source, image, found)
        except OutputError as error:
            if error.is_full:  # nothing after it could be written either
                raise
            self.undrawn.add(source, error)


def format_detections(name: str, found: Detections, seconds: float) -> str:
    """Format detections, one object per line: class, score, and box in pixels."""
    lines = [f"{name}: {len(found)} found in {seconds:.2f} s"]
    width = max((len(one.name) for one in found), default=0)
    for one in found:
        box = " ".join(f"{v:6.0f}" for v in one.box)
        lines.append(f"  {one.name:<{width}}  {one.score:6.2f}  {box}")
    return "\n".join(lines)
