"""The order of images: which a step sees, and that a resumed training sees the same."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.training.config import FineTuneConfig
from sppdet.training.finetune_stage import batch_slots


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
