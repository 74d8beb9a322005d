"""Names of a model file's classes, as its header has them; nothing slow is imported for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ClassNames:
    """The classes of a model file.

    Attributes:
        trained: those of the training, shown or not.
        hidden: those of them that were removed.
        added: those that were added, with what is known of them.
    """

    trained: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    added: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def read(cls, classes: Sequence[str], provenance: Mapping[str, Any]) -> ClassNames:
        """Read them from a header's classes and provenance; ValueError where they do not fit."""
        stored = provenance.get("classes")
        if stored is None:
            return cls(tuple(classes))
        try:
            names = cls(tuple(stored["trained"]), tuple(stored["hidden"]), tuple(stored["added"]))
            if names.shown() != tuple(classes):
                raise ValueError("its header names other classes")
        except (KeyError, TypeError) as error:
            raise ValueError(f"its classes are not as they should be: {error}") from error
        return names

    def shown(self) -> tuple[str, ...]:
        """The names of what is detected."""
        kept = [name for name in self.trained if name not in self.hidden]
        return (*kept, *(one["name"] for one in self.added))

    def every(self) -> tuple[str, ...]:
        """All names, those of what is hidden too."""
        return (*self.trained, *(one["name"] for one in self.added))

    def entry(self) -> dict[str, Any]:
        """What a header's provenance says of them; nothing where a training made them all."""
        if not self.hidden and not self.added:
            return {}
        added = [dict(one) for one in self.added]
        parts = {"trained": list(self.trained), "hidden": list(self.hidden), "added": added}
        return {"classes": parts}
