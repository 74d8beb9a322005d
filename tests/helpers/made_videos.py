"""Videos made and read by PyAV, so that what OpenCV says of them can be checked."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from sppdet.core.types import ImageArray

# Stripes of a frame, black or white: its number in binary.
BITS = 8


def numbered_frames(count: int, width: int = 64, height: int = 48) -> list[ImageArray]:
    """Frames whose stripes tell their number."""
    columns = np.arange(width) * BITS // width
    rows = [(n >> columns & 1) * 255 for n in range(count)]
    return [np.tile(row[None, :, None], (height, 1, 3)).astype(np.uint8) for row in rows]


def number_of(image: ImageArray) -> int:
    """The number that a frame's stripes tell."""
    stripes = np.array_split(image.mean(axis=(0, 2)), BITS)
    return sum(1 << bit for bit, stripe in enumerate(stripes) if stripe.mean() > 127)


def write_clip(path: Path, frames: Sequence[ImageArray], times: Iterable[int]) -> Path:
    """A video of frames at times in milliseconds, which may be uneven."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=1000)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for image, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def read_clip(path: Path) -> list[tuple[float, ImageArray]]:
    """Seconds and pixels of each frame of a video."""
    with av.open(str(path)) as file:
        return [
            (float(frame.time or 0), np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
            for frame in file.decode(video=0)
        ]


def turn_by_90(path: Path) -> Path:
    """Write into an MP4 file's track header that it is shown turned clockwise, as phones do."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4
    matrix = header + 40
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path
