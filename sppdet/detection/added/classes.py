"""Classes that were added to a trained model: what a model file holds of them, and their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import Any, NamedTuple

from numpy.typing import NDArray

from sppdet.core.errors import ConfigError
from sppdet.detection.added.names import ClassNames
from sppdet.heads.added.added_class import AddedClass
from sppdet.heads.head import RegionHead
from sppdet.heads.region_averages import has_averages

Tensors = dict[str, NDArray[Any]]

# Settings of detection for a class that scores margins alone: the release's threshold, and a
# fifth of the regions that the classes of a training share in iterative localization.
ADDED_LIMITS: Mapping[str, float] = MappingProxyType({"margin_threshold": -1.5, "refine_top": 60})


class KnownClass(NamedTuple):
    """An added class with what is known of it.

    Attributes:
        name: of the class.
        model: scores and moves boxes.
        info: JSON-able: where it came from, how many images, average precision, date.
    """

    name: str
    model: AddedClass
    info: Mapping[str, Any]


def added_tensors(added: Sequence[KnownClass]) -> Tensors:
    """Name the arrays of added classes, for a model file."""
    return {
        f"added.{number}.{name}": array
        for number, one in enumerate(added)
        for name, array in one.model.arrays().items()
    }


def load_added(tensors: Mapping[str, NDArray[Any]], names: ClassNames) -> tuple[KnownClass, ...]:
    """Make the added classes of a model file; ValueError where arrays are missing or do not fit."""
    found = []
    for number, info in enumerate(names.added):
        try:
            arrays = {one.name: tensors[f"added.{number}.{one.name}"] for one in fields(AddedClass)}
        except KeyError as error:
            raise ValueError(f"the array {error} is missing") from error
        model = AddedClass(**arrays)
        rest = {key: value for key, value in info.items() if key != "name"}
        found.append(KnownClass(info["name"], model, rest))
    return tuple(found)


def check_widths(added: Sequence[KnownClass], head: RegionHead) -> None:
    """Raise ValueError where an added class reads features of another length than the head's."""
    widths = {"fc6": head.config.fc6, "fc7": head.config.fc7}
    if has_averages(head.pooler):
        widths["averages"] = head.pooler.head_channels
    for one in added:
        for name in one.model.features:
            length = len(getattr(one.model, name))
            if length != widths.get(name):
                raise ValueError(f"{one.name} reads {length} values of {name}")
        if len(one.model.box_weights) != widths["fc7"]:
            raise ValueError(f"{one.name} moves boxes by {len(one.model.box_weights)} values")


def check_new_name(name: str, classes: Sequence[str]) -> None:
    """Raise ConfigError for a name that is empty or that a class has already, in any case."""
    if not name.strip() or name != name.strip():
        raise ConfigError(f"{name!r} is no name for a class", hint="give a word or two")
    same = [one for one in classes if one.casefold() == name.casefold()]
    if same:
        raise ConfigError(
            f"the model has a class {same[0]!r} already",
            hint="remove or rename it first: sppdet remove-class, sppdet rename-class",
        )


def check_known_name(name: str, classes: Sequence[str]) -> None:
    """Raise ConfigError for a name that no class has."""
    if name not in classes:
        raise ConfigError(f"the model has no class {name!r}", hint=f"it has {', '.join(classes)}")
