"""The command tree, and what becomes of an error: one line on standard error, and an exit code."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from sppdet.cli import classify_train, data, evaluate, models, propose, train
from sppdet.cli.calibration import command as calibration
from sppdet.cli.classes import add, change
from sppdet.cli.detection import command as detect
from sppdet.cli.detection import video
from sppdet.cli.doctor import command as doctor
from sppdet.cli.evaluation import compare
from sppdet.cli.options import examples
from sppdet.cli.terminal import notes
from sppdet.cli.terminal.failures import tell
from sppdet.cli.terminal.notes import say
from sppdet.core.versions import installed

INTERRUPTED = 130
# Options of the program itself, which may stand anywhere on the line.
ANYWHERE = ("--quiet", "--debug")

app = typer.Typer(
    name="sppdet",
    no_args_is_help=True,
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
        say(f"sppdet {installed('sppdet')}")
        raise typer.Exit


@app.callback()
def sppdet(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress and no notes; warnings and errors only.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error comes from, and all notes.")
    ] = False,
) -> None:
    """Object detection with SPP-net: one convolution of the image, spatial pyramid pooling of every
    proposed region, linear SVMs, box regression. Made for CPUs; works without a download.

    Exit codes: 0 all went well; 1 an error, or some inputs failed and the others are done; 2 wrong
    usage; 130 interrupted.
    """
    notes.show(quiet=quiet, debug=debug)


detect.register(app)
video.register(app)
train.register(app)
add.register(app)
evaluate.register(app)
compare.register(app)
calibration.register(app)
propose.register(app)
classify_train.register(app)
data.register(app)
change.register(app)
models.register(app)
doctor.register(app)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; always leaves through SystemExit.

    The code is 0 for success, 1 for an error or a batch with a bad file in it, 2 for wrong usage,
    130 for an interrupt.
    """
    # An image so large is told of in one line, or was asked for.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    # A name that the terminal's encoding lacks is shown escaped.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    notes.show()
    try:
        app(args=_options_first(sys.argv[1:] if argv is None else argv), prog_name="sppdet")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        # What is compiled wraps an interrupt in an error of its own.
        if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        tell(error)
        sys.exit(1)
    finally:
        notes.hide()


def _options_first(words: Sequence[str]) -> list[str]:
    """Move the program's own options to the front, where they are looked for."""
    end = words.index("--") if "--" in words else len(words)
    ours = [word for word in words[:end] if word in ANYWHERE]
    return [*ours, *(word for word in words[:end] if word not in ANYWHERE), *words[end:]]
