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

from sppdet.boxes import iou_matrix
from sppdet.datasets import load_voc
from sppdet.images import read_sample
from sppdet.proposals.selective import FAST, QUALITY, Plan, selective_search
from sppdet.types import FloatArray, ImageArray


def scene(height: int, width: int, seed: int = 0) -> ImageArray:
    """Random rectangles of flat colour with a little noise."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 90, np.float64)
    for _ in range(12):
        x1, x2 = np.sort(rng.integers(0, width + 1, 2))
        y1, y2 = np.sort(rng.integers(0, height + 1, 2))
        image[y1:y2, x1:x2] = rng.integers(0, 256, 3)
    noisy: ImageArray = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
    return noisy


def check(boxes: FloatArray, image: ImageArray) -> None:
    """What holds for every list of proposals."""
    height, width = image.shape[:2]
    assert boxes.dtype == np.float32
    assert boxes.ndim == 2
    assert boxes.shape[1] == 4
    assert len(boxes) >= 1
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [width, height]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    np.testing.assert_array_equal(boxes, np.rint(boxes))


@pytest.mark.parametrize("plan", [FAST, QUALITY])
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 50), (50, 1), (2, 3), (40, 400), (400, 40), (300, 3000), (1, 70_000)]
)
def test_any_shape_gives_valid_boxes(plan: Plan, shape: tuple[int, int]) -> None:
    image = scene(*shape)
    check(selective_search(image, plan), image)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 99), st.booleans())
def test_small_images_give_valid_boxes(height: int, width: int, seed: int, texture: bool) -> None:
    image = scene(height, width, seed)
    check(selective_search(image, min_side=1, texture=texture), image)


def test_pure_noise_gives_valid_boxes() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    check(selective_search(image), image)


def test_a_flat_image_has_one_proposal_the_whole() -> None:
    image = np.full((120, 260, 3), 77, np.uint8)
    assert selective_search(image).tolist() == [[0, 0, 260, 120]]


def test_twenty_megapixels() -> None:
    small = scene(365, 547)
    large = small.repeat(10, axis=0).repeat(10, axis=1)
    boxes = selective_search(large)
    check(boxes, large)
    assert len(boxes) > 50


def test_every_clear_object_is_found() -> None:
    image = np.full((300, 400, 3), (200, 30, 40), np.uint8)
    objects = np.array([[30, 40, 130, 200], [220, 60, 360, 120], [250, 180, 300, 280]], np.float32)
    for (x1, y1, x2, y2), colour in zip(
        objects.astype(int), ((20, 90, 220), (240, 240, 90), (10, 10, 10)), strict=True
    ):
        image[y1:y2, x1:x2] = colour
    best = iou_matrix(objects, selective_search(image)).max(axis=1)
    assert (best > 0.9).all()


def test_large_boxes_only() -> None:
    boxes = selective_search(scene(200, 300), min_side=60)
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= 60


def test_max_proposals_cuts_the_end() -> None:
    image = scene(200, 300)
    everything = selective_search(image)
    assert len(everything) > 20
    np.testing.assert_array_equal(selective_search(image, max_proposals=20), everything[:20])


def test_the_seed_changes_the_order_and_nothing_else() -> None:
    image = scene(200, 300)
    first, second = selective_search(image), selective_search(image, seed=1)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(np.unique(first, axis=0), np.unique(second, axis=0))


def test_texture_changes_the_boxes() -> None:
    image = scene(200, 300)
    first, second = selective_search(image), selective_search(image, texture=True)
    check(second, image)
    assert not np.array_equal(first, second)


def test_memory_layout_does_not_matter() -> None:
    image = scene(90, 140)
    frozen = image.copy()
    frozen.setflags(write=False)
    expected = selective_search(image)
    for same in (frozen, np.asfortranarray(image), image[:, ::-1].copy()[:, ::-1]):
        np.testing.assert_array_equal(selective_search(same), expected)
    assert image.flags.writeable


def test_threads_and_calls_do_not_matter() -> None:
    images = [scene(150, 200, seed) for seed in range(6)]
    alone = [selective_search(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(selective_search, images), alone, strict=True):
            np.testing.assert_array_equal(found, expected)
    with ThreadPoolExecutor(2) as pool:
        for image, expected in zip(images, alone, strict=True):
            np.testing.assert_array_equal(selective_search(image, executor=pool), expected)


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
    samples = load_voc(voc_root, "val").samples[:40]
    best = [
        iou_matrix(s.boxes[~s.difficult], selective_search(read_sample(s))).max(axis=1)
        for s in samples
    ]
    overlaps = np.concatenate(best)
    assert (overlaps >= 0.5).mean() >= 0.88
    assert overlaps.mean() >= 0.72
