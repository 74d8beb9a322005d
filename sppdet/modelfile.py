"""The model file: one safetensors file whose metadata holds the header as JSON.

Nothing in it is code. A digest over the header and every tensor is stored beside them, so that
a file which loads holds what was saved, bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from sppdet.errors import ModelFormatError
from sppdet.files import array_digest, atomic_write_bytes, sha256

FORMAT_VERSION = 1
SUFFIX = ".safetensors"

# Kinds of models, and the command that writes each.
DETECTOR, CLASSIFIER, SVM_CLASSIFIER = "detector", "classifier", "classifier of SVMs"
_COMMANDS = {
    DETECTOR: "sppdet train",
    CLASSIFIER: "sppdet classify train",
    SVM_CLASSIFIER: "sppdet classify represent",
}

# A single entry: safetensors writes several in an order that changes from call to call.
_ENTRY = "sppdet"
# The file begins with the length of its JSON as a little-endian integer of this many bytes.
_LENGTH_BYTES = 8
# safetensors itself reads no longer JSON.
_MAX_JSON_BYTES = 100_000_000

_COPY_AGAIN = "copy or download it again"

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """What a model file says about itself; every value is JSON-able.

    Attributes:
        classes: the class names, in the order of the scores.
        config: the settings it was trained with, as `settings.to_dict` gives them.
        backbone: the name of the network its maps come from.
        backbone_digest: SHA-256 of that network's weights.
        description: one line for people.
        provenance: how it was trained: data, versions, figures.
        kind: what the file is a model of; files from before there were several are detectors.
    """

    classes: tuple[str, ...]
    config: dict[str, Any]
    backbone: str
    backbone_digest: str
    description: str
    provenance: dict[str, Any]
    kind: str = DETECTOR


# What JSON makes of the header's fields.
_TYPES: dict[str, type] = {
    "classes": list,
    "config": dict,
    "backbone": str,
    "backbone_digest": str,
    "description": str,
    "provenance": dict,
    "kind": str,
}


def save_model(path: Path, header: ModelHeader, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Writes one model file, atomically; equal input gives equal bytes.

    Law: `load_model(path)` gives back the header and the tensors, dtypes and shapes included.
    Raises ModelFormatError, and leaves `path` as it was, for a tensor with NaN or infinity;
    ValueError or TypeError for a header that JSON cannot hold.
    """
    arrays = {name: _little_endian(tensors[name]) for name in sorted(tensors)}
    _check_finite(arrays, path)
    # Through JSON once, so that the digest is taken over what a reader will see.
    entry = json.loads(_json({"format_version": FORMAT_VERSION, **asdict(header)}))
    text = _json({**entry, "digest": _digest(entry, arrays)})
    atomic_write_bytes(path, safetensors.numpy.save(arrays, metadata={_ENTRY: text}))


def load_model(path: Path, kind: str = DETECTOR) -> tuple[ModelHeader, Tensors]:
    """The header and the tensors of a model file, in the dtypes they were stored in.

    Raises ModelFormatError, naming the file and the mend, when it is missing, not a model, not of
    this kind, of another format version, truncated, changed in any bit of its content, or not
    finite. What is allocated is bounded by the file's size, whatever the file claims.
    """
    try:
        entry = _read_entry(path)
        tensors: Tensors = safetensors.numpy.load(path.read_bytes())
    except ModelFormatError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from None
    # The others stand for dtypes and shapes that numpy does not have.
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(f"is damaged ({error})", where=path, mend=_COPY_AGAIN) from error
    stored = entry.pop("digest", None)
    if stored != _digest(entry, tensors):
        raise ModelFormatError(
            "is damaged: its content does not match its digest", where=path, mend=_COPY_AGAIN
        )
    header = _as_header(entry, path)
    if header.kind != kind:
        raise ModelFormatError(
            f"is a {header.kind}, not a {kind}",
            where=path,
            mend=f"give a file that {_COMMANDS[kind]} wrote",
        )
    _check_finite(tensors, path)
    return header, tensors


def read_header(path: Path) -> ModelHeader:
    """What a model file says of itself; whether its tensors are whole is not looked at.

    Raises ModelFormatError when it is missing, not a model or of another format version.
    """
    return _as_header(_read_entry(path), path)


def _read_entry(path: Path) -> dict[str, Any]:
    """Our entry of the file's metadata, its format version checked; no tensor is read."""
    try:
        outer, end, size = _read_json(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        entry = json.loads(outer["__metadata__"][_ENTRY])
        version = entry["format_version"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise _not_a_model(path) from None
    if type(version) is not int or version < 1:
        raise _not_a_model(path)
    if version != FORMAT_VERSION:
        raise ModelFormatError(
            f"has format version {version}, and this sppdet reads version {FORMAT_VERSION}",
            where=path,
            mend="install a newer sppdet" if version > FORMAT_VERSION else "train the model again",
        )
    if size < end:
        raise ModelFormatError(f"is truncated: {size} of {end} bytes", where=path, mend=_COPY_AGAIN)
    return dict(entry)


def _read_json(path: Path) -> tuple[dict[str, Any], int, int]:
    """The file's JSON, the size in bytes that its tensors' offsets ask for, and its true size."""
    # Reading a directory fails, and reading a pipe or a device may wait for ever.
    if path.exists() and not path.is_file():
        kind = "a directory" if path.is_dir() else "not a regular file"
        raise ModelFormatError(f"is {kind}", where=path, mend="give a model file")
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if size == 0 or size < _LENGTH_BYTES + length or length > _MAX_JSON_BYTES:
            raise _not_a_model(path)
        text = stream.read(length)
    try:
        outer = json.loads(text)
        ends = [outer[name]["data_offsets"][1] for name in outer if name != "__metadata__"]
        end = _LENGTH_BYTES + length + max([0, *ends])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError):
        raise _not_a_model(path) from None
    return outer, end, size


def _as_header(entry: dict[str, Any], path: Path) -> ModelHeader:
    entry = {"kind": DETECTOR, **entry}
    wrong = [name for name, kind in _TYPES.items() if type(entry.get(name)) is not kind]
    if not wrong and not all(isinstance(name, str) for name in entry["classes"]):
        wrong = ["classes"]
    if wrong:
        raise ModelFormatError(
            f"its header has no valid {wrong[0]!r}", where=path, mend="train the model again"
        )
    known: dict[str, Any] = {name: entry[name] for name in _TYPES}
    return ModelHeader(**{**known, "classes": tuple(known["classes"])})


def _check_finite(tensors: Mapping[str, NDArray[Any]], path: Path) -> None:
    for name, array in tensors.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelFormatError(
                f"tensor {name!r} has values that are not finite",
                where=path,
                mend="train the model again, with a lower learning rate",
            )


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    """The array as safetensors must have it: contiguous, in little-endian byte order."""
    return np.array(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


def _digest(entry: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over the header and every tensor's name, dtype, shape and values.

    A number that JSON reads as infinite has no digest: the empty string.
    """
    try:
        parts = [_json(entry)]
    except ValueError:
        return ""
    for name in sorted(tensors):
        parts += [name, array_digest(tensors[name])]
    return sha256(*parts)


def _not_a_model(path: Path) -> ModelFormatError:
    return ModelFormatError(
        "is not an sppdet model, or only the beginning of one",
        where=path,
        mend="give a file that sppdet train or sppdet classify wrote, or copy it again",
    )


def _unreadable(path: Path, error: OSError) -> ModelFormatError:
    if isinstance(error, FileNotFoundError):
        return ModelFormatError("no such model file", where=path, mend="check the path")
    return ModelFormatError(
        f"cannot be read ({error.strerror})", where=path, mend="check the file's permissions"
    )
