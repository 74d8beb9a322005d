"""A tiny training up to its fine-tuned head, for tests of the stages after it."""

from __future__ import annotations

from pathlib import Path

from sppdet.backbones.feature_maps import FeatureExtractor
from sppdet.core.progress import NullProgress
from sppdet.core.settings import load
from sppdet.datasets import load_dataset, make_synthetic_voc
from sppdet.detection.starting_model import StartingModel
from sppdet.heads.head import RegionHead
from sppdet.training.checkpoints import StageStore, TrainingContext
from sppdet.training.config import TrainingConfig
from sppdet.training.data import prepare_data

IMAGES = 5
SETTINGS = (
    "features.backbone=zf5",
    "features.pretrained=false",
    "features.layers=['conv']",
    "features.scales=[96]",
    "features.quantize=false",
    "head.pyramid_channels=8",
    "head.context_scales=[]",
    "head.train_top_stages=false",
    "head.fc6=24",
    "head.fc7=16",
    "proposals.max_proposals=100",
)


def make_context(
    folder: Path, *overrides: str, start: StartingModel | None = None
) -> TrainingContext:
    """Prepare a data set of shapes, cached in `folder`; stages are kept in `folder / "run"`."""
    root = folder / "shapes"
    if not root.exists():
        make_synthetic_voc(root, train=IMAGES, val=0, test=0, width=120, height=90)
    dataset = load_dataset(root, "train")
    config = load(TrainingConfig, None, [*SETTINGS, *overrides])
    config = config.settled(IMAGES, None if start is None else start.config.head)
    extractor = FeatureExtractor(config.features, seed=config.seed)
    progress = NullProgress()
    data = prepare_data(config, dataset, folder / "cache", extractor, progress, workers=1)
    store = StageStore(folder / "run", config, data.key(), None if start is None else start.digest)
    return TrainingContext(config, data, store, progress, start)


def make_head(context: TrainingContext) -> RegionHead:
    """Make a head with the weights that it begins with."""
    extractor, classes = context.data.maps.extractor, context.data.dataset.classes
    head = RegionHead(context.config.head, extractor, len(classes), seed=context.config.seed)
    return head.freeze(quantize=False)
