"""SPP-net, object detection and image classification, on a CPU.

from sppdet import Detector
detector = Detector.load()
for found in detector.detect("photo.jpg").above(0.5):
    print(found.name, found.score, found.box)

from sppdet import Classifier
classifier = Classifier.load("runs/mine/model.safetensors")
best = classifier.classify("photo.jpg")[0]
print(best.name, best.probability)
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING

from sppdet.core.errors import SppdetError
from sppdet.core.parallel import paused_collection
from sppdet.core.types import Dataset, Detection, Detections, Sample

if TYPE_CHECKING:
    from sppdet.classification.classifier import Classifier
    from sppdet.detection.detector import Detector
    from sppdet.detection.ensemble import Ensemble
    from sppdet.detection.modes.tiles import TiledDetector
    from sppdet.spp.spatial_pyramid_pooling import SpatialPyramidPooling

    __version__: str

__all__ = [
    "Classifier",
    "Dataset",
    "Detection",
    "Detections",
    "Detector",
    "Ensemble",
    "Sample",
    "SpatialPyramidPooling",
    "SppdetError",
    "TiledDetector",
    "__version__",
]

# What the package has to say, such as that it compiles, goes to the log `sppdet`.
logging.getLogger(__name__).addHandler(logging.NullHandler())

# Read once by OpenMP, when torch is first imported: threads that sleep between loops, rather than
# spin, leave a detection on two cores a twentieth faster (docs/experiments.md). Who has set it, or
# has torch already, is left alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# torch takes seconds to import: only those who ask for what needs it wait.
_LAZY = {
    "Classifier": "sppdet.classification.classifier",
    "Detector": "sppdet.detection.detector",
    "Ensemble": "sppdet.detection.ensemble",
    "SpatialPyramidPooling": "sppdet.spp.spatial_pyramid_pooling",
    "TiledDetector": "sppdet.detection.modes.tiles",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        with paused_collection():
            return getattr(import_module(_LAZY[name]), name)
    if name == "__version__":
        from sppdet.core.versions import installed

        return installed(__name__)
    raise AttributeError(f"module 'sppdet' has no attribute {name!r}")
