"""Which models a name means: shipped ones, presets, files, several at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sppdet.core.errors import ConfigError, ModelFormatError
from sppdet.core.model_file import SUFFIX, ModelHeader, read_header
from sppdet.core.settings import read_toml
from sppdet.detection.added.names import ClassNames
from sppdet.detection.probabilities.calibration import Calibration

SHIPPED = Path(__file__).parent / "models"
PRESETS = SHIPPED / "presets"
FUSIONS = ("mean", "union")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A shipped model: the name to load it by, its file, and what the file says of itself."""

    name: str
    path: Path
    description: str
    classes: tuple[str, ...]
    size_bytes: int
    provenance: dict[str, Any]

    @property
    def trained_on(self) -> str:
        """The data set and how many of its images, in words; empty if the file does not say."""
        dataset, images = (self.provenance.get(key) for key in ("dataset", "images"))
        if not isinstance(dataset, str):
            return ""
        return f"{dataset}, {images} images" if isinstance(images, int) else dataset


class Member(NamedTuple):
    """One model that a name stands for.

    Attributes:
        path: its file.
        changes: settings tables that it is put under, with where each comes from.
        calibration: instead of its own, which does not suit other settings or other models beside.
    """

    path: Path
    changes: tuple[tuple[Path, Mapping[str, Any]], ...] = ()
    calibration: Calibration | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """Models under other settings, as a file `presets/NAME.toml` has them.

    The file has one table `[[members]]` per model, with `model = NAME` and settings of that member
    alone; settings outside of them are for all members. `fusion` says how several are put together
    (`Ensemble`). A table `[calibration]` has what makes probabilities of their margins, `slope` and
    `intercept`, each a list of a number per class; without it, the models' own do.
    """

    name: str
    path: Path
    models: tuple[str, ...]
    fusion: str
    settings: Mapping[str, Any]
    own_settings: tuple[Mapping[str, Any], ...]
    calibration: Calibration | None = None

    @classmethod
    def read(cls, path: Path) -> Preset:
        """Read a preset; ConfigError for a file that names no model or an unknown fusion."""
        tables = read_toml(path)
        members, fusion = tables.pop("members", []), tables.pop("fusion", FUSIONS[0])
        fitted = tables.pop("calibration", None)
        if not members or not all(isinstance(one.get("model"), str) for one in members):
            raise ConfigError("names no models", path=path, hint="add [[members]] with model = ...")
        if fusion not in FUSIONS:
            raise ConfigError(
                f"fusion is {fusion!r}", path=path, hint=f"use one of {', '.join(FUSIONS)}"
            )
        models = tuple(one.pop("model") for one in members)
        calibration = None if fitted is None else _read_calibration(fitted, path)
        return cls(path.stem, path, models, fusion, tables, tuple(members), calibration)

    def members(self, files: Mapping[str, Path] | None = None) -> list[Member]:
        """List its models; `files` replace shipped ones by name."""
        found = []
        for model, own in zip(self.models, self.own_settings, strict=True):
            path = (files or {}).get(model) or resolve_model(model)
            tables = tuple((self.path, one) for one in (self.settings, own) if one)
            found.append(Member(path, tables, self.calibration))
        return found


def _read_calibration(table: Any, path: Path) -> Calibration:
    """Read a preset's table `[calibration]`; ConfigError where it is not two lists of numbers."""
    try:
        return Calibration(**{name: np.array(row, np.float32) for name, row in table.items()})
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"its [calibration] is none ({error})",
            path=path,
            hint="give slope and intercept, each a list of a number per class",
        ) from None


def list_models() -> list[ModelInfo]:
    """List the models that come with the package, by name.

    Only their headers are read: whether a file is whole is found out when it is loaded. Raises
    ModelFormatError if one is not a model.
    """
    found = []
    for name, path in _shipped().items():
        header = read_header(path)
        size = path.stat().st_size
        found.append(
            ModelInfo(name, path, header.description, header.classes, size, header.provenance)
        )
    return found


def list_presets() -> list[Preset]:
    """List the presets that come with the package, by name."""
    return [Preset.read(path) for path in sorted(PRESETS.glob("*.toml"))]


def resolve_model(source: str | Path) -> Path:
    """Find the file of a model: a string may name a shipped model, anything else is a path.

    Raises ModelFormatError, naming the shipped models, when there is no such thing.
    """
    shipped = _shipped()
    if isinstance(source, str) and source in shipped:
        return shipped[source]
    try:
        path = Path(source).expanduser()
        if path.exists():
            return path
    # A home that is not known, or a name that the file system cannot hold.
    except (OSError, RuntimeError, ValueError):
        pass
    hint = "give the path of a model file"
    if shipped:
        names = [*shipped, *(one.stem for one in sorted(PRESETS.glob("*.toml")))]
        hint += f" or one of the names {', '.join(names)}"
    raise ModelFormatError("no such model", path=source, hint=hint)


def find_preset(source: str | Path) -> Preset | None:
    """Find the preset of that name, if there is one."""
    return next((one for one in list_presets() if one.name == source), None)


def find_members(source: str | Path) -> list[Member]:
    """List the models that a source names: a model, a preset, or several with `+` between.

    Raises ModelFormatError as `resolve_model` does.
    """
    found = []
    for name in parse_members(source):
        preset = find_preset(name)
        found += [Member(resolve_model(name))] if preset is None else preset.members()
    return found


def parse_members(source: str | Path) -> list[str]:
    """Split `a+b` into names; a file whose own name holds a plus is one, also if missing."""
    names = str(source).split("+")
    is_path = "/" in str(source) and not any(_is_known(name) for name in names)
    if is_path or _exists(source):
        return [str(source)]
    return names


def _is_known(name: str) -> bool:
    return name in _shipped() or find_preset(name) is not None or _exists(name)


def _exists(path: str | Path) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def training_datasets(source: str | Path) -> list[str]:
    """List the data sets that a source's models learned from, where their files say so.

    Those that classes were added from, and those of models that a training started from, are among
    them. Reads headers only; raises ModelFormatError as `resolve_model` does.
    """
    found: list[Any] = []
    for one in find_members(source):
        header = read_header(one.path)
        start = header.provenance.get("started_from")
        earlier = start.get("datasets") if isinstance(start, dict) else None
        found.append(header.provenance.get("dataset"))
        found += earlier if isinstance(earlier, list) else []
        found += [info.get("data") for info in read_names(header, one.path).added]
    return list(dict.fromkeys(name for name in found if isinstance(name, str)))


def read_names(header: ModelHeader, path: Path) -> ClassNames:
    """Read what a model file says of its classes; raises ModelFormatError where it is damaged."""
    try:
        return ClassNames.read(header.classes, header.provenance)
    except ValueError as error:
        raise ModelFormatError(
            f"its header is damaged: {error}", path=path, hint="copy it again"
        ) from None


def _shipped() -> dict[str, Path]:
    return {path.stem: path for path in sorted(SHIPPED.glob(f"*{SUFFIX}"))}
