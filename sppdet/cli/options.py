"""Options and arguments that several commands share, and the foot of their help texts.

Nothing slow is imported here, nor at the top of a command's module: `--help` must come at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Boxes of at least this probability are shown unless the user says otherwise.
THRESHOLD = 0.5


def examples(*pairs: tuple[str, str]) -> str:
    """Format the foot of a help text: commands to copy, each under what it is for."""
    lines = [
        f"[dim]{why}[/dim]\n\n  {command}" if why else f"  {command}" for why, command in pairs
    ]
    return "\n\n".join(["[bold]Examples[/bold]", *lines])


# Images to look at.
ImagesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE..",
        help="Image files, folders, quoted patterns such as 'trip/**/*.jpg', @LIST for a file that"
        " lists them, - for such a list on standard input, or https:// addresses.",
        show_default=False,
    ),
]
RecursiveOption = Annotated[
    bool, typer.Option("--recursive", "-r", help="Look into the folders inside folders, too.")
]
MaxPixelsOption = Annotated[
    int | None, typer.Option(min=1, help="Refuse larger images.", show_default="89 million")
]

# A data set.
DataArgument = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="A data set, a folder or file: VOC XML, COCO, YOLO, CSV, Label Studio, CVAT or"
        " LabelMe. Its layout is found out.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="Read it as voc, coco, labelstudio, cvat, labelme, yolo or csv.",
        show_default="found out",
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="NAME",
        help="train, val, test or another part that the data has; all; or a .txt file of ids.",
        show_default="chosen, and told",
    ),
]
YearOption = Annotated[
    int | None,
    typer.Option("--year", help="Which year of a VOCdevkit that holds several, such as 2007."),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="DIR",
        help="Where the images are, if the annotations do not tell.",
    ),
]
ClassesOption = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="A,B,..",
        help="Use these classes only, and leave out objects of any other.",
    ),
]
StrictOption = Annotated[
    bool | None,
    typer.Option(
        "--strict/--lenient",
        help="Refuse the data at the first thing that is wrong with it, or go on without however"
        " much of it cannot be used.",
        show_default="more than a tenth is refused",
    ),
]
CopyOption = Annotated[
    bool, typer.Option("--copy", help="Copy the images, rather than link to them.")
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Use the first so many images only.")
]

# Labeled images, for classifiers.
LABELED_SPLIT = (
    "A folder in DATA that holds those of the classes; of a data set train, val, test or another "
    "part that it has; all; or a .txt file of ids."
)
LabeledDataArgument = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="A folder that holds a folder per class, or a data set of objects: VOC XML, COCO,"
        " YOLO, CSV, Label Studio, CVAT or LabelMe.",
        show_default=False,
    ),
]

# Models and their settings.
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A model file, or the name of a shipped model or preset (see `sppdet models`);"
        " several with + between are used together.",
    ),
]
ClassifierOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="FILE", help="A classifier's model file.", show_default=False
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="A TOML file of differences from the default settings."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting, such as svm.c=0.01; may be given many times.",
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", min=0, help="Where every random choice starts (default: 0)."),
]
DescriptionOption = Annotated[
    str, typer.Option("--description", help="One line about the model, kept in its file.")
]

# How to run.
DeviceOption = Annotated[
    str, typer.Option("--device", help="Where the network runs: cpu, cuda or cuda:N.")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Cores to use.", show_default="all of them"),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Keeps proposals and feature maps, by content; commands may share one.",
    ),
]
