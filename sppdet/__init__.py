"""SPP-net, object detection and image classification, on a CPU.

from sppdet import Detector
detector = Detector.load()
for found in detector.detect("photo.jpg").above(0.0):
    print(found.name, found.score, found.box)

from sppdet import Classifier
classifier = Classifier.load("runs/mine/model.safetensors")
best = classifier.classify("photo.jpg")[0]
print(best.name, best.probability)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sppdet.errors import SppdetError
from sppdet.types import Dataset, Detection, Detections, Sample

if TYPE_CHECKING:
    from sppdet.classification.classifier import Classifier
    from sppdet.detector import Detector
    from sppdet.spp import SpatialPyramidPooling

__all__ = [
    "Classifier",
    "Dataset",
    "Detection",
    "Detections",
    "Detector",
    "Sample",
    "SpatialPyramidPooling",
    "SppdetError",
]


# OpenMP's threads, which are torch's, spin when a loop is done, and for so long keep a core from
# those that convolve and pool: asleep, they leave a detection on two cores a twentieth faster.
# OpenMP reads this once, when torch is first imported; who has set it, or has torch already, is
# left alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> object:
    # torch takes seconds to import: only those who ask for what needs it wait.
    if name == "Detector":
        from sppdet.detector import Detector

        return Detector
    if name == "Classifier":
        from sppdet.classification.classifier import Classifier

        return Classifier
    if name == "SpatialPyramidPooling":
        from sppdet.spp import SpatialPyramidPooling

        return SpatialPyramidPooling
    raise AttributeError(f"module 'sppdet' has no attribute {name!r}")
