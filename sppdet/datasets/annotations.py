"""What all annotation readers share: boxes, limits, class names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sppdet.core.errors import AnnotationError, DatasetError
from sppdet.datasets.class_names import nearest_name

Box = tuple[float, float, float, float]

# Annotation tools round outwards or count from 0: a box this far outside its image is clipped.
OUTSIDE_TOLERANCE = 1.0

# No image format holds longer sides.
MAX_SIDE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ClassList:
    """Class names, and the labels that names in annotations map to.

    Attributes:
        names: the classes; a label indexes this tuple.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names or not all(isinstance(n, str) and n.strip() for n in self.names):
            raise DatasetError(
                "the class list is empty or has an empty name", hint="name at least one class"
            )
        repeated = sorted({n for n in self.names if self.names.count(n) > 1})
        if repeated:
            raise DatasetError(
                f"the class list repeats {', '.join(repeated)}", hint="name each class once"
            )

    def label(self, name: str, *, path: Path, what: str) -> int:
        """Return the label of `name`.

        Raises:
            AnnotationError: an unknown class; names the nearest known one.
        """
        if name in self.names:
            return self.names.index(name)
        near = nearest_name(name, self.names)
        advice = (
            f"did you mean {near!r}? Correct it, add it to the classes"
            if near
            else f"add it to the classes ({', '.join(self.names)})"
        )
        raise AnnotationError(
            f"{what} has the unknown class {name!r}",
            path=path,
            hint=f"{advice}; in Python, ignore_unknown=True leaves such objects out",
        )


def make_class_list(classes: Sequence[str]) -> ClassList:
    """Validate class names; a bare string, an easy slip, is refused."""
    if isinstance(classes, str):
        raise DatasetError(f"classes is the string {classes!r}", hint=f"give a list: [{classes!r}]")
    return ClassList(tuple(classes))
