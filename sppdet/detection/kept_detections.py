"""Detections kept as they come, one line per image, for an interrupted run to go on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sppdet.core.errors import EvaluationError
from sppdet.core.files import array_digest, file_digest, sha256
from sppdet.core.settings import digest
from sppdet.core.types import Detections, Sample
from sppdet.core.versions import versions
from sppdet.detection.detector import Detector
from sppdet.detection.ensemble import Ensemble
from sppdet.detection.model_zoo import find_members


def detector_key(model: str, detector: Detector | Ensemble) -> str:
    """Digest of all that decides the detections of an image: files, settings, versions."""
    members = detector.members if isinstance(detector, Ensemble) else (detector,)
    fusion = detector.fusion if isinstance(detector, Ensemble) else ""
    calibration = detector.calibration
    return sha256(
        repr(versions()),
        fusion,
        *(file_digest(one.path) for one in find_members(model)),
        *(digest(one.config) for one in members),
        array_digest(calibration.slope),
        array_digest(calibration.intercept),
    )


class KeptDetections:
    """A file of detections by image content, `detections-KEY.part.jsonl`.

    A line is written at once. One that is not whole, as a crash or a full disk leaves it, and what
    follows it, counts as absent.

    Args:
        folder: holds the file; made with the first line.
        key: of all besides the image that decides detections (`detector_key`).
        classes: the detector's.

    Attributes:
        path: the file.
    """

    def __init__(self, folder: Path, key: str, classes: tuple[str, ...]) -> None:
        self.path = folder / f"detections-{key[:16]}.part.jsonl"
        self._classes = classes
        self._kept: dict[str, Detections] = {}
        if self.path.is_file():
            self._read()

    def get(self, sample: Sample) -> Detections | None:
        """Return the detections of an image; None if there are none, or it cannot be read."""
        try:
            return self._kept.get(_item(sample)) if self._kept else None
        except OSError:
            return None

    def add(self, sample: Sample, detections: Detections) -> None:
        """Keep the detections of an image.

        Raises EvaluationError where the file cannot be written; what it has stays.
        """
        line = {
            "item": _item(sample),
            "boxes": detections.boxes.tolist(),
            "scores": detections.scores.tolist(),
            "labels": detections.labels.tolist(),
            "margins": detections.margins.tolist(),
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as stream:
                stream.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        except OSError as error:
            raise EvaluationError(
                f"cannot be written ({error.strerror})",
                path=self.path,
                hint="make room, or name another folder; the same command then goes on here",
            ) from None

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        whole = 0
        with self.path.open("rb") as stream:
            for line in stream:
                try:
                    item, detections = self._parse(json.loads(line))
                except (ValueError, TypeError, KeyError):
                    break
                if not line.endswith(b"\n"):
                    break
                self._kept[item] = detections
                whole += len(line)
        with self.path.open("r+b") as stream:
            stream.truncate(whole)

    def _parse(self, line: dict[str, Any]) -> tuple[str, Detections]:
        detections = Detections(
            np.array(line["boxes"], np.float32).reshape(-1, 4),
            np.array(line["scores"], np.float32),
            np.array(line["labels"], np.int64),
            self._classes,
            np.array(line["margins"], np.float32),
        )
        return str(line["item"]), detections


def _item(sample: Sample) -> str:
    """Digest of an image's bytes and its annotated size, which its file must have."""
    return sha256(sample.path.read_bytes(), f"{sample.width}x{sample.height}")
