from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sppdet.proposals.grouping import ONE, group

Ints = NDArray[np.int32]


class World:
    """A random partition of a small image into rectangles' remains, with histograms."""

    def __init__(self, seed: int, side: int, seeds: int) -> None:
        rng = np.random.default_rng(seed)
        points = rng.integers(0, side, (seeds, 2))
        ys, xs = np.indices((side, side))
        distance = np.abs(ys[..., None] - points[:, 0]) + np.abs(xs[..., None] - points[:, 1])
        _, labels = np.unique(distance.argmin(axis=2), return_inverse=True)
        self.labels = labels.reshape(side, side)
        self.area, n = side * side, int(self.labels.max()) + 1
        self.sizes = np.bincount(self.labels.ravel()).astype(np.int32)
        self.boxes = np.array([box_of(self.labels == i) for i in range(n)], np.int32)
        # Few distinct colors make ties.
        pixels = rng.integers(0, 3, (side, side))
        self.counts = np.zeros((n, 6), np.int32)
        for channel in range(3):
            np.add.at(self.counts, (self.labels, 2 * channel + (pixels == channel)), 1)
        touching = set()
        for a, b in (
            (self.labels[:, :-1], self.labels[:, 1:]),
            (self.labels[:-1], self.labels[1:]),
        ):
            touching |= {(min(p), max(p)) for p in zip(a.flat, b.flat, strict=True) if p[0] != p[1]}
        self.pairs = np.array(sorted(touching), np.int32).reshape(-1, 2)


def box_of(mask: NDArray[np.bool_]) -> list[int]:
    ys, xs = np.nonzero(mask)
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


def obvious_joins(world: World, weight: int) -> list[tuple[int, int]]:
    """Algorithm 1 with the paper's similarities, all pairs anew at each step, exact fractions."""
    sizes = dict(enumerate(world.sizes.tolist()))
    boxes = dict(enumerate(world.boxes.tolist()))
    counts = {i: c.astype(int) for i, c in enumerate(world.counts)}
    touching = {tuple(p) for p in world.pairs.tolist()}

    def similarity(a: int, b: int) -> Fraction:
        p, q = boxes[a], boxes[b]
        joint = (max(p[2], q[2]) - min(p[0], q[0])) * (max(p[3], q[3]) - min(p[1], q[1]))
        both = sizes[a] + sizes[b]
        value = 1 - Fraction(both, world.area) + 1 - Fraction(joint - both, world.area)
        if weight:
            h = [
                (counts[i] * (np.float32(ONE) / np.float32(sizes[i])))
                .astype(np.float32)
                .astype(int)
                for i in (a, b)
            ]
            value += weight * Fraction(int(np.minimum(*h).sum()), 3 * ONE)
        return value

    joins: list[tuple[int, int]] = []
    while touching:
        a, b = min(touching, key=lambda pair: (-similarity(*pair), pair))
        new = len(world.sizes) + len(joins)
        joins.append((a, b))
        sizes[new] = sizes[a] + sizes[b]
        counts[new] = counts[a] + counts[b]
        p, q = boxes[a], boxes[b]
        boxes[new] = [min(p[0], q[0]), min(p[1], q[1]), max(p[2], q[2]), max(p[3], q[3])]
        renamed = {
            tuple(sorted(new if end in (a, b) else end for end in pair)) for pair in touching
        }
        touching = {(x, y) for x, y in renamed if x != y}
    return joins


def test_a_single_region_is_its_own_hierarchy() -> None:
    boxes = group(
        np.array([4], np.int32),
        np.array([[0, 0, 2, 2]], np.int32),
        np.zeros((1, 6), np.int32),
        np.zeros((0, 2), np.int32),
        1,
        4,
    )
    assert boxes.tolist() == [[0, 0, 2, 2]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9999), st.integers(2, 9), st.integers(1, 14), st.sampled_from([0, 1, 2]))
def test_group_joins_as_the_plain_algorithm_does(
    seed: int, side: int, seeds: int, weight: int
) -> None:
    world = World(seed, side, seeds)
    boxes = group(world.sizes, world.boxes, world.counts, world.pairs, weight, world.area)
    n = len(world.sizes)
    assert len(boxes) == 2 * n - 1
    assert boxes[-1].tolist() == [0, 0, side, side]
    members = [world.labels == i for i in range(n)]
    for box, (a, b) in zip(boxes[n:], obvious_joins(world, weight), strict=True):
        members.append(members[a] | members[b])
        assert box.tolist() == box_of(members[-1])


@pytest.mark.parametrize("weight", [0, 1])
def test_group_leaves_regions_that_nothing_joins_apart(weight: int) -> None:
    boxes = np.array([[0, 0, 1, 1], [1, 0, 2, 1], [5, 5, 6, 6]], np.int32)
    merged = group(
        np.ones(3, np.int32),
        boxes,
        np.ones((3, 6), np.int32),
        np.array([[0, 1]], np.int32),
        weight,
        36,
    )
    assert merged.tolist() == [*boxes.tolist(), [0, 0, 2, 1]]
