"""The command tree, and what becomes of an error: one line on standard error, and an exit code."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from sppdet.cli import classify_train, data, detect, evaluate, models, propose, train
from sppdet.cli.calibration import command as calibration
from sppdet.cli.classes import add, change
from sppdet.cli.options import examples
from sppdet.core.errors import SppdetError
from sppdet.core.versions import installed

app = typer.Typer(
    name="sppdet",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        ("find objects in your photos", "sppdet detect photos/ --out found/"),
        ("make a small data set and train on it", "sppdet data synthetic data/shapes"),
        ("", "sppdet train data/shapes --run runs/shapes"),
        (
            "a class of yours besides its own",
            "sppdet add-class my-data/ --out mine.safetensors",
        ),
        ("how good the shipped model is", "sppdet evaluate VOCdevkit --year 2007 --split test"),
        ("more on one command", "sppdet train --help"),
    ),
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"sppdet {installed('sppdet')}")
        raise typer.Exit


@app.callback()
def sppdet(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Object detection with SPP-net: one convolution of the image, spatial pyramid pooling of every
    proposed region, linear SVMs, box regression. Made for CPUs; works without a download.
    """


detect.register(app)
train.register(app)
add.register(app)
evaluate.register(app)
calibration.register(app)
propose.register(app)
classify_train.register(app)
data.register(app)
change.register(app)
models.register(app)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; always leaves through SystemExit.

    The code is 0 for success, 1 for an error or a batch with a bad file in it, 2 for wrong usage,
    130 for an interrupt.
    """
    # An image so large is told of in one line, or was asked for.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    try:
        app(args=None if argv is None else list(argv), prog_name="sppdet")
    except SppdetError as error:
        _fail(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> None:
    print(f"sppdet: {message}", file=sys.stderr, flush=True)
    sys.exit(1)
