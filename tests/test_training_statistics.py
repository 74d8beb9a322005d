"""What a training measures of its own head."""

from __future__ import annotations

import pytest
import torch

from sppdet.config import Config, load_config
from sppdet.datasets import load_voc, make_synthetic_voc
from sppdet.features import FeatureExtractor
from sppdet.head import RegionHead
from sppdet.progress import NullProgress
from sppdet.training.data import TrainingData
from sppdet.training.run import MUCH_ROUNDING, prepare
from sppdet.training.statistics import rounding_error

CONFIG = load_config(None, ["features.scales=[160]", "head.reduce=8", "head.fc6=16", "head.fc7=16"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    folder = tmp_path_factory.mktemp("statistics")
    dataset = load_voc(make_synthetic_voc(folder / "voc", train=3, val=0, test=0), "train")
    extractor = FeatureExtractor(CONFIG.features, seed=0)
    return prepare(CONFIG, dataset, folder / "cache", extractor, NullProgress(), workers=1)


def head_of(data: TrainingData, config: Config = CONFIG) -> RegionHead:
    extractor = FeatureExtractor(config.features, seed=0)
    return RegionHead(config.head, extractor, len(data.dataset.classes), seed=0)


def test_rounding_changes_the_stages_of_imagenet_a_little(data: TrainingData) -> None:
    assert 0 < rounding_error(head_of(data).freeze(), data) < MUCH_ROUNDING


def test_rounding_cuts_off_stages_that_were_tuned_far_away(data: TrainingData) -> None:
    head = head_of(data)
    assert head.upper is not None
    with torch.no_grad():
        *_, last = (conv for conv in head.upper.modules() if isinstance(conv, torch.nn.Conv2d))
        last.weight.mul_(50)
    # What reaches beyond the known range comes back as its end.
    assert rounding_error(head.freeze(), data) > 2 * MUCH_ROUNDING


@pytest.mark.parametrize("change", ["features.eight_bits=false", "head.upper=false"])
def test_nothing_is_rounded_where_nothing_is_to_be(data: TrainingData, change: str) -> None:
    taps = ["features.taps=['bottleneck']"] if change.startswith("head") else []
    config = load_config(None, [change, *taps], base=CONFIG)
    assert rounding_error(head_of(data, config).freeze(), data) == 0
