"""Sizes, orders and learning rates of epochs."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sppdet.classification.config import (
    ClassificationConfig,
    NetworkConfig,
    TrainingConfig,
    load_classification_config,
)
from sppdet.classification.trainer import LearningRateSchedule, epoch_order, epoch_size
from sppdet.core.errors import ConfigError
from sppdet.core.settings import from_dict, to_dict

PLATEAU = TrainingConfig(learning_rate=1.0, patience=2)


def rates(config: TrainingConfig, errors: list[float], resume_at: int | None = None) -> list[float]:
    """The rates before the first epoch and after each, one of which is resumed at."""

    def start(rate: float) -> tuple[torch.optim.Optimizer, LearningRateSchedule]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
        optimizer.step()
        return optimizer, LearningRateSchedule(optimizer, config)

    optimizer, schedule = start(config.learning_rate)
    found = [config.learning_rate]
    for epoch in range(len(errors)):
        optimizer.step()
        schedule.step(errors[: epoch + 1])
        found.append(optimizer.param_groups[0]["lr"])
        if epoch == resume_at:
            state = json.loads(json.dumps(schedule.state(), allow_nan=False))
            optimizer, schedule = start(config.learning_rate)
            optimizer.param_groups[0]["lr"] = found[-1]
            schedule.load_state(state)
    return found


def test_the_first_epoch_has_the_learning_rate_asked_for() -> None:
    assert rates(PLATEAU, []) == [1.0]
    assert epoch_order(0, 0, 0) == []


def test_the_rate_falls_at_plateaus_and_twice_at_most() -> None:
    errors = [0.5, 0.4, 0.41, 0.4, 0.39, 0.5, 0.6]
    assert rates(PLATEAU, errors) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01])
    assert rates(PLATEAU, [0.5] * 50)[-1] == pytest.approx(0.01)


@given(st.lists(st.floats(0.01, 10), max_size=60), st.integers(1, 9))
def test_the_rate_never_rises(errors: list[float], patience: int) -> None:
    config = TrainingConfig(patience=patience, sizes=(224, 180))
    found = rates(config, errors)
    assert found == sorted(found, reverse=True)
    assert found[-1] >= config.learning_rate / 100.0001


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=40), st.data())
def test_a_resumed_schedule_goes_on_as_an_unbroken_one(
    errors: list[float], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(errors) - 1))
    for changes in ({"sizes": (9, 8)}, {"milestones": (5, 20, 5)}, {}):
        config = TrainingConfig(patience=2, **changes)
        assert rates(config, errors, resume_at=at) == rates(config, errors)


def test_sizes_that_take_turns_are_compared_by_whole_turns() -> None:
    config = TrainingConfig(learning_rate=1.0, patience=2, sizes=(224, 180))
    # The smaller size is always worse, and both get better.
    errors = [v for n in range(10) for v in (0.5 - 0.01 * n, 0.8 - 0.01 * n)]
    assert set(rates(config, errors)) == {1.0}
    patient = TrainingConfig(learning_rate=1.0, patience=1)
    assert rates(patient, errors[:8])[-1] < 1.0


def test_milestones_replace_plateaus() -> None:
    config = TrainingConfig(learning_rate=1.0, patience=1, milestones=(3, 5))
    found = rates(config, [0.5] * 6)
    assert found == pytest.approx([1.0, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01])


def test_sizes_of_epochs() -> None:
    def sizes(config: TrainingConfig, seed: int = 0) -> list[int]:
        return [epoch_size(config, 224, epoch, seed) for epoch in range(40)]

    assert set(sizes(TrainingConfig())) == {224}
    assert sizes(TrainingConfig(sizes=(224, 180)))[:4] == [224, 180, 224, 180]
    drawn = sizes(TrainingConfig(random_sizes=(180, 224)))
    assert drawn == sizes(TrainingConfig(random_sizes=(180, 224)))
    assert drawn != sizes(TrainingConfig(random_sizes=(180, 224)), seed=1)
    assert 180 <= min(drawn) < 190 < 210 < max(drawn) <= 224
    assert set(sizes(TrainingConfig(random_sizes=(9, 9)))) == {9}


@given(st.integers(0, 50), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_sees_every_image_once(count: int, epoch: int, seed: int) -> None:
    order = epoch_order(count, epoch, seed)
    assert sorted(order) == list(range(count))
    assert order == epoch_order(count, epoch, seed)


def test_epochs_have_orders_of_their_own() -> None:
    assert epoch_order(50, 0, 0) != epoch_order(50, 1, 0) != epoch_order(50, 1, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "training.batch is 0; give a whole number, 1 or more"),
        ({"epochs": -1}, "training.epochs is -1; give a whole number, 0 or more"),
        ({"learning_rate": 0.0}, "training.learning_rate is 0.0; give a number above 0"),
        ({"momentum": 1.0}, r"training.momentum is 1.0; give a number in \[0, 1\)"),
        ({"sizes": (0,)}, "training.sizes"),
        ({"milestones": (0,)}, "milestones"),
        ({"random_sizes": (224, 180)}, "lowest and the highest"),
        ({"random_sizes": (180, 224), "sizes": (224,)}, "exclude each other"),
        ({"keep_mb": -1}, "training.keep_mb is -1"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(**changes)  # type: ignore[arg-type]


def test_a_plain_network_is_not_trained_at_other_sizes() -> None:
    plain = NetworkConfig(variant="plain")
    ClassificationConfig(network=plain, training=TrainingConfig(sizes=(224,)))
    for training in (TrainingConfig(sizes=(224, 180)), TrainingConfig(random_sizes=(180, 224))):
        with pytest.raises(ConfigError, match="takes images of 224 pixels only"):
            ClassificationConfig(network=plain, training=training)


def test_settings_are_loaded_and_come_back() -> None:
    config = load_classification_config(
        None, ["training.sizes=[224, 180]", "network.levels=[4, 3, 2, 1]", "seed=3"]
    )
    assert (config.training.sizes, config.network.levels, config.seed) == (
        (224, 180),
        (4, 3, 2, 1),
        3,
    )
    assert from_dict(ClassificationConfig, to_dict(config)) == config
    with pytest.raises(ConfigError, match=r"did you mean 'training\.epochs'"):
        load_classification_config(None, ["training.epoch=3"])
    with pytest.raises(ConfigError, match="seed is -1"):
        load_classification_config(None, ["seed=-1"])
