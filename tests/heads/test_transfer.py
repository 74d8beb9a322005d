"""Layers of a trained head in a head for other classes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sppdet.heads.head import RegionHead
from sppdet.heads.transfer import same_classes, take_layers, whole_fc6
from tests.helpers.region_cases import FORMS, extractor, head_of, random_boxes, random_maps

WIDTH, HEIGHT = 150, 100
KNOWN = ("ring", "disc", "cross")


def new_head(source: RegionHead, n_classes: int) -> RegionHead:
    return RegionHead(source.config, extractor(source.pooler.rules), n_classes, seed=7)


@given(names=st.lists(st.sampled_from(["a", "A ", "b", " B", "c  d", "C d", ""]), max_size=6))
def test_classes_are_the_same_whatever_their_case_and_blanks(names: list[str]) -> None:
    plain = [" ".join(name.lower().split()) for name in names]
    known = ("b", "c d", "B")
    assert same_classes(known, names) == [{"b": 0, "c d": 1}.get(name) for name in plain]
    assert same_classes((), names) == [None] * len(names)


@pytest.mark.parametrize("form", FORMS)
def test_two_factors_are_one_matrix(form: str) -> None:
    head = head_of(form)
    width = head.config.fc6
    torch.manual_seed(0)
    directions, mean = torch.linalg.qr(torch.randn(width, width // 2)).Q, torch.randn(width)
    pooled = head.pooler.pool(
        head.prepare(random_maps(head.pooler.rules, WIDTH, HEIGHT)),
        random_boxes(30, WIDTH, HEIGHT),
    )
    head.factorize_fc6(directions, mean)
    weight, bias = whole_fc6(head)
    found = torch.relu(torch.nn.functional.linear(pooled, weight, bias))
    torch.testing.assert_close(found, head.fc6_from_pooled(pooled), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_taken_over_gives_the_same_features(form: str) -> None:
    source = head_of(form)
    source.pooler.set_statistics(source.pooler.mean + 0.5, source.pooler.std * 2)
    head = new_head(source, 2)
    take_layers(head, ("x", "y"), source, KNOWN)
    maps, boxes = random_maps(head.pooler.rules, WIDTH, HEIGHT), random_boxes(30, WIDTH, HEIGHT)
    expected = source.regions(source.prepare(maps), boxes).layers
    found = head.regions(head.prepare(maps), boxes).layers
    for layer in ("fc6", "fc7"):
        np.testing.assert_allclose(found[layer], expected[layer], rtol=1e-4, atol=1e-4)


def test_classes_of_the_same_name_are_taken_over_and_others_begin_small() -> None:
    source = head_of(next(iter(FORMS)))
    head = new_head(source, 3)
    begun = copy.deepcopy(head.cls_score.weight)
    take_layers(head, ("square", " Cross", "star"), source, KNOWN)
    scores, deltas = head.cls_score, head.bbox_pred
    assert torch.equal(scores.weight[[0, 2]], source.cls_score.weight[[0, 3]])
    assert torch.equal(scores.bias[[0, 2]], source.cls_score.bias[[0, 3]])
    assert torch.equal(scores.weight[[1, 3]], begun[[1, 3]])
    assert torch.equal(deltas.weight[4:8], source.bbox_pred.weight[8:12])
    rows = torch.arange(4)
    for first in (0, 8):
        mean = sum(source.bbox_pred.weight[4 * k + rows] for k in range(3)) / 3
        torch.testing.assert_close(deltas.weight[first : first + 4], mean)
        mean = sum(source.bbox_pred.bias[4 * k + rows] for k in range(3)) / 3
        torch.testing.assert_close(deltas.bias[first : first + 4], mean)
