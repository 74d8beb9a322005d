"""The order of images, which a resumed training sees the same; and what training starts from."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.detection.detector import Detector
from sppdet.detection.starting_model import StartingModel
from sppdet.training.config import FineTuneConfig
from sppdet.training.finetune_stage import batch_slots, finetune_head
from tests.helpers.made_detector import make_detector
from tests.helpers.training_context import SETTINGS, make_context

# With top stages that are fine-tuned, and the pretrained head beside the pyramid.
TOP_STAGES = (
    "features.backbone=efficientnet_lite0",
    "features.pretrained=true",
    "features.layers=['stage5']",
    "head.context_scales=[1.0, 2.0]",
    "head.train_top_stages=true",
)


@settings(max_examples=50, deadline=None)
@given(
    n_images=st.integers(1, 12),
    images=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
    epochs=st.integers(1, 4),
)
def test_each_epoch_sees_every_image_once(
    n_images: int, images: int, seed: int, epochs: int
) -> None:
    steps = math.ceil(epochs * n_images / images)
    config = FineTuneConfig(images_per_step=images, steps=steps)
    slots = list(batch_slots(config, n_images, seed))
    assert [slot.position for slot in slots] == list(range(steps * images))
    seen = [slot.image for slot in slots]
    for epoch in range(epochs):
        assert sorted(seen[epoch * n_images : (epoch + 1) * n_images]) == list(range(n_images))


@settings(max_examples=50, deadline=None)
@given(
    n_images=st.integers(1, 12),
    images=st.integers(1, 5),
    steps=st.integers(0, 10),
    more=st.integers(0, 5),
    start=st.integers(0, 10),
)
def test_a_later_start_goes_on_with_the_same_images(
    n_images: int, images: int, steps: int, more: int, start: int
) -> None:
    config = FineTuneConfig(images_per_step=images, steps=steps)
    whole = list(batch_slots(config, n_images, 3))
    assert list(batch_slots(config, n_images, 3, start)) == whole[start * images :]
    longer = batch_slots(config.replace(steps=steps + more), n_images, 3)
    assert list(longer)[: len(whole)] == whole


def test_the_order_of_images_follows_seed_and_epoch() -> None:
    config = FineTuneConfig(images_per_step=10, steps=2)
    orders = set()
    for seed in (0, 1):
        slots = [slot.image for slot in batch_slots(config, 10, seed)]
        orders |= {tuple(slots[:10]), tuple(slots[10:])}
    assert len(orders) == 4


def start_model(folder: Path, *overrides: str, rank: int = 0) -> StartingModel:
    """A made detector's file, fc6 in two factors for a rank above 0."""
    detector = make_detector(*SETTINGS, *overrides)
    if rank:
        generator = torch.Generator().manual_seed(1)
        directions = torch.linalg.qr(torch.randn(24, rank, generator=generator)).Q
        detector.head.factorize_fc6(directions, torch.randn(24, generator=generator))
    parts = (detector.svms, detector.regressors, detector.context)
    made = Detector(detector.classes, detector.config, detector.extractor, detector.head, *parts)
    made.save(folder / "start.safetensors", description="made", provenance={})
    return StartingModel.load(folder / "start.safetensors")


@pytest.mark.parametrize(("overrides", "rank"), [((), 0), ((), 5), (TOP_STAGES, 5)])
def test_no_steps_leave_the_features_of_the_model_that_training_starts_from(
    tmp_path: Path, overrides: tuple[str, ...], rank: int
) -> None:
    start = start_model(tmp_path, *overrides, rank=rank)
    context = make_context(tmp_path, *overrides, "finetune.steps=0", start=start)
    assert context.config.head.learned_boxes
    head = finetune_head(context).freeze(quantize=False)
    maps, targets = context.data.load(0)
    expected = start.head.regions(start.head.prepare(maps), targets.boxes)
    found = head.regions(head.prepare(maps), targets.boxes)
    for layer in ("fc6", "fc7"):
        wanted = torch.from_numpy(expected.layers[layer])
        assert wanted.std() > 0
        scale = float(wanted.abs().max())
        torch.testing.assert_close(
            torch.from_numpy(found.layers[layer]), wanted, rtol=1e-3, atol=1e-5 * scale
        )


def test_fine_tuning_from_a_model_is_found_again_under_that_model_alone(tmp_path: Path) -> None:
    settings = ("finetune.steps=2",)
    start = start_model(tmp_path)
    tuned = finetune_head(make_context(tmp_path, *settings, start=start)).state_dict()
    again = make_context(tmp_path, *settings, start=start)
    found = again.store.load("finetune")
    assert found is not None
    assert all(torch.equal(found[name], value) for name, value in tuned.items())
    other = start_model(tmp_path, rank=5)
    assert other.digest != start.digest
    for context in (
        make_context(tmp_path, *settings, start=other),
        make_context(tmp_path, *settings),
    ):
        assert context.store.load("finetune") is None
