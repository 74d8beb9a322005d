"""Proposals of many images: computed over all cores, kept on disk by content."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sppdet.errors import SppdetError
from sppdet.files import atomic_write_bytes, sha256
from sppdet.proposals.proposer import Proposer
from sppdet.types import FloatArray, ImageArray

# A file is this line, the SHA-256 of the rest, and the boxes as little-endian float32.
MAGIC = b"sppdet proposals 1\n"
_DIGEST = 32
# Images in work at once for each worker: enough to keep all busy, few enough to bound memory.
_AHEAD = 4

ReadImage = Callable[[Path], ImageArray]
Outcome = FloatArray | SppdetError


def encode(boxes: FloatArray) -> bytes:
    """The bytes of a cache file. Law: `decode(encode(boxes)) == boxes`."""
    body = np.ascontiguousarray(boxes, dtype="<f4").tobytes()
    return MAGIC + hashlib.sha256(body).digest() + body


def decode(data: bytes) -> FloatArray | None:
    """The boxes of a cache file, `float32 (N, 4)`; None if the bytes are not a whole one."""
    head = len(MAGIC) + _DIGEST
    body = data[head:]
    if not data.startswith(MAGIC) or len(data) < head or len(body) % 16:
        return None
    if hashlib.sha256(body).digest() != data[len(MAGIC) : head]:
        return None
    return np.frombuffer(body, dtype="<f4").astype(np.float32).reshape(-1, 4)


def cached_proposals(
    path: Path, read_image: ReadImage, proposer: Proposer, cache_dir: Path | None
) -> FloatArray:
    """`float32 (N, 4)`, the proposals of the image file at `path`, from `cache_dir` if there.

    Files are keyed by the image file's bytes and the proposer's key; one that is truncated or
    altered is made anew. `read_image` is called only when boxes must be computed.
    """
    if cache_dir is None:
        return proposer(read_image(path))
    file = _cache_file(path, proposer, cache_dir)
    if file is not None:
        try:
            boxes = decode(file.read_bytes())
        except OSError:
            boxes = None
        if boxes is not None and len(boxes):
            return boxes
    boxes = proposer(read_image(path))
    if file is not None:
        atomic_write_bytes(file, encode(boxes))
    return boxes


def _cache_file(path: Path, proposer: Proposer, cache_dir: Path) -> Path | None:
    """Where the proposals of `path` are kept; None if it cannot be read (`read_image` will say)."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    name = sha256(content, proposer.key)
    return cache_dir / name[:2] / f"{name[2:34]}.boxes"


def propose_all(
    paths: Iterable[Path],
    read_image: ReadImage,
    proposer: Proposer,
    cache_dir: Path | None = None,
    *,
    workers: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Iterator[FloatArray]:
    """The proposals of each image file, in the order of `paths`; `float32 (N, 4)` each.

    A few images are in work at once, on `workers` threads (0: one a core; both engines run without
    the interpreter lock), and only those are in memory. `progress` is called with the number of
    images done so far.

    Raises:
        ImageError (or what else `read_image` raises), when the image's turn comes.
    """
    for done, (_, outcome) in enumerate(
        attempt_all(paths, read_image, proposer, cache_dir, workers=workers), start=1
    ):
        if isinstance(outcome, SppdetError):
            raise outcome
        if progress is not None:
            progress(done)
        yield outcome


def attempt_all(
    paths: Iterable[Path],
    read_image: ReadImage,
    proposer: Proposer,
    cache_dir: Path | None = None,
    *,
    workers: int = 0,
) -> Iterator[tuple[Path, Outcome]]:
    """Like `propose_all`, but an image that cannot be read gives its error and the rest go on."""
    count = workers or available_cores()
    with ThreadPoolExecutor(count, thread_name_prefix="proposals") as pool:
        waiting: deque[tuple[Path, Future[Outcome]]] = deque()
        try:
            for path in paths:
                waiting.append((path, pool.submit(_attempt, path, read_image, proposer, cache_dir)))
                if len(waiting) >= _AHEAD * count:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _attempt(
    path: Path, read_image: ReadImage, proposer: Proposer, cache_dir: Path | None
) -> Outcome:
    try:
        return cached_proposals(path, read_image, proposer, cache_dir)
    except SppdetError as error:
        return error


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
