"""Videos and cameras, frame by frame, through OpenCV: its own time for each, one in memory.

FFmpeg decodes files, so that a variable frame rate and a phone's turned camera are seen to: a
frame's time is its timestamp, and it comes upright.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import cv2
import numpy as np

from sppdet.core.errors import VideoError
from sppdet.core.images import MAX_PIXELS
from sppdet.core.types import ImageArray

# Read once by OpenCV, at the first video: FFmpeg's own words on damaged files come on top of our
# errors otherwise.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

CAMERA = re.compile(r"camera:(\d{1,3})")
# Frames a second of a source that states none, or none that a video can have.
USUAL_FPS, MOST_FPS = 30.0, 240.0
# By less than this many seconds a whole file may end before its header says: sound lasts longer.
EARLY = 0.5


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
        number: from 0, of the source.
        seconds: from the start of the video; of a camera from its first frame.
        image: `uint8 (H, W, 3)`, RGB, upright.
    """

    number: int
    seconds: float
    image: ImageArray


class VideoReader:
    """An open video file, or camera `camera:N`; iterating yields its frames, once.

    After the last frame that can be read, iterating raises VideoError where a file ends before its
    header says, and where a camera gives no more.

    Args:
        source: a file, or `camera:0` and on.
        every: yield each frame of this number only, from the first at `start`.
        start, end: seconds; frames from `start` to before `end` are read; None: to the last.

    Raises VideoError for a file or camera that is missing or cannot be opened, and for frames of
    more than `MAX_PIXELS`; ValueError for `every` below 1.

    Attributes:
        size: width and height in pixels, as the source states them.
        fps: frames a second, as the source states them; their mean where they vary.
    """

    def __init__(
        self, source: str | Path, *, every: int = 1, start: float = 0.0, end: float | None = None
    ) -> None:
        if every < 1:
            raise ValueError(f"every frame of {every}")
        self.source, self._every, self._start, self._end = str(source), every, start, end
        self._camera = CAMERA.fullmatch(self.source)
        with quiet_opencv():
            if self._camera:
                self._capture = cv2.VideoCapture(int(self._camera[1]))
            else:
                # No other backend: one of them takes a name for a pattern of many files.
                path = _checked(Path(source)).resolve()
                self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            self._fail_to_open()
        sides = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        width, height = (self._capture.get(side) for side in sides)
        self.size = int(width), int(height)
        if width * height > MAX_PIXELS:
            self.close()
            problem = f"frames of {self.size[0]}x{self.size[1]} pixels exceed the cap"
            raise VideoError(problem, path=source, hint=f"shrink it to {MAX_PIXELS:,} pixels")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= MOST_FPS else USUAL_FPS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file or camera."""
        self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        number, wanted, last, begin = 0, 0, -math.inf, time.monotonic()
        while self._grab():
            seconds = time.monotonic() - begin if self._camera else self._time(number, last)
            if self._end is not None and seconds >= self._end:
                return
            last = seconds
            if seconds >= self._start:
                if wanted % self._every == 0:
                    image = self._retrieve()
                    if image is None:
                        break
                    yield Frame(number, seconds, image)
                wanted += 1
            number += 1
        self._check_end(number, last)

    def _grab(self) -> bool:
        with quiet_opencv():
            return bool(self._capture.grab())

    def _retrieve(self) -> ImageArray | None:
        """Decode the frame that was grabbed; None where that fails."""
        with quiet_opencv():
            done, pixels = self._capture.retrieve()
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8) if done else None

    def _time(self, number: int, last: float) -> float:
        """Seconds of the frame that was grabbed; one frame after the last if it states none."""
        seconds = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
        if number == 0:
            return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
        return seconds if seconds > last else last + 1 / self.fps

    def _check_end(self, number: int, last: float) -> None:
        """Raise VideoError where there should be more frames than `number`, the last at `last`."""
        if self._camera:
            raise VideoError("gives no more frames", path=self.source, hint="is it plugged in?")
        hint = "copy it anew from its source"
        if not number:
            raise VideoError("holds no frame that can be read", path=self.source, hint=hint)
        # What the header states, as OpenCV reads it: their quotient is the length in seconds.
        count, fps = (
            self._capture.get(one) for one in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS)
        )
        if not (count > 0 and fps > 0):
            return
        length, reached = count / fps, last + 1 / fps
        if length - reached > max(EARLY, 2 / fps):
            problem = f"ends after {reached:.1f} of {length:.1f} s: it is truncated or damaged"
            raise VideoError(problem, path=self.source, hint=hint)

    def _fail_to_open(self) -> None:
        if self._camera:
            raise VideoError(
                "no such camera, or it is in use",
                path=self.source,
                hint="name another, such as camera:1, or close what uses it",
            )
        raise VideoError(
            "not a video that can be read, or a truncated one",
            path=self.source,
            hint="play it to see whether it is whole, and convert it to MP4",
        )


def _checked(path: Path) -> Path:
    """Return the path of a file; VideoError where it is none, or empty."""
    try:
        # A pipe or a device could block for ever.
        problem = "" if path.is_file() else "no such video file"
        if path.is_dir():
            problem = "is a folder, not a video"
        if not problem and path.stat().st_size == 0:
            problem = "is empty (0 bytes)"
    except (OSError, ValueError) as error:
        problem = f"cannot be read ({error})"
    if problem:
        raise VideoError(problem, path=path, hint="check the path")
    return path


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV from printing: what fails inside is an error of ours."""
    logging = cv2.utils.logging
    before = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(before)
