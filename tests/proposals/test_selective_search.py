from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.boxes import box_iou
from sppdet.core.images import read_sample
from sppdet.datasets import load_dataset
from sppdet.proposals.selective_search import FAST, QUALITY, SearchPlan, selective_search
from tests.helpers.proposal_cases import check, scene


@pytest.mark.parametrize("plan", [FAST, QUALITY])
@pytest.mark.parametrize("shape", [(300, 3000), (1, 70_000)])
def test_very_long_images_give_valid_boxes(plan: SearchPlan, shape: tuple[int, int]) -> None:
    image = scene(*shape)
    check(selective_search(image, plan), image)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 99))
def test_small_images_give_valid_boxes(height: int, width: int, seed: int) -> None:
    image = scene(height, width, seed)
    check(selective_search(image, min_side=1), image)


def test_twenty_megapixels() -> None:
    small = scene(365, 547)
    large = small.repeat(10, axis=0).repeat(10, axis=1)
    boxes = selective_search(large)
    check(boxes, large)
    assert len(boxes) > 50


def test_every_clear_object_is_found() -> None:
    image = np.full((300, 400, 3), (200, 30, 40), np.uint8)
    objects = np.array([[30, 40, 130, 200], [220, 60, 360, 120], [250, 180, 300, 280]], np.float32)
    for (x1, y1, x2, y2), color in zip(
        objects.astype(int), ((20, 90, 220), (240, 240, 90), (10, 10, 10)), strict=True
    ):
        image[y1:y2, x1:x2] = color
    best = box_iou(objects, selective_search(image)).max(axis=1)
    assert (best > 0.9).all()


def test_large_boxes_only() -> None:
    boxes = selective_search(scene(200, 300), min_side=60)
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= 60


def test_threads_and_calls_do_not_matter() -> None:
    images = [scene(150, 200, seed) for seed in range(6)]
    alone = [selective_search(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(selective_search, images), alone, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_another_process_gives_the_same_boxes() -> None:
    program = (
        "import hashlib, numpy as np; from sppdet.proposals import selective_search as s;"
        "a = np.random.default_rng(5).integers(0, 256, (60, 80, 3), dtype=np.uint8);"
        "print(hashlib.sha256(s(a).tobytes()).hexdigest())"
    )
    image = np.random.default_rng(5).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    here = hashlib.sha256(selective_search(image).tobytes()).hexdigest()
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert there.stdout.strip() == here, there.stderr


def test_most_objects_of_real_photos_are_found(voc_root: Path) -> None:
    samples = load_dataset(voc_root, "val").samples[:40]
    best = [
        box_iou(s.boxes[~s.difficult], selective_search(read_sample(s))).max(axis=1)
        for s in samples
    ]
    overlaps = np.concatenate(best)
    assert (overlaps >= 0.5).mean() >= 0.88
    assert overlaps.mean() >= 0.72
