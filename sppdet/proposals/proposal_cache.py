"""Proposals of many images: computed over all cores, kept on disk by content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sppdet.core.errors import SppdetError
from sppdet.core.files import sha256
from sppdet.core.parallel import available_cores, prefetch
from sppdet.core.tensor_files import TensorCache
from sppdet.core.types import FloatArray, ImageArray
from sppdet.proposals.proposer import Proposer

# Changes with the meaning of what is stored: files of another version are never read.
CACHE_VERSION = "2"

ReadImage = Callable[[Path], ImageArray]
Outcome = FloatArray | SppdetError


def cached_proposals(
    path: Path, read_image: ReadImage, proposer: Proposer, cache_dir: Path | None
) -> FloatArray:
    """Propose boxes `float32 (N, 4)` of an image file, or read them from `cache_dir` if there.

    Files are keyed by the image file's bytes and the proposer's key; one that is truncated or
    damaged is made anew. `read_image` is called only when boxes must be computed.
    """
    image_digest = None if cache_dir is None else _digest(path)
    if cache_dir is None or image_digest is None:
        return proposer(read_image(path))
    cache = proposal_files(proposer, cache_dir)
    found = cache.load(image_digest)
    if found is not None and len(found.tensors["boxes"]):
        return found.tensors["boxes"]
    boxes = proposer(read_image(path))
    cache.save(image_digest, {"boxes": boxes})
    return boxes


def proposal_files(proposer: Proposer, cache_dir: Path) -> TensorCache:
    """Open the files of a proposer's boxes, by the digests of the image files' bytes."""
    return TensorCache(cache_dir, sha256(CACHE_VERSION, proposer.key), ".boxes")


def _digest(path: Path) -> str | None:
    """SHA-256 of the file's bytes; None if it cannot be read (`read_image` will say)."""
    try:
        return sha256(path.read_bytes())
    except OSError:
        return None


def propose_all(
    paths: Iterable[Path],
    read_image: ReadImage,
    proposer: Proposer,
    cache_dir: Path | None = None,
    *,
    workers: int = 0,
) -> Iterator[FloatArray]:
    """Yield the proposals of each image file, in the order of `paths`; `float32 (N, 4)` each.

    A few images are in work at once, on `workers` threads (0: one per core; both engines run
    without the interpreter lock), and only those are in memory.

    Raises:
        ImageError (or what else `read_image` raises), when the image's turn comes.
    """
    for _, outcome in attempt_all(paths, read_image, proposer, cache_dir, workers=workers):
        if isinstance(outcome, SppdetError):
            raise outcome
        yield outcome


def attempt_all(
    paths: Iterable[Path],
    read_image: ReadImage,
    proposer: Proposer,
    cache_dir: Path | None = None,
    *,
    workers: int = 0,
) -> Iterator[tuple[Path, Outcome]]:
    """Propose as `propose_all` does, but an image that cannot be read gives its error."""

    def attempt(path: Path) -> Outcome:
        try:
            return cached_proposals(path, read_image, proposer, cache_dir)
        except SppdetError as error:
            return error

    return prefetch(paths, attempt, workers=workers or available_cores())
