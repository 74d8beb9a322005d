"""What holds of every engine: boxes in bounds, unique, never none, the same each time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sppdet.core.types import FloatArray, ImageArray
from sppdet.proposals import ENGINES, ProposalConfig, make_proposer
from tests.helpers.proposal_cases import check, scene

SHAPES = [
    (1, 1),
    (1, 50),
    (50, 1),
    (2, 2),
    (2, 3),
    (60, 20),
    (20, 200),
    (64, 64),
    (40, 400),
    (400, 40),
]


def propose(engine: str, image: ImageArray, **values: int) -> FloatArray:
    return make_proposer(ProposalConfig(engine=engine, **values))(image)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("engine", ENGINES)
def test_any_shape_gives_valid_boxes(engine: str, shape: tuple[int, int]) -> None:
    image = scene(*shape)
    check(propose(engine, image), image)


@pytest.mark.parametrize("engine", ENGINES)
def test_pure_noise_gives_valid_boxes(engine: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    check(propose(engine, image), image)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_flat_image_has_the_whole_as_a_proposal(engine: str) -> None:
    image = np.full((60, 130, 3), 77, np.uint8)
    boxes = propose(engine, image)
    check(boxes, image)
    assert [0, 0, 130, 60] in boxes.tolist()
    if engine.startswith("selective"):
        assert len(boxes) == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_boxes_are_within_the_limits(engine: str) -> None:
    image = scene(100, 140)
    boxes = propose(engine, image, max_proposals=15, min_size=10)
    check(boxes, image)
    assert len(boxes) <= 15
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= 10
    # Where no box is large enough, the whole image is left.
    assert propose(engine, image, min_size=500).tolist() == [[0, 0, 140, 100]]


@pytest.mark.parametrize("engine", ENGINES)
def test_max_proposals_cuts_the_end(engine: str) -> None:
    image = scene(100, 140)
    everything = propose(engine, image, max_proposals=0)
    assert len(everything) > 20
    np.testing.assert_array_equal(propose(engine, image, max_proposals=20), everything[:20])


@pytest.mark.parametrize("engine", ENGINES)
def test_the_seed_changes_the_order_and_nothing_else(engine: str) -> None:
    image = scene(100, 140)
    first, second = propose(engine, image), propose(engine, image, seed=1)
    np.testing.assert_array_equal(propose(engine, image), first)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(np.unique(first, axis=0), np.unique(second, axis=0))


@pytest.mark.parametrize("engine", ENGINES)
def test_memory_layout_does_not_matter(engine: str) -> None:
    image = scene(90, 140)
    frozen = image.copy()
    frozen.setflags(write=False)
    expected = propose(engine, image)
    for same in (frozen, np.asfortranarray(image), image[:, ::-1].copy()[:, ::-1]):
        np.testing.assert_array_equal(propose(engine, same), expected)
    assert image.flags.writeable


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_do_not_matter(engine: str) -> None:
    images = [scene(60, 80, seed) for seed in range(4)]
    proposer = make_proposer(ProposalConfig(engine=engine))  # type: ignore[arg-type]
    with ThreadPoolExecutor(4) as pool:
        for found, image in zip(pool.map(proposer, images), images, strict=True):
            np.testing.assert_array_equal(found, proposer(image))
