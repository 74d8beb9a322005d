"""Detections kept as they come: the same to the last bit, and no line that is not whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sppdet.core.errors import EvaluationError
from sppdet.core.types import Detections, Sample
from sppdet.detection.kept_detections import KeptDetections
from tests.helpers.evaluation_cases import CLASSES, detections_of, random_case, sample_of


def _samples(folder: Path, count: int) -> list[Sample]:
    """Samples whose files are no images: only their bytes count."""
    out = []
    for number in range(count):
        path = folder / f"{number}.jpg"
        path.write_bytes(b"pixels %d" % number)
        out.append(replace(sample_of(str(number), [], []), path=path))
    return out


def _same(a: Detections | None, b: Detections) -> bool:
    return a is not None and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("boxes", "scores", "labels", "margins")
    )


@pytest.mark.parametrize("seed", range(20))
def test_what_is_kept_comes_back_to_the_last_bit(tmp_path: Path, seed: int) -> None:
    _, cases = random_case(seed)
    found = [*cases.values(), detections_of([], [], [])]
    # Margins of their own, which the scores do not tell.
    found = [Detections(d.boxes, d.scores, d.labels, CLASSES, d.margins * 3.7) for d in found]
    samples = _samples(tmp_path, len(found))
    kept = KeptDetections(tmp_path / "out", "key", CLASSES)
    assert kept.get(samples[0]) is None
    for sample, detections in zip(samples, found, strict=True):
        kept.add(sample, detections)
    again = KeptDetections(tmp_path / "out", "key", CLASSES)
    for sample, detections in zip(samples, found, strict=True):
        assert _same(again.get(sample), detections)
    assert KeptDetections(tmp_path / "out", "other", CLASSES).get(samples[0]) is None
    again.remove()
    assert KeptDetections(tmp_path / "out", "key", CLASSES).get(samples[0]) is None


def test_every_cut_leaves_the_lines_before_it(tmp_path: Path) -> None:
    samples = _samples(tmp_path, 3)
    one = detections_of([[0, 0, 9, 9]], [0.5], [1])
    kept = KeptDetections(tmp_path, "key", CLASSES)
    ends = [0]
    for sample in samples[:2]:
        kept.add(sample, one)
        ends.append(kept.path.stat().st_size)
    data = kept.path.read_bytes()
    for length in range(len(data) + 1):
        kept.path.write_bytes(data[:length])
        again = KeptDetections(tmp_path, "key", CLASSES)
        whole = sum(end <= length for end in ends[1:])
        assert [again.get(sample) is not None for sample in samples[:2]] == [
            number < whole for number in range(2)
        ]
        assert again.path.stat().st_size == ends[whole]
    again.add(samples[2], one)
    assert _same(KeptDetections(tmp_path, "key", CLASSES).get(samples[2]), one)


def test_another_image_or_size_is_not_known(tmp_path: Path) -> None:
    (sample,) = _samples(tmp_path, 1)
    kept = KeptDetections(tmp_path, "key", CLASSES)
    kept.add(sample, detections_of([], [], []))
    again = KeptDetections(tmp_path, "key", CLASSES)
    assert again.get(replace(sample, width=499)) is None
    sample.path.write_bytes(b"others")
    assert again.get(sample) is None
    sample.path.unlink()
    assert again.get(sample) is None


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (sample,) = _samples(tmp_path, 1)
    kept = KeptDetections(tmp_path, "key", CLASSES)
    kept.path.mkdir()
    with pytest.raises(EvaluationError, match=r"part\.jsonl: cannot be written .*make room"):
        kept.add(sample, detections_of([], [], []))
