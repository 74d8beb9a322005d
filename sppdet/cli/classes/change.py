"""`sppdet remove-class` and `sppdet rename-class`."""

from __future__ import annotations

from typing import Annotated

import typer

from sppdet.cli.classes.files import OneModelOption, OutOption, check_out, find_model, load_model
from sppdet.cli.options import examples
from sppdet.cli.terminal.notes import say

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A class of the model (see `sppdet models FILE`).", show_default=False
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(
        epilog=examples(
            ("", "sppdet remove-class sheep --model mine.safetensors --out mine.safetensors")
        )
    )(remove_class)
    app.command(
        epilog=examples(
            ("", "sppdet rename-class racoon raccoon --model mine.safetensors --out b.safetensors")
        )
    )(rename_class)


def remove_class(name: NameArgument, out: OutOption, model: OneModelOption = "default") -> None:
    """Take a class out of a model: it is detected no more, and no other class changes.

    Of an added class nothing is left. One that the model was trained with is hidden.
    """
    check_out(out)
    loaded = load_model(find_model(model))
    changed = loaded.detector.remove_class(name)
    say(f"{loaded.save(changed, out)}, without {name}")


def rename_class(
    name: NameArgument,
    new: Annotated[
        str,
        typer.Argument(metavar="NEW", help="What it is called from now on.", show_default=False),
    ],
    out: OutOption,
    model: OneModelOption = "default",
) -> None:
    """Give a class of a model another name."""
    check_out(out)
    loaded = load_model(find_model(model))
    changed = loaded.detector.rename_class(name, new)
    say(f"{loaded.save(changed, out)}; {name} is now {new}")
