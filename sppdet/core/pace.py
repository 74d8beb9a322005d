"""How long a job still takes: a robust pace of its items, and what is expected of later stages."""

from __future__ import annotations

from collections.abc import Mapping

# So many items weigh as much as what was expected of the stage before it began.
EXPECTED_ITEMS = 5
# Times kept at most; beyond it every second one is dropped.
MOST_TIMES = 512


class Pace:
    """Seconds per item of a stage, from the later half of what was done since the first call.

    The first item is left out: it may compile, load or train what the others find done. The first
    call may stand for all that an earlier run did. The later half follows a stage that finds its
    first items in a cache, or that grows slower.

    Args:
        total: items of the stage.
        expected: seconds that what is left of the stage was expected to take; None if not known.
    """

    def __init__(self, total: int, expected: float | None = None) -> None:
        self.total, self.done = total, 0
        self._expected = expected
        self._times: list[tuple[float, int]] = []

    def advance(self, count: int, now: float) -> None:
        """Count items as done at the time `now` in seconds, which never runs back."""
        self.done += count
        self._times.append((now, self.done))
        if len(self._times) > MOST_TIMES:
            # The first interval and the last point keep their meaning.
            self._times = [*self._times[:2], *self._times[3:-1:2], self._times[-1]]

    def seconds_per_item(self) -> float | None:
        """Seconds per item, those measured weighed against those expected; None if unknown."""
        measured, items = self._measured()
        if self._expected is None:
            return measured
        earlier = self._times[0][1] if self._times else 0
        expected = self._expected / max(1, self.total - earlier)
        if measured is None:
            return expected
        return (items * measured + EXPECTED_ITEMS * expected) / (items + EXPECTED_ITEMS)

    def left(self) -> float | None:
        """Seconds until the stage is done; None if unknown."""
        each = self.seconds_per_item()
        return None if each is None else each * max(0, self.total - self.done)

    def _measured(self) -> tuple[float | None, int]:
        """Seconds per item of the later half, and the number of its items."""
        if len(self._times) < 3:
            return None, 0
        first, (now, done) = self._times[0][1], self._times[-1]
        half = (first + done) / 2
        later = [one for one in self._times[1:-1] if one[1] <= half]
        since, before = later[-1] if later else self._times[1]
        items = done - before
        return ((now - since) / items, items) if items else (None, 0)


class Schedule:
    """Stages to come, with the seconds that each is expected to take."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def expect(self, stages: Mapping[str, float]) -> None:
        """Take these stages, in their order, for all that is to come."""
        self._seconds = dict(stages)

    def pace(self, label: str, total: int) -> Pace:
        """Make the pace of a stage that begins."""
        return Pace(total, self._seconds.get(label))

    def after(self, label: str) -> float | None:
        """Seconds of the stages after this one; None if it was not expected."""
        labels = list(self._seconds)
        if label not in self._seconds:
            return None
        return sum(self._seconds[one] for one in labels[labels.index(label) + 1 :])
