"""Boxes that stay with their object from frame to frame: tracks by IoU, smoothed, one class each.

A detector sees each frame anew: boxes tremble by some pixels, an object near the threshold comes
and goes, and its class may change. Here a box of a frame continues the track of the last frames
that it overlaps (Bochinski et al. 2017, "High-speed tracking-by-detection without using image
information"), also below the threshold (Zhang et al. 2022, "ByteTrack"). Nothing is shown where
nothing was detected, and no appearance is compared: objects that cross may change their tracks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sppdet.core.boxes import box_iou
from sppdet.core.types import Detections, FloatArray, IntArray

# A box continues a track of at least this IoU (SORT's), though its probability is as low as this
# share of the threshold.
MIN_IOU, LOW = 0.3, 0.5
# How much of the track's last box a new one that lies just there takes on, and a moved one less.
SMOOTHING = 0.7
# Seconds that a track waits for its object to be detected again; one frame at least.
PATIENCE = 0.5


@dataclass(slots=True, eq=False)
class _Track:
    """An object: its number, last box `(4,)`, last time, and the sum of each class's scores."""

    number: int
    box: FloatArray
    seconds: float
    votes: FloatArray

    @property
    def label(self) -> int:
        return int(self.votes.argmax())


class SteadyBoxes:
    """Gives the detections of a video's frames boxes that are steady, and numbers.

    Args:
        threshold: score of a detection that begins a track; `LOW` of it continues one.

    Invariants: a number is given to one box of a frame at most, and never to another object; a box
    lies between the detected one and the track's last; an object at rest keeps its box.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._tracks: list[_Track] = []
        self._next, self._latest = 1, -np.inf

    def update(self, found: Detections, seconds: float) -> tuple[Detections, IntArray]:
        """Return what a frame shows, best first, and the numbers of its tracks, `int64 (N,)`.

        Scores and margins are the frame's own. A class is the one that most of the track's scores
        are of. `found` are all detections of the frame at `seconds`, also those below the
        threshold.
        """
        latest = min(self._latest, seconds - PATIENCE)
        self._tracks = [one for one in self._tracks if one.seconds >= latest]
        self._latest = seconds
        tracks = self._match(found)
        shown = []
        for row, track in enumerate(tracks):
            score, label, box = found.scores[row], found.labels[row], found.boxes[row]
            if track is None:
                if score < self.threshold:
                    continue
                votes = np.zeros(len(found.classes), np.float32)
                track = tracks[row] = _Track(self._next, box, seconds, votes)
                self._tracks.append(track)
                self._next += 1
            else:
                track.box = _smooth(track.box, box)
            track.votes[label] += score
            track.seconds = seconds
            shown.append(row)
        own = [track for row in shown if (track := tracks[row]) is not None]
        boxes = np.array([one.box for one in own], np.float32).reshape(-1, 4)
        labels = np.array([one.label for one in own], np.int64)
        steady = Detections(boxes, found.scores[shown], labels, found.classes, found.margins[shown])
        return steady, np.array([one.number for one in own], np.int64)

    def _match(self, found: Detections) -> list[_Track | None]:
        """The track that each detection continues: one at most, and no two the same.

        Greedily: those of the threshold first, of these those of the track's class, then by IoU.
        """
        matched: list[_Track | None] = [None] * len(found)
        rows = np.flatnonzero(found.scores >= LOW * self.threshold)
        if not len(rows) or not self._tracks:
            return matched
        overlaps = box_iou(found.boxes[rows], np.stack([one.box for one in self._tracks]))
        same = found.labels[rows, None] == np.array([one.label for one in self._tracks])
        clear = found.scores[rows, None] >= self.threshold
        order = np.argsort(-(overlaps + same + 2 * clear), axis=None, kind="stable")
        taken = set()
        for place in order.tolist():
            row, number = divmod(place, len(self._tracks))
            if overlaps[row, number] < MIN_IOU or number in taken or matched[rows[row]] is not None:
                continue
            matched[rows[row]] = self._tracks[number]
            taken.add(number)
        return matched


def _smooth(last: FloatArray, box: FloatArray) -> FloatArray:
    """`float32 (4,)`: a box drawn towards the last one, the more the less it moved."""
    stays = np.float32(SMOOTHING) * box_iou(last[None], box[None])[0, 0]
    smoothed: FloatArray = box + stays * (last - box)
    return smoothed
