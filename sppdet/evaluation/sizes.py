"""Object sizes, in COCO's three bands, so that every report speaks of the same sizes."""

from __future__ import annotations

import numpy as np

from sppdet.types import FloatArray, IntArray

SIZE_NAMES = ("small", "medium", "large")
# Square pixels at which an object becomes medium, then large (COCO's detection challenge).
SIZE_LIMITS = (32.0**2, 96.0**2)


def size_bands(areas: FloatArray) -> IntArray:
    """`int64 (N,)` index into `SIZE_NAMES` of each area in square pixels."""
    return np.digitize(areas, SIZE_LIMITS).astype(np.int64)
