"""Results of a long script so far, and the time they took, kept on disk while it runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sppdet.core.files import atomic_write_json
from sppdet.core.parallel import peak_memory
from sppdet.core.progress import Advance, Progress

# Seconds between two saves of the time spent, so that a killed run's is not lost.
SAVE_INTERVAL = 10.0


class Record:
    """Results so far, on disk; begun anew when anything that decides it has changed."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path
        fresh = {**facts, "seconds": {}, "results": {}, "models": {}, "peak_memory_gb": 0.0}
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError):
            found = {}
        self.values: dict[str, Any] = found if found.get("key") == facts["key"] else fresh

    def save(self) -> None:
        """Write it, the peak memory of this process included."""
        peak = max(self.values["peak_memory_gb"], peak_memory() or 0.0)
        self.values["peak_memory_gb"] = round(peak, 2)
        atomic_write_json(self.path, self.values)

    def add_seconds(self, phase: str, stage: str, seconds: float) -> None:
        """Add to the time that a stage of a phase has taken, and save."""
        stages = self.values["seconds"].setdefault(phase, {})
        stages[stage] = round(stages.get(stage, 0.0) + seconds, 1)
        self.save()


class Stopwatch:
    """A progress that also adds each stage's time to the record, every few seconds."""

    def __init__(self, progress: Progress, record: Record, phase: str) -> None:
        self._progress, self._record, self._phase = progress, record, phase

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Time a stage."""
        last = time.perf_counter()

        def count(wait: float) -> None:
            nonlocal last
            now = time.perf_counter()
            if now - last >= wait:
                self._record.add_seconds(self._phase, label, now - last)
                last = now

        with self._progress.task(label, total) as advance:

            def timed(done: int) -> None:
                advance(done)
                count(SAVE_INTERVAL)

            try:
                yield timed
            finally:
                count(0.0)

    def say(self, text: str) -> None:
        """Print a line."""
        self._progress.say(text)

    def expect(self, stages: Mapping[str, float]) -> None:
        """Hand on what is expected of the stages."""
        self._progress.expect(stages)


def phase(record: Record, progress: Progress, name: str, work: Callable[[Stopwatch], None]) -> None:
    """Run a phase; time outside its stages is recorded as theirs, under `other`."""
    watch, start = Stopwatch(progress, record, name), time.perf_counter()
    before = sum(record.values["seconds"].get(name, {}).values())
    try:
        work(watch)
    finally:
        told = sum(record.values["seconds"].get(name, {}).values()) - before
        record.add_seconds(name, "other", max(0.0, time.perf_counter() - start - told))
