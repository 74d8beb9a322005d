"""COCO's metrics, through pycocotools.

A difficult object is handed over as a crowd (`iscrowd`), the one flag by which pycocotools leaves
an object out: a detection of it is neither right nor wrong, as in the VOC devkit. COCO measures a
crowd by the share of the *detection* that lies in it, so a small box within a difficult object is
left out too, where the devkit would count it as false. An object's size is its mask's area where
the data set states it (`Sample.areas`), as pycocotools takes it from a COCO file, else its box's.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from sppdet.core.types import Dataset, Detections, FloatArray, IntArray
from sppdet.evaluation.matching import FlatDetections, flatten_detections, flatten_ground_truth


@dataclass(frozen=True, slots=True)
class CocoResult:
    """COCO's twelve figures and the AP per class; nan where there is no object to find.

    Attributes:
        ap: mean AP over IoU 0.50, 0.55, ..., 0.95; ap50, ap75: at one IoU.
        ap_small, ap_medium, ap_large: `ap` for objects up to 32^2, 96^2 and more square pixels.
        ar1, ar10, ar100: mean recall with up to 1, 10, 100 detections per class and image.
        ar_small, ar_medium, ar_large: `ar100` by size.
        class_ap: `ap` per class, in the data set's order.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    class_ap: tuple[float, ...]


def evaluate_coco(dataset: Dataset, detections: Mapping[str, Detections]) -> CocoResult:
    """Compute the COCO figures of `detections` (by image id) on `dataset`.

    pycocotools' own figures, with its -1 for "no such object" as nan. Difficult objects are
    crowds (see the module's text). Detections beyond the 100 best per class and image do not
    count.

    Raises:
        EvaluationError: an image id or class names that the data set lacks, or a score that is
            not finite.
    """
    from pycocotools.cocoeval import COCOeval

    flat = flatten_detections(dataset, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _indexed(dataset, _ground_truth(dataset))
        found = _indexed(dataset, _results(flat))
        evaluator = COCOeval(truth, found, iouType="bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    # pycocotools gives its figures in the order of CocoResult's fields.
    names = [field.name for field in fields(CocoResult)][:-1]
    figures = {
        name: float("nan") if value < 0 else float(value)
        for name, value in zip(names, evaluator.stats, strict=True)
    }
    # IoU x recall x class x size band x detections; size band 0 is "all", the last is 100.
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    class_ap = tuple(
        float(of_class[of_class > -1].mean()) if (of_class > -1).any() else float("nan")
        for of_class in (precision[:, :, k] for k in range(len(dataset.classes)))
    )
    return CocoResult(**figures, class_ap=class_ap)


def _indexed(dataset: Dataset, annotations: list[dict[str, Any]]) -> Any:
    """Index the data set's images and classes as a pycocotools `COCO`; ids count from 1."""
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i} for i in range(1, len(dataset) + 1)],
        "categories": [{"id": k} for k in range(1, len(dataset.classes) + 1)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _ground_truth(dataset: Dataset) -> list[dict[str, Any]]:
    truth = flatten_ground_truth(dataset)
    crowd = truth.difficult.astype(np.int64).tolist()
    plain = _annotations(truth.images, truth.labels, truth.boxes)
    stated = [
        area
        for sample in dataset
        for area in ([None] * len(sample.boxes) if sample.areas is None else sample.areas.tolist())
    ]
    return [
        {**item, "iscrowd": flag, "area": item["area"] if area is None else area}
        for item, flag, area in zip(plain, crowd, stated, strict=True)
    ]


def _results(flat: FlatDetections) -> list[dict[str, Any]]:
    plain = _annotations(flat.images, flat.labels, flat.boxes)
    # pycocotools only ranks by them.
    margins = flat.margins.tolist()
    return [
        {**item, "score": margin, "iscrowd": 0} for item, margin in zip(plain, margins, strict=True)
    ]


def _annotations(images: IntArray, labels: IntArray, boxes: FloatArray) -> list[dict[str, Any]]:
    """Write COCO annotations; ids count from 1: pycocotools takes id 0 for "no match"."""
    rows = zip(images.tolist(), labels.tolist(), to_xywh(boxes), strict=True)
    return [
        {
            "id": number,
            "image_id": image + 1,
            "category_id": label + 1,
            "bbox": bbox,
            "area": bbox[2] * bbox[3],
        }
        for number, (image, label, bbox) in enumerate(rows, start=1)
    ]


def to_xywh(boxes: FloatArray) -> list[list[float]]:
    """Convert half-open boxes to COCO's `[x, y, width, height]`."""
    corners: list[list[float]] = boxes.astype(np.float64).tolist()
    return [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in corners]
