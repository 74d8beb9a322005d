"""Tensors and their metadata in one safetensors file; the one format of all that is kept.

A file's metadata holds JSON, and a digest over that JSON and every tensor: a file that loads holds
what was saved, bit for bit. Nothing in it is code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from sppdet.core.errors import SppdetError
from sppdet.core.files import array_digest, atomic_write_bytes, sha256

if TYPE_CHECKING:
    from torch import Tensor

# A single entry: safetensors writes several in an order that changes from call to call.
_ENTRY, _DIGEST = "sppdet", "digest"
# The file begins with the length of its JSON as a little-endian integer of this many bytes.
_LENGTH_BYTES = 8
# safetensors itself reads no longer JSON.
_MAX_JSON_BYTES = 100_000_000
# What safetensors and JSON raise for damaged bytes, and numpy for dtypes and shapes it has not.
_DAMAGE = (SafetensorError, AttributeError, KeyError, TypeError, ValueError, RecursionError)

Arrays = dict[str, NDArray[Any]]


class TensorFileError(SppdetError):
    """A file of tensors is truncated, damaged, or not one of ours."""


class TensorFile(NamedTuple):
    """Tensors by name, writable, and JSON-able metadata."""

    tensors: Arrays
    metadata: dict[str, Any]


def save_tensors(
    path: Path,
    tensors: Mapping[str, NDArray[Any] | Tensor],
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write tensors and JSON-able metadata to one file, atomically; equal input, equal bytes.

    Views and tensors on other devices are stored by value, numbers of either byte order. The
    metadata's key "digest" is taken.

    Raises:
        ValueError or TypeError: the metadata cannot be JSON; `path` stays as it was.
    """
    arrays = {name: _storable(tensors[name]) for name in sorted(tensors)}
    # Through JSON once, so that the digest is taken over what a reader will see.
    entry = json.loads(_json(metadata or {}))
    text = _json({**entry, _DIGEST: _digest(entry, arrays)})
    atomic_write_bytes(path, safetensors.numpy.save(arrays, metadata={_ENTRY: text}))


def load_tensors(path: Path, *, verify: bool = True) -> TensorFile:
    """Read what `save_tensors` wrote, in the dtypes it was stored in.

    What is allocated is bounded by the file's size, whatever the file claims. Without `verify`
    the digest is not computed: for files that were verified before.

    Raises:
        TensorFileError: the file is truncated, changed in any bit of its content, or not ours.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    try:
        arrays: Arrays = safetensors.numpy.load(data)
        end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
        entry = _parse_entry(json.loads(data[_LENGTH_BYTES:end])["__metadata__"])
        digest = entry.pop(_DIGEST)
        matches = not verify or digest == _digest(entry, arrays)
    except _DAMAGE as error:
        raise TensorFileError(f"is damaged ({error})", path=path) from error
    if not matches:
        raise TensorFileError("is damaged: its content does not match its digest", path=path)
    return TensorFile(arrays, entry)


def read_metadata(path: Path) -> dict[str, Any] | None:
    """Read a file's metadata and no tensor; None if it is not ours, or only its beginning.

    Raises:
        TensorFileError: the file ends before its tensors do.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        start = _LENGTH_BYTES + length
        if size < start or length > _MAX_JSON_BYTES:
            return None
        text = stream.read(length)
    try:
        outer = json.loads(text)
        entry = _parse_entry(outer.pop("__metadata__"))
        end = start + max((one["data_offsets"][1] for one in outer.values()), default=0)
        truncated = size < end
    except (*_DAMAGE, IndexError):
        return None
    if truncated:
        raise TensorFileError(f"is truncated: {size} of {end} bytes", path=path)
    entry.pop(_DIGEST, None)
    return entry


class TensorCache:
    """Results on disk, one file per item, named by the key of all that they depend on.

    A file can never be stale; one that is truncated or damaged counts as absent, to be computed
    anew.

    Args:
        folder: holds the files; made when the first is saved.
        key: digest or text of everything besides the item that decides a result.
        suffix: of the files' names.
    """

    def __init__(self, folder: Path, key: str, suffix: str = ".safetensors") -> None:
        self.folder, self.key, self.suffix = folder, key, suffix

    def path(self, item: str) -> Path:
        """Return the path of the item with this digest, whether or not the file is there."""
        name = sha256(self.key, item)
        return self.folder / name[:2] / f"{name[2:34]}{self.suffix}"

    def save(
        self,
        item: str,
        tensors: Mapping[str, NDArray[Any] | Tensor],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep an item's result."""
        save_tensors(self.path(item), tensors, metadata)

    def load(self, item: str, *, verify: bool = True) -> TensorFile | None:
        """Return an item's result, or None if there is none or its file is damaged."""
        try:
            return load_tensors(self.path(item), verify=verify)
        except (OSError, TensorFileError):
            return None


def _storable(value: NDArray[Any] | Tensor) -> NDArray[Any]:
    """Return the array as safetensors must have it: contiguous, little-endian."""
    # A numpy scalar is stored as an array without dimensions.
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
    else:
        array = value.detach().cpu().numpy()
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _parse_entry(metadata: Mapping[str, str]) -> dict[str, Any]:
    entry = json.loads(metadata[_ENTRY])
    if not isinstance(entry, dict):
        raise TypeError("its metadata is not a table")
    return entry


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


def _digest(entry: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Hex SHA-256 over the metadata and every tensor's name, dtype, shape and values.

    Raises ValueError for metadata with a number that JSON reads as infinite.
    """
    parts = [_json(entry)]
    for name in sorted(arrays):
        parts += [name, array_digest(arrays[name])]
    return sha256(*parts)
