"""Results as annotations to go on from: data sets as VOC XML, COCO or YOLO, and Label Studio tasks.

VOC, COCO and YOLO are data sets like others, with links to the images: labeling tools open them,
and so do `sppdet data check` and `train`. Of the three only COCO's file holds scores.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from sppdet.core.errors import OutputError
from sppdet.core.files import atomic_write_text, new_folder
from sppdet.core.types import Dataset, Sample
from sppdet.datasets.tools.convert import convert_dataset
from sppdet.outputs.places import check_folder
from sppdet.outputs.records import Found, Source, read_detections

Annotation = Literal["coco", "yolo", "voc", "labelstudio"]
ANNOTATIONS: tuple[Annotation, ...] = ("coco", "yolo", "voc", "labelstudio")

# Label Studio's address of a file under its LOCAL_FILES_DOCUMENT_ROOT.
_LOCAL_FILE = "/data/local-files/?d="


@dataclass(slots=True)
class AnnotationFolder:
    """A new folder of annotations, there whole or not at all.

    Attributes:
        path: the folder.
        format: of the annotations.
    """

    path: Path
    format: Annotation
    partial: bool = field(default=False, init=False)

    def check(self, sources: Sequence[Source]) -> None:
        """Raise OutputError if the folder cannot be made or holds something, or for addresses.

        A data set has links to its images, so that they have to be files; Label Studio takes both.
        """
        check_folder(self.path)
        if self.path.exists() and any(self.path.iterdir()):
            raise OutputError(
                "is not empty", path=self.path, hint="delete it, or name another folder"
            )
        for one in sources if self.format != "labelstudio" else ():
            if one.path is None and "://" in one.name:
                raise OutputError(
                    f"cannot be linked to from a data set in the format {self.format}",
                    path=one.name,
                    hint="download the image first, or use --format labelstudio",
                )

    def write(self, found: Iterable[Found], header: Mapping[str, Any], *, complete: bool) -> None:
        """Write the images that could be read, also those without objects."""
        read = [one for one in found if "error" not in one.record]
        try:
            if self.format == "labelstudio":
                with new_folder(self.path) as folder:
                    _write_label_studio(folder, read, header)
            else:
                dataset = _as_dataset(read, header["classes"])
                convert_dataset({None: dataset}, self.path, self.format)
                if self.format == "coco":
                    _add_scores(self.path / "annotations" / "instances.json", read)
        except OSError as error:
            raise OutputError.of(error, self.path) from None


def _as_dataset(found: Sequence[Found], classes: Sequence[str]) -> Dataset:
    samples = []
    for source, record in found:
        one = read_detections(record, classes)
        samples.append(
            Sample(
                image_id=source.name,
                path=source.path or Path(source.name),
                width=record["width"],
                height=record["height"],
                boxes=one.boxes,
                labels=one.labels,
                difficult=np.zeros(len(one), np.bool_),
            )
        )
    return Dataset("detections", tuple(classes), tuple(samples))


def _add_scores(path: Path, found: Sequence[Found]) -> None:
    """Give each annotation of a COCO file its `score`, as results have it."""
    content = json.loads(path.read_bytes())
    scores = [one["score"] for _, record in found for one in record["detections"]]
    for annotation, score in zip(content["annotations"], scores, strict=True):
        annotation["score"] = score
    atomic_write_text(path, json.dumps(content, allow_nan=False))


def _write_label_studio(folder: Path, found: Sequence[Found], header: Mapping[str, Any]) -> None:
    """Write tasks with predictions, and the labeling interface that they are for.

    Format: labelstud.io, "Import pre-annotations". Boxes are in percent of the image's sides;
    local files are given from the folder that all of them are in.
    """
    root = _common_folder([one.source for one in found])
    tasks = [
        {
            "data": {"image": _address(source, root)},
            "predictions": [
                {
                    "model_version": header["model"],
                    # What tasks can be sorted by: the surest detection.
                    "score": max((one["score"] for one in record["detections"]), default=0.0),
                    "result": [_region(one, record) for one in record["detections"]],
                }
            ],
        }
        for source, record in found
    ]
    atomic_write_text(folder / "tasks.json", json.dumps(tasks, indent=1, allow_nan=False) + "\n")
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in header["classes"])
    interface = (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <RectangleLabels name="label" toName="image">\n{labels}  </RectangleLabels>\n</View>\n'
    )
    atomic_write_text(folder / "interface.xml", interface)


def _common_folder(sources: Sequence[Source]) -> Path | None:
    folders = [one.path.absolute().parent for one in sources if one.path is not None]
    return Path(os.path.commonpath(folders)) if folders else None


def _address(source: Source, root: Path | None) -> str:
    if source.path is None or root is None:
        return source.name
    return _LOCAL_FILE + quote(os.fsencode(source.path.absolute().relative_to(root)))


def _region(one: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    width, height = record["width"], record["height"]
    x1, y1, x2, y2 = one["box"]
    return {
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": width,
        "original_height": height,
        "score": one["score"],
        "value": {
            "x": 100 * x1 / width,
            "y": 100 * y1 / height,
            "width": 100 * (x2 - x1) / width,
            "height": 100 * (y2 - y1) / height,
            "rotation": 0,
            "rectanglelabels": [one["class"]],
        },
    }
