"""The model file that a change of classes starts from, and the one that it ends in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from sppdet.cli.common import checked_device
from sppdet.core.errors import ConfigError, count_noun

if TYPE_CHECKING:
    from sppdet.core.model_file import ModelHeader
    from sppdet.detection.detector import Detector
    from sppdet.detection.model_zoo import Member

OneModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A model file, or the name of a shipped model (see `sppdet models`); a preset's, where"
        " it has one model, whose settings the new file keeps.",
    ),
]
OutOption = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="Gets the new model, once it is whole; may be the model itself.",
        show_default=False,
    ),
]


class LoadedModel(NamedTuple):
    """A detector and the header of the file that it is from."""

    detector: Detector
    header: ModelHeader

    def save(self, detector: Detector, out: Path) -> str:
        """Write a changed detector with what the file said of itself; say what was written."""
        header = self.header
        detector.save(out, description=header.description, provenance=header.provenance)
        count = len(detector.classes)
        return f"{out}: {count_noun(count, 'class', 'classes')}, {out.stat().st_size / 1e6:.1f} MB"


def find_model(name: str) -> Member:
    """Find the one model that a name stands for; ConfigError where it stands for several."""
    from sppdet.detection.model_zoo import find_members

    members = find_members(name)
    if len(members) > 1:
        models = ", ".join(one.path.stem for one in members)
        raise ConfigError(
            f"{name} is {len(members)} models ({models}), and one is changed at a time",
            hint="name a single one with --model",
        )
    return members[0]


def load_model(member: Member, device: str = "cpu") -> LoadedModel:
    """Load a model under a preset's settings, which its file keeps; raises as `Detector.load`."""
    from sppdet.core.model_file import read_header
    from sppdet.detection.detector import Detector

    detector = Detector.load_member(member, device=checked_device(device))
    return LoadedModel(detector, read_header(member.path))


def read_classes(member: Member) -> tuple[str, ...]:
    """The classes of a model, from its header alone; ModelFormatError as `read_header`."""
    from sppdet.core.model_file import read_header
    from sppdet.detection.model_zoo import read_names

    return read_names(read_header(member.path), member.path).shown()


def check_out(out: Path) -> None:
    """Raise ConfigError where a model file cannot be written, or must not: before any work."""
    from sppdet.core.model_file import SUFFIX
    from sppdet.detection.model_zoo import SHIPPED

    if out.suffix != SUFFIX:
        raise ConfigError("is no name for a model file", path=out, hint=f"end it in {SUFFIX}")
    if out.is_dir():
        raise ConfigError("is a folder", path=out, hint="name a file in it")
    if out.resolve().parent == SHIPPED.resolve():
        raise ConfigError("is where shipped models are", path=out, hint="name another file")
    # The file is made beside its target and renamed: its folder, made if need be, decides.
    folder = next(one for one in out.resolve().parents if one.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"cannot be written ({folder} is no folder that you may write to)",
            path=out,
            hint="name another file with --out",
        )
