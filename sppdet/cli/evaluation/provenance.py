"""How an evaluation was made, in names and values for its report."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import typer

from sppdet.core.versions import installed

if TYPE_CHECKING:
    from sppdet.cli.dataset import OpenData
    from sppdet.cli.evaluation.detections import Found

PACKAGES = ("sppdet", "torch", "onnxruntime", "numpy", "pycocotools", "matplotlib")


def describe_command(context: typer.Context) -> str:
    """Return the command with the options that were given, as one would type it."""
    words = ["sppdet", str(context.info_name)]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        source = context.get_parameter_source(parameter.name or "")
        if value is None or source is None or source.name != "COMMANDLINE":
            continue
        values = [str(one) for one in (value if isinstance(value, list | tuple) else [value])]
        if parameter.param_type_name == "argument":
            words += values
        elif isinstance(value, bool):
            words += [parameter.opts[0] if value else parameter.secondary_opts[0]]
        else:
            words += [word for one in values for word in (max(parameter.opts, key=len), one)]
    return shlex.join(words)


def describe_data(opened: OpenData, found: Found) -> list[tuple[str, str]]:
    """Name the data, its images and objects, and the software."""
    from sppdet.cli.dataset import count_images

    return [
        ("data", str(opened.source.data)),
        ("split", opened.split or "all images"),
        ("images", count_images(found.dataset)),
        ("versions", ", ".join(f"{name} {installed(name)}" for name in PACKAGES)),
    ]
