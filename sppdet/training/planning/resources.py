"""Memory and disk that a training needs, against what the machine has free."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sppdet.core.errors import TrainingError
from sppdet.training.config import SvmConfig
from sppdet.training.planning.estimate import Work

# Beside the results, the state on the way lies in the run's folder: weights, and AdamW's two
# moments of each.
STATE_COPIES = 4
# A whole training takes more memory than a miniature: more images are loaded ahead, and freed
# memory is in pieces. 3.5 GB against 2.3 for 80 photos under the default settings.
MEMORY_GROWTH = 1.5
GB = 1e9


@dataclass(frozen=True, slots=True)
class DiskNeed:
    """Bytes that a folder will take up.

    Attributes:
        folder: made later, if it is not there.
        size: in bytes.
        remedy: what else to do than to delete files.
    """

    folder: Path
    size: float
    remedy: str

    @property
    def place(self) -> Path:
        """The folder, or the nearest above it that is there."""
        parents = [self.folder, *self.folder.absolute().parents]
        return next(one for one in parents if one.exists())


def check_disk(needs: Iterable[DiskNeed]) -> list[tuple[float, float]]:
    """Return `(needed, free)` bytes per disk; TrainingError where one has too little room.

    Needs on one disk are added up; the remedy that is named is that of the largest.
    """
    disks: dict[int, list[DiskNeed]] = {}
    for need in needs:
        disks.setdefault(need.place.stat().st_dev, []).append(need)
    found = []
    for parts in disks.values():
        largest = max(parts, key=lambda one: one.size)
        needed, free = sum(one.size for one in parts), shutil.disk_usage(largest.place).free
        if needed > free:
            raise TrainingError(
                f"the training needs {size(needed)} of disk, and {size(free)} are free",
                path=largest.folder,
                hint=f"free {size(needed - free)}, or {largest.remedy}",
            )
        found.append((needed, float(free)))
    return found


def mining_bytes(work: Work, svm: SvmConfig) -> int:
    """Bytes of the features that hard-negative mining keeps at most."""
    seen = work.images * (svm.proposals_per_image or svm.max_negatives)
    return 4 * work.width * (work.objects + min(seen, work.classes * svm.max_negatives))


def available_memory(source: Path = Path("/proc/meminfo")) -> float | None:
    """Bytes of memory that are free or can be freed; None where the system does not say."""
    try:
        lines = source.read_text(encoding="ascii").splitlines()
        (line,) = [one for one in lines if one.startswith("MemAvailable:")]
        return float(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None


def size(count: float) -> str:
    """Format bytes in GB, or in MB below a tenth of one."""
    return f"{count / GB:.1f} GB" if count >= GB / 10 else f"{max(1, round(count / 1e6))} MB"
