"""SPP-net object detection, the classic pipeline whole, on a CPU.

from sppdet import Detector
detector = Detector.load()
for found in detector.detect("photo.jpg").above(0.0):
    print(found.name, found.score, found.box)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sppdet.errors import SppdetError
from sppdet.types import Dataset, Detection, Detections, Sample

if TYPE_CHECKING:
    from sppdet.detector import Detector

__all__ = ["Dataset", "Detection", "Detections", "Detector", "Sample", "SppdetError"]


def __getattr__(name: str) -> object:
    # torch takes seconds to import: only those who ask for the detector wait for it.
    if name == "Detector":
        from sppdet.detector import Detector

        return Detector
    raise AttributeError(f"module 'sppdet' has no attribute {name!r}")
