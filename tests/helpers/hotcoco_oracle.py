"""The same cases in hotcoco, an evaluator that has nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import hotcoco

from sppdet.core.types import Dataset, Detections
from sppdet.evaluation.coco_ap import to_xywh


def hotcoco_evaluator(dataset: Dataset, detections: Mapping[str, Detections]) -> Any:
    """hotcoco's evaluator of boxes, evaluated; ids of images and classes count from 1."""
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image_id, sample in enumerate(dataset, 1):
        for bbox, label in zip(to_xywh(sample.boxes), sample.labels.tolist(), strict=True):
            one = {"image_id": image_id, "category_id": label + 1, "bbox": bbox}
            truth.append({**one, "id": len(truth) + 1, "area": bbox[2] * bbox[3], "iscrowd": 0})
        own = detections[sample.image_id]
        rows = zip(to_xywh(own.boxes), own.labels.tolist(), own.scores.tolist(), strict=True)
        for bbox, label, score in rows:
            one = {"image_id": image_id, "category_id": label + 1, "bbox": bbox}
            found.append({**one, "score": score})
    coco = hotcoco.COCO(
        {
            "images": [
                {"id": i, "width": 500, "height": 500, "file_name": f"{i}.jpg"}
                for i in range(1, len(dataset) + 1)
            ],
            "categories": [{"id": k, "name": n} for k, n in enumerate(dataset.classes, 1)],
            "annotations": truth,
        }
    )
    evaluator = hotcoco.COCOeval(coco, coco.load_res(found), "bbox")
    evaluator.evaluate()
    return evaluator
