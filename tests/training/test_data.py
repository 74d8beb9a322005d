"""Training data: its key holds all that later stages learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sppdet.backbones.feature_maps import FeatureExtractor, FeatureMapCache
from sppdet.training.data import TrainingData
from tests.helpers.training_context import make_context

Change = Callable[[TrainingData], TrainingData]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    return make_context(tmp_path_factory.mktemp("data")).data


def with_first(data: TrainingData, **changes: object) -> TrainingData:
    first, *others = data.dataset.samples
    samples = (replace(first, **changes), *others)  # type: ignore[arg-type]
    return replace(data, dataset=replace(data.dataset, samples=samples))


CHANGES: dict[str, Change] = {
    "image": lambda data: replace(data, digests=("00" * 32, *data.digests[1:])),
    "boxes": lambda data: with_first(data, boxes=data.dataset.samples[0].boxes + np.float32(1)),
    "labels": lambda data: with_first(data, labels=data.dataset.samples[0].labels * 0),
    "proposals": lambda data: replace(data, proposals=(data.proposals[0][1:], *data.proposals[1:])),
    "weights": lambda data: replace(
        data,
        maps=FeatureMapCache(Path(), FeatureExtractor(data.maps.extractor.config, seed=1)),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_its_key_follows_from_everything_in_it(data: TrainingData, change: str) -> None:
    assert CHANGES[change](data).key() != data.key()


def test_its_key_does_not_ask_where_files_lie(data: TrainingData) -> None:
    moved = with_first(data, path=Path("elsewhere.jpg"))
    maps = FeatureMapCache(Path("elsewhere"), FeatureExtractor(data.maps.extractor.config))
    assert replace(moved, maps=maps).key() == data.key()
