"""`sppdet video`: find objects in the frames of a video or camera."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from sppdet.cli.common import load_detector, use_threads
from sppdet.cli.options import (
    THRESHOLD,
    ConfigOption,
    DeviceOption,
    ModelOption,
    SetOption,
    ThreadsOption,
    examples,
)
from sppdet.cli.terminal.notes import say
from sppdet.core.errors import VideoError

if TYPE_CHECKING:
    from sppdet.core.types import Detections, ImageArray, IntArray
    from sppdet.media.video_reader import Frame
    from sppdet.media.video_writer import VideoWriter

_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)", re.ASCII)


def parse_time(text: str) -> float:
    """Seconds of `90`, `1:30` or `0:01:30.5`; typer.BadParameter for anything else."""
    found = _TIME.fullmatch(text)
    if found is not None:
        hours, minutes, seconds = found.groups()
        within = (minutes is None or float(seconds) < 60) and (hours is None or int(minutes) < 60)
        if within:
            return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds)
    raise typer.BadParameter(f"{text!r} is no time: give seconds, m:ss or h:mm:ss")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            ("a video with its boxes", "sppdet video cats.mp4 --out found.mp4"),
            ("one line of JSON per frame", "sppdet video cats.mp4 --jsonl found.jsonl"),
            (
                "half a minute of it, each fifth frame",
                "sppdet video cats.mp4 --from 1:00 --to 1:30 --every 5 --out found.mp4",
            ),
            ("a camera, until Ctrl-C", "sppdet video camera:0 --model fast --out seen.mp4"),
        )
    )(video)


def video(
    source: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO", help="A video file, or camera:0, camera:1, ..", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write the video, with its boxes, here: .mp4, .mkv or .avi.",
        ),
    ] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option("--jsonl", metavar="FILE", help="Write a line of JSON per frame here."),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Look at every N-th frame only.")] = 1,
    start: Annotated[
        str, typer.Option("--from", metavar="TIME", help="Begin here: seconds, or 1:30.")
    ] = "0",
    end: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="TIME", help="End before this time.", show_default="to the last frame"
        ),
    ] = None,
    model: ModelOption = "default",
    threshold: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Show boxes that are right with at least this probability."
        ),
    ] = THRESHOLD,
    config: ConfigOption = None,
    changes: SetOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Find objects in a video or camera; print them, draw them, or write them line by line.

    Boxes are kept steady from frame to frame, and each object has a number. At Ctrl-C, and where
    the video is damaged, what was done so far is kept.
    """
    from sppdet.core.jit import warm_up
    from sppdet.media.steady import SteadyBoxes
    from sppdet.media.video_reader import VideoReader
    from sppdet.media.video_writer import VideoWriter

    first, last = parse_time(start), None if end is None else parse_time(end)
    if last is not None and last <= first:
        raise typer.BadParameter(f"--to {end} is not after --from {start}")
    _check_targets(source, out, jsonl)
    use_threads(threads)
    results = _Results()
    with ExitStack() as files:
        # Called last: also where the video ends in an error, or at Ctrl-C.
        files.callback(results.tell, out, jsonl)
        reader = files.enter_context(VideoReader(source, every=every, start=first, end=last))
        if out is not None:
            # A frame that is shown for seconds is repeated: few players show less than one each.
            fps = max(1.0, reader.fps / every)
            results.video = files.enter_context(VideoWriter(out, fps))
        if jsonl is not None:
            jsonl.parent.mkdir(parents=True, exist_ok=True)
            results.lines = files.enter_context(jsonl.open("w", encoding="utf-8"))
        detector = load_detector(model, device, config, changes)
        warm_up()
        steady = SteadyBoxes(threshold)
        for frame in reader:
            results.add(frame, *steady.update(detector.detect(frame.image), frame.seconds))


def _check_targets(source: str, *targets: Path | None) -> None:
    """Raise VideoError where a file would be written over the input, or over the other one."""
    taken = {Path(source).resolve()}
    for one in targets:
        if one is not None:
            if one.resolve() in taken:
                raise VideoError("would be written over", path=one, hint="name another file")
            taken.add(one.resolve())


@dataclass
class _Results:
    """Where the frames' detections go, and how many there were."""

    lines: TextIO | None = None
    video: VideoWriter | None = None
    frames: int = 0
    objects: int = 0

    def tell(self, *targets: Path | None) -> None:
        """Print how much was found, and where it is."""
        written = [str(one) for one in targets if one is not None and self.frames]
        where = f"; written to {' and '.join(written)}" if written else ""
        say(f"{self.objects} objects in {self.frames} frames{where}")

    def add(self, frame: Frame, found: Detections, tracks: IntArray) -> None:
        """Write a frame's detections, or print them where they are written nowhere."""
        if self.lines is not None:
            self.lines.write(json.dumps(_record(frame, found, tracks)) + "\n")
            self.lines.flush()
        if self.video is not None:
            self.video.write(_drawn(frame, found), frame.seconds)
        if self.lines is None and self.video is None:
            say(_format_frame(frame, found, tracks))
        self.frames += 1
        self.objects = max(self.objects, int(tracks.max(initial=0)))


def _record(frame: Frame, found: Detections, tracks: IntArray) -> dict[str, Any]:
    """What a line holds of a frame; `track` numbers objects from 1."""
    objects = [
        {
            "class": one.name,
            "score": one.score,
            "margin": one.margin,
            "box": list(one.box),
            "track": int(track),
        }
        for one, track in zip(found, tracks, strict=True)
    ]
    height, width = frame.image.shape[:2]
    place = {"frame": frame.number, "seconds": round(frame.seconds, 6)}
    return {**place, "width": width, "height": height, "detections": objects}


def _drawn(frame: Frame, found: Detections) -> ImageArray:
    from sppdet.outputs.drawing import draw_detections

    return draw_detections(frame.image, found)


def _format_frame(frame: Frame, found: Detections, tracks: IntArray) -> str:
    """Format a frame in a line: its time, and each object's class, number and score."""
    objects = (
        f"{one.name} {number} ({one.score:.2f})" for one, number in zip(found, tracks, strict=True)
    )
    return f"{frame.seconds:9.2f} s  {', '.join(objects) or 'nothing'}"
