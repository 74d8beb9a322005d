"""Detection over a data set: the same as image by image, with a cache or without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sppdet.core.errors import ImageError
from sppdet.core.images import read_image
from sppdet.core.progress import NullProgress
from sppdet.core.types import Dataset, Detections
from sppdet.datasets import load_dataset, make_synthetic_voc
from sppdet.detection.dataset_inference import detect_dataset
from sppdet.detection.detector import Detector
from tests.helpers.made_detector import CLASSES, make_detector

QUIET = NullProgress()
IMAGES = 3


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector()


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    root = make_synthetic_voc(
        tmp_path / "shapes", train=IMAGES, val=0, test=0, width=120, height=90, seed=3
    )
    return load_dataset(root, "train")


def _same(a: dict[str, Detections], b: dict[str, Detections]) -> bool:
    return list(a) == list(b) and all(
        np.array_equal(a[name].boxes, b[name].boxes)
        and np.array_equal(a[name].scores, b[name].scores)
        and np.array_equal(a[name].labels, b[name].labels)
        for name in a
    )


def _contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_empty_data_set(detector: Detector, tmp_path: Path) -> None:
    empty = Dataset("nothing", CLASSES, ())
    assert detect_dataset(detector, empty, None, QUIET) == {}
    assert detect_dataset(detector, empty, tmp_path / "cache", QUIET) == {}


def test_every_image_is_there_in_order_as_if_alone(detector: Detector, dataset: Dataset) -> None:
    found = detect_dataset(detector, dataset, None, QUIET)
    assert list(found) == [sample.image_id for sample in dataset]
    assert _same(found, {s.image_id: detector.detect(s.path) for s in dataset})
    turned = replace(dataset, samples=dataset.samples[::-1])
    backward = detect_dataset(detector, turned, None, QUIET)
    assert _same({name: backward[name] for name in found}, found)
    assert sum(map(len, found.values())) > IMAGES


def test_the_number_of_workers_changes_nothing(detector: Detector, dataset: Dataset) -> None:
    found = [detect_dataset(detector, dataset, None, QUIET, workers=n) for n in (1, 3)]
    assert _same(*found)


def test_a_cache_gives_what_float16_maps_give(
    detector: Detector, dataset: Dataset, tmp_path: Path
) -> None:
    cached = detect_dataset(detector, dataset, tmp_path / "cache", QUIET)
    expected = {}
    for sample in dataset:
        image = read_image(sample.path)
        maps, boxes = detector.extractor(image), detector.propose(image)
        half = maps.to(torch.float16)
        expected[sample.image_id] = detector.detect_regions([half], boxes)
        # Half precision has 11 bits: a margin moves by less than a hundredth. By a few in integers:
        # of a number nearly halfway between two, the least change makes a step.
        for eight_bits, most in ((False, 0.01), (True, 0.05)):
            head = detector.head.freeze(quantize=eight_bits)
            exact, rounded = (
                detector.svms.decision_function(
                    head.regions(head.prepare(one), boxes).layers["fc7"]
                )
                for one in (maps, half)
            )
            np.testing.assert_allclose(rounded, exact, atol=most)
    assert _same(cached, expected)


def test_a_filled_cache_is_used_and_left_alone(
    detector: Detector, dataset: Dataset, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = detect_dataset(detector, dataset, cache, QUIET)
    before = _contents(cache)
    assert len(before) == 2 * IMAGES
    assert _same(detect_dataset(detector, dataset, cache, QUIET), first)
    assert _contents(cache) == before
    other = make_detector(seed=1)
    assert not _same(detect_dataset(other, dataset, cache, QUIET), first)
    assert _contents(cache) == before


def test_a_damaged_cache_is_repaired(detector: Detector, dataset: Dataset, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = detect_dataset(detector, dataset, cache, QUIET)
    before = _contents(cache)
    for name, (_, data) in before.items():
        (cache / name).write_bytes(data[: len(data) // 2])
    assert _same(detect_dataset(detector, dataset, cache, QUIET), first)
    assert {name: data for name, (_, data) in _contents(cache).items()} == {
        name: data for name, (_, data) in before.items()
    }


@pytest.mark.parametrize("cached", [False, True])
def test_a_broken_image_is_an_error(
    detector: Detector, dataset: Dataset, tmp_path: Path, cached: bool
) -> None:
    broken = dataset.samples[2].path
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(ImageError, match=broken.name):
        detect_dataset(detector, dataset, tmp_path / "cache" if cached else None, QUIET)


@pytest.mark.parametrize("cached", [False, True])
def test_an_image_of_another_size_than_annotated_is_an_error(
    detector: Detector, dataset: Dataset, tmp_path: Path, cached: bool
) -> None:
    wrong = replace(dataset.samples[1], width=60)
    odd = replace(dataset, samples=(dataset.samples[0], wrong))
    with pytest.raises(ImageError, match="its annotation says 60x90"):
        detect_dataset(detector, odd, tmp_path / "cache" if cached else None, QUIET)
