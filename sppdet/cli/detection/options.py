"""What `sppdet detect` is asked for: its options, and the results that they stand for."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sppdet.outputs.results import Results


class Mode(StrEnum):
    """Source of a region's features: the map of its image, or a map of its own."""

    SPP = "spp"
    RCNN = "rcnn"


class OutFormat(StrEnum):
    """What `--out` gets, known without importing what writes it."""

    JPEG = "jpeg"
    PNG = "png"
    COCO = "coco"
    YOLO = "yolo"
    VOC = "voc"
    LABEL_STUDIO = "labelstudio"


def _checked_threshold(value: float) -> float:
    if math.isnan(value):  # the only one that is neither below nor above a bound
        raise typer.BadParameter("nan is not in the range 0<=x<=1.")
    return value


OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        help="Write each image, with its boxes, here; or a data set of what was found (--format).",
    ),
]
OutFormatOption = Annotated[
    OutFormat | None,
    typer.Option(
        "--format",
        help="What --out gets: drawings, or annotations as tools for labeling and training read"
        " them, in a new folder.",
        show_default="jpeg",
    ),
]
CropsOption = Annotated[
    Path | None,
    typer.Option("--crops", metavar="DIR", help="Write each object here, in a folder per class."),
]
CsvOption = Annotated[
    Path | None,
    typer.Option("--csv", metavar="FILE", help="Write a table of a row per object."),
]
ThresholdOption = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        callback=_checked_threshold,
        help="Show boxes that are right with at least this probability.",
    ),
]
ModeOption = Annotated[
    Mode,
    typer.Option(
        help="spp pools regions from one map of the image; rcnn warps each to 224 x 224 and"
        " runs the network on it, hundreds of times slower."
    ),
]
TilesOption = Annotated[
    int | None,
    typer.Option(
        "--tiles",
        min=1,
        metavar="PIXELS",
        help="Look at overlapping tiles of so many pixels as well, for small objects in large"
        " photos; 640 suits most. Each tile takes as long as a photo.",
    ),
]


def make_results(
    *,
    out: Path | None,
    format: OutFormat | None,
    crops: Path | None,
    jsonl: Path | None,
    json: Path | None,
    csv: Path | None,
) -> Results:
    """Collect the results that the options ask for.

    Raises:
        BadParameter: `--format` without `--out`.
    """
    from sppdet.outputs.documents import CsvDocument, Document, JsonDocument
    from sppdet.outputs.pictures import Crops, Drawings, Pictures
    from sppdet.outputs.results import Results

    if format is not None and out is None:
        raise typer.BadParameter("goes with --out DIR", param_hint="--format")
    documents: list[Document] = []
    pictures: list[Pictures] = []
    if json is not None:
        documents.append(JsonDocument(json))
    if csv is not None:
        documents.append(CsvDocument(csv))
    if out is not None:
        if format in (None, OutFormat.JPEG, OutFormat.PNG):
            pictures.append(Drawings(out, "png" if format is OutFormat.PNG else "jpeg"))
        else:
            from sppdet.outputs.annotations import ANNOTATIONS, AnnotationFolder

            documents.append(
                AnnotationFolder(out, next(n for n in ANNOTATIONS if n == format.value))
            )
    if crops is not None:
        pictures.append(Crops(crops))
    return Results(jsonl, documents, pictures)
