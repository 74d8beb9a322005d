"""The model file: a file of tensors whose metadata is the header."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppdet.core.errors import ConfigError, ModelFormatError
from sppdet.core.tensor_files import (
    Arrays,
    TensorFileError,
    load_tensors,
    read_metadata,
    save_tensors,
)
from sppdet.core.versions import versions

FORMAT_VERSION = 2
SUFFIX = ".safetensors"
# In the folder of a run.
MODEL_FILE = "model.safetensors"

# Kinds of models, and the command that writes each.
DETECTOR, CLASSIFIER, SVM_CLASSIFIER = "detector", "classifier", "classifier of SVMs"
_COMMANDS = {
    DETECTOR: "sppdet train",
    CLASSIFIER: "sppdet classify train",
    SVM_CLASSIFIER: "sppdet classify train-svm",
}


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """Header of a model file; every value is JSON-able.

    Attributes:
        classes: the class names, in the order of the scores.
        config: the settings of the model, as `settings.to_dict` gives them.
        backbone: the name of the network its maps come from.
        backbone_digest: SHA-256 of that network's weights.
        description: one line for people.
        provenance: how it was trained: data, versions, figures.
        kind: what the file is a model of.
    """

    classes: tuple[str, ...]
    config: dict[str, Any]
    backbone: str
    backbone_digest: str
    description: str
    provenance: dict[str, Any]
    kind: str = DETECTOR


# Types of the header's fields in JSON.
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
    """Write one model file, atomically; equal input gives equal bytes.

    Invariant: `load_model(path)` gives back the header and the tensors, dtypes and shapes included.

    Raises:
        ModelFormatError: a tensor has NaN or infinity; `path` stays as it was.
        ValueError or TypeError: the header cannot be JSON.
    """
    _check_finite(tensors, path)
    save_tensors(path, tensors, {"format_version": FORMAT_VERSION, **asdict(header)})


def load_model(path: Path, kind: str = DETECTOR) -> tuple[ModelHeader, Arrays]:
    """Read the header and the tensors of a model file, in the dtypes they were stored in.

    What is allocated is bounded by the file's size, whatever the file claims.

    Raises:
        ModelFormatError: names the file and the remedy when it is missing, not a model, not of
            this kind, of another format version, truncated, changed in any bit of its content, or
            not finite.
    """
    # By itself and first: a file of another version may differ in all else.
    read_header(path)
    with _model_errors(path):
        tensors, metadata = load_tensors(path)
    header = _parse_header(metadata, path)
    if header.kind != kind:
        raise ModelFormatError(
            f"is a {header.kind}, not a {kind}",
            path=path,
            hint=f"give a file that {_COMMANDS[kind]} wrote",
        )
    _check_finite(tensors, path)
    return header, tensors


def read_header(path: Path) -> ModelHeader:
    """Read a model file's header; no tensor is read or verified.

    Raises:
        ModelFormatError: it is missing, not a model, truncated or of another format version.
    """
    # Reading a directory fails, and reading a pipe or a device may wait for ever.
    with _model_errors(path):
        if path.exists() and not path.is_file():
            kind = "a directory" if path.is_dir() else "not a regular file"
            inner = path / MODEL_FILE
            hint = f"give its model file: {inner}" if inner.is_file() else "give a model file"
            raise ModelFormatError(f"is {kind}", path=path, hint=hint)
        metadata = read_metadata(path)
    if metadata is None:
        raise _not_a_model(path)
    return _parse_header(metadata, path)


def check_backbone(header: ModelHeader, weights_digest: str, path: Path) -> None:
    """Raise ModelFormatError if the model was trained on other backbone weights than these."""
    if weights_digest != header.backbone_digest:
        raise ModelFormatError(
            f"was trained on other weights of {header.backbone} than those installed",
            path=path,
            hint="install the package versions named in its header, or train again",
        )


@contextmanager
def check_config(header: ModelHeader, path: Path) -> Iterator[None]:
    """Turn a ConfigError about a header's settings into ModelFormatError that names the version."""
    try:
        yield
    except ConfigError as error:
        made, here = header.provenance.get("sppdet", "another version"), versions()["sppdet"]
        raise ModelFormatError(
            f"was written by sppdet {made}, whose settings this sppdet {here} does not have "
            f"({error.message})",
            path=path,
            hint="install the sppdet that wrote it, or train again",
        ) from error


@contextmanager
def check_arrays(path: Path) -> Iterator[None]:
    """Turn what layers raise for arrays of other shapes or types into ModelFormatError."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelFormatError(
            f"its arrays do not fit its config: {error}", path=path, hint="train again"
        ) from error


def check_shapes(arrays: Mapping[str, NDArray[Any]], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError where arrays are missing or of other shapes: before layers have memory."""
    for name, shape in wanted.items():
        found = arrays[name].shape if name in arrays else None
        if found != shape:
            raise ValueError(f"{name} is {'missing' if found is None else found}, not {shape}")


def _parse_header(metadata: Mapping[str, Any], path: Path) -> ModelHeader:
    version = metadata.get("format_version")
    if type(version) is not int or version < 1:
        raise _not_a_model(path)
    if version != FORMAT_VERSION:
        raise ModelFormatError(
            f"has format version {version}, and this sppdet reads version {FORMAT_VERSION}",
            path=path,
            hint="install a newer sppdet" if version > FORMAT_VERSION else "train the model again",
        )
    fields = {"kind": DETECTOR, **metadata}
    wrong = [name for name, kind in _TYPES.items() if type(fields.get(name)) is not kind]
    if not wrong and not all(isinstance(name, str) for name in fields["classes"]):
        wrong = ["classes"]
    if wrong:
        raise ModelFormatError(
            f"its header has no valid {wrong[0]!r}", path=path, hint="train the model again"
        )
    known: dict[str, Any] = {name: fields[name] for name in _TYPES}
    return ModelHeader(**{**known, "classes": tuple(known["classes"])})


def _check_finite(tensors: Mapping[str, NDArray[Any]], path: Path) -> None:
    for name, array in tensors.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelFormatError(
                f"tensor {name!r} has values that are not finite",
                path=path,
                hint="train the model again, with a lower learning rate",
            )


@contextmanager
def _model_errors(path: Path) -> Iterator[None]:
    """Turn errors of reading into ModelFormatError, each with its remedy."""
    try:
        yield
    except TensorFileError as error:
        raise ModelFormatError(
            error.message, path=path, hint="copy or download it again"
        ) from error
    except FileNotFoundError:
        raise ModelFormatError("no such model file", path=path, hint="check the path") from None
    except OSError as error:
        raise ModelFormatError(
            f"cannot be read ({error.strerror})", path=path, hint="check the file's permissions"
        ) from None
    except ValueError as error:  # a name with a null character
        raise ModelFormatError(
            f"no such model file ({error})", path=path, hint="check the path"
        ) from None


def _not_a_model(path: Path) -> ModelFormatError:
    return ModelFormatError(
        "is not an sppdet model, or only the beginning of one",
        path=path,
        hint="give a file that sppdet train or sppdet classify wrote, or copy it again",
    )
