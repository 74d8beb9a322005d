"""What a training measures of its own head."""

from __future__ import annotations

import pytest
import torch

from sppdet.backbones.feature_maps import FeatureExtractor
from sppdet.core.progress import NullProgress
from sppdet.core.settings import load
from sppdet.datasets import load_dataset, make_synthetic_voc
from sppdet.heads.head import RegionHead
from sppdet.training.config import TrainingConfig
from sppdet.training.data import TrainingData, prepare_data
from sppdet.training.pipeline import MUCH_ERROR
from sppdet.training.statistics import quantization_error

CONFIG = load(
    TrainingConfig,
    None,
    ["features.scales=[160]", "head.pyramid_channels=8", "head.fc6=16", "head.fc7=16"],
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    folder = tmp_path_factory.mktemp("statistics")
    dataset = load_dataset(make_synthetic_voc(folder / "voc", train=3, val=0, test=0), "train")
    extractor = FeatureExtractor(CONFIG.features, seed=0)
    return prepare_data(CONFIG, dataset, folder / "cache", extractor, NullProgress(), workers=1)


def head_of(data: TrainingData, config: TrainingConfig = CONFIG) -> RegionHead:
    extractor = FeatureExtractor(config.features, seed=0)
    return RegionHead(config.head, extractor, len(data.dataset.classes), seed=0)


def test_quantization_changes_the_stages_of_imagenet_a_little(data: TrainingData) -> None:
    assert 0 < quantization_error(head_of(data).freeze(quantize=True), data) < MUCH_ERROR


def test_quantization_cuts_off_stages_that_were_tuned_far_away(data: TrainingData) -> None:
    head = head_of(data)
    assert head.pooler.top_stages is not None
    with torch.no_grad():
        *_, last = (
            conv for conv in head.pooler.top_stages.modules() if isinstance(conv, torch.nn.Conv2d)
        )
        last.weight.mul_(50)
    # What reaches beyond the known range comes back as its end.
    assert quantization_error(head.freeze(quantize=True), data) > 2 * MUCH_ERROR


@pytest.mark.parametrize("change", ["features.quantize=false", "head.train_top_stages=false"])
def test_nothing_is_quantized_where_nothing_is_to_be(data: TrainingData, change: str) -> None:
    layers = ["features.layers=['bottleneck']"] if change.startswith("head") else []
    config = load(TrainingConfig, None, [change, *layers], base=CONFIG)
    head = head_of(data, config).freeze(quantize=config.features.quantize)
    assert quantization_error(head, data) == 0
