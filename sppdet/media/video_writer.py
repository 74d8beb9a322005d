"""Writing videos through OpenCV: each frame at its time, and a file that is whole in any case."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2

from sppdet.core.errors import VideoError
from sppdet.core.files import NEW_FILE_MODE
from sppdet.core.types import ImageArray
from sppdet.media.video_reader import quiet_opencv

# Containers, and the encoders that every wheel of OpenCV brings: MPEG-4 part 2 and Motion JPEG.
CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
# A frame that stays longer is a jump of the timestamps, and is cut to this.
MOST_SECONDS = 60.0


class VideoWriter:
    """A video file that is written frame by frame, beside its target, and renamed when closed.

    Frames may come at any times: each is repeated until the next one's, or left out where another
    takes its place, so that the video's times are the frames' within half a frame. Leaving the
    `with` block closes the file in any case, also at Ctrl-C: what was written is kept.

    Args:
        path: `.mp4`, `.mkv` or `.avi`.
        fps: frames a second, above 0.

    Raises VideoError for another suffix and a place that cannot be written.
    """

    def __init__(self, path: Path, fps: float) -> None:
        suffix = path.suffix.lower()
        if suffix not in CODECS:
            hint = f"name it {', '.join(f'*{one}' for one in CODECS)}"
            raise VideoError("not a kind of video that can be written", path=path, hint=hint)
        if path.is_dir():
            raise VideoError("is a folder, not a video", path=path, hint="name a file in it")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # OpenCV chooses the container by the suffix.
            handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=suffix)
        except OSError as error:
            problem = f"cannot be written ({error.strerror})"
            raise VideoError(problem, path=path, hint="name another place") from None
        os.close(handle)
        self.path, self.fps, self._part = path, fps, Path(part)
        self._codec = cv2.VideoWriter.fourcc(*CODECS[suffix])
        self._file: Any = None
        self._first, self._slot, self._count = 0.0, 0, 0
        self._shown: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, image: ImageArray, seconds: float) -> None:
        """Write a frame `uint8 (H, W, 3)`, RGB, of a time not before the last one's.

        Of an odd side the encoder leaves out the last row or column. Raises VideoError where the
        encoder refuses the size, ValueError for a frame of another size than the first.
        """
        if self._file is None:
            self._open(image, seconds)
        if image.shape != self._shown.shape:
            raise ValueError(f"a frame {image.shape} in a video of {self._shown.shape}")
        slot = round((seconds - self._first) * self.fps)
        if slot - self._slot > MOST_SECONDS * self.fps:
            self._first += (slot - self._slot) / self.fps - MOST_SECONDS
            slot = self._slot + round(MOST_SECONDS * self.fps)
        self._show_until(slot)
        self._shown = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)

    def close(self) -> None:
        """Write the last frame, and put the video in its place; none where it has no frames.

        Raises VideoError where not all of it was written, since the disk is full; what can be read
        of it is kept.
        """
        if self._file is None:
            self._part.unlink(missing_ok=True)
            return
        self._show_until(self._slot + 1)
        with quiet_opencv():
            self._file.release()
        self._file = None
        # OpenCV tells of no error when writing.
        readable, count = self._read_back()
        if readable:
            self._part.chmod(NEW_FILE_MODE)
            self._part.replace(self.path)
        self._part.unlink(missing_ok=True)
        if count < self._count - 1:
            problem = f"its {self._count} frames could not all be written"
            raise VideoError(problem, path=self.path, hint="is the disk full?")

    def _open(self, image: ImageArray, seconds: float) -> None:
        height, width = image.shape[:2]
        with quiet_opencv():
            opened = cv2.VideoWriter(
                str(self._part), cv2.CAP_FFMPEG, self._codec, self.fps, (width, height)
            )
        if not opened.isOpened():
            problem = f"cannot be written as a video of {width}x{height} pixels"
            raise VideoError(problem, path=self.path, hint="name another suffix, such as .avi")
        self._file, self._first, self._shown = opened, seconds, image

    def _show_until(self, slot: int) -> None:
        """Write the frame that is shown until the place of the next."""
        with quiet_opencv():
            for _ in range(self._slot, slot):
                self._file.write(self._shown)
                self._count += 1
        self._slot = max(self._slot, slot)

    def _read_back(self) -> tuple[bool, float]:
        """Whether what was written can be read, and how many frames it says to have."""
        with quiet_opencv():
            written = cv2.VideoCapture(str(self._part), cv2.CAP_FFMPEG)
            readable, count = written.grab(), written.get(cv2.CAP_PROP_FRAME_COUNT)
            written.release()
        return readable, count
