"""The pass over all images: found again it is the same, and it learns from the right regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sppdet.heads.box_regression import BoxRegressors
from sppdet.heads.head import RegionHead
from sppdet.heads.image_context import ContextClassifier
from sppdet.training import region_pass
from sppdet.training.checkpoints import TrainingContext
from sppdet.training.region_pass import RegionPass, collect_regions
from tests.helpers.training_context import make_context, make_head


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pass")


def arrays(result: RegionPass) -> dict[str, bytes]:
    out = {f"miner.{name}": value.tobytes() for name, value in result.miner.state().items()}
    models: dict[str, BoxRegressors | ContextClassifier]
    models = {"box": result.regressors, "context": result.context}
    for part, model in models.items():
        for name in ("weights", "bias", "trained"):
            out[f"{part}.{name}"] = getattr(model, name).tobytes()
    return out


@pytest.mark.parametrize(
    ("svm_layer", "regression_layer"), [("fc7", "fc7"), ("fc6", "pool"), ("pool", "fc7")]
)
def test_found_again_it_is_the_same(
    folder: Path, svm_layer: str, regression_layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = (f"head.svm_layer={svm_layer}", f"head.regression_layer={regression_layer}")
    context = make_context(folder, *layers)
    head = make_head(context)
    fresh = collect_regions(context, head)

    def refuse(context: TrainingContext, head: RegionHead) -> RegionPass:
        raise AssertionError("the pass was made again")

    monkeypatch.setattr(region_pass, "_collect", refuse)
    again = collect_regions(context, head)
    assert arrays(again) == arrays(fresh)
    assert again.regressors.trained.any()


def test_positives_are_the_objects_features(folder: Path) -> None:
    context = make_context(folder, "svm.feature_norm=7")
    data, head = context.data, make_head(context)
    state = collect_regions(context, head).miner.state()
    expected, labels = [], []
    for index in range(len(data.dataset)):
        maps, every = data.load(index)
        regions = head.regions(head.prepare(maps), every.gt_boxes)
        expected.append(regions.layers["fc7"])
        labels.append(every.gt_labels)
    rows = np.concatenate(expected) * np.float32(state["scale"][0])
    np.testing.assert_allclose(state["rows"], rows, rtol=1e-4, atol=1e-5)
    counts = np.bincount(np.concatenate(labels), minlength=len(data.dataset.classes))
    assert state["positives_count"].tolist() == counts.tolist()
    assert not state["negatives_count"].any()


def test_what_no_image_shows_is_not_learned(folder: Path) -> None:
    context = make_context(folder)
    result = collect_regions(context, make_head(context))
    dataset = context.data.dataset
    shown = np.zeros(len(dataset.classes), np.bool_)
    for sample in dataset:
        shown[sample.labels] = True
    assert np.array_equal(result.regressors.trained, shown)
    # A class that every image shows cannot be told by its absence either.
    everywhere = np.all([np.isin(range(len(shown)), one.labels) for one in dataset], axis=0)
    assert np.array_equal(result.context.trained, shown & ~everywhere)
