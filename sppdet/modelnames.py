"""Which model a name means: those that come with the package, presets, files, several at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sppdet.errors import ModelFormatError
from sppdet.modelfile import SUFFIX, read_header

SHIPPED = Path(__file__).parent / "models"


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


@dataclass(frozen=True, slots=True)
class Preset:
    """A shipped model, or several as one, under other settings.

    Attributes:
        name: what it is called.
        base: the name of the model, or several with `+` between.
        path: the settings, as a file of differences to the (first) model's.
    """

    name: str
    base: str
    path: Path


def list_models() -> list[ModelInfo]:
    """The models that come with the package, by name; ModelFormatError if one is not a model.

    Only their headers are read: whether a file is whole is found out when it is loaded.
    """
    found = []
    for name, path in _shipped().items():
        header = read_header(path)
        size = path.stat().st_size
        found.append(
            ModelInfo(name, path, header.description, header.classes, size, header.provenance)
        )
    return found


def resolve_model(source: str | Path) -> Path:
    """The file of a model: a string may name a shipped model, anything else is a path.

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
    mend = "give the path of a model file"
    if shipped:
        names = [*shipped, *(one.name for one in list_presets())]
        mend += f" or one of the names {', '.join(names)}"
    raise ModelFormatError("no such model", where=source, mend=mend)


def list_presets() -> list[Preset]:
    """The presets that come with the package, by name: files `NAME.BASE.toml` by the models."""
    found = []
    for path in sorted(SHIPPED.glob("*.*.toml")):
        name, base = path.stem.split(".", 1)
        found.append(Preset(name, base, path))
    return found


def find_preset(source: str | Path) -> Preset | None:
    """The preset of that name, if it is one."""
    return next((one for one in list_presets() if one.name == source), None)


def members(source: str | Path) -> list[str]:
    """The models that `a+b` names; a file whose own name holds a plus is one."""
    return [str(source)] if Path(source).exists() else str(source).split("+")


def training_sets(source: str) -> list[str]:
    """The names of the data sets behind a model, a preset or several, where their files say so.

    Reads headers only; raises ModelFormatError as `resolve_model` does.
    """
    bases = {one.name: one.base for one in list_presets()}
    named = [part for name in members(source) for part in members(bases.get(name, name))]
    paths = [resolve_model(name) for name in named]
    found = [read_header(path).provenance.get("dataset") for path in paths]
    return [name for name in found if isinstance(name, str)]


def _shipped() -> dict[str, Path]:
    return {path.stem: path for path in sorted(SHIPPED.glob(f"*{SUFFIX}"))}
