"""Sizes, orders and learning rates of epochs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sppdet.classification.config import ClassificationConfig, load_classification_config
from sppdet.classification.networks import NetworkConfig
from sppdet.classification.schedule import (
    TrainingConfig,
    epoch_order,
    epoch_size,
    learning_rate,
)
from sppdet.errors import ConfigError
from sppdet.settings import from_dict, to_dict

PLATEAU = TrainingConfig(learning_rate=1.0, patience=2)


def test_the_first_epoch_has_the_learning_rate_asked_for() -> None:
    assert learning_rate(PLATEAU, []) == 1.0
    assert epoch_order(0, 0, 0) == []


def test_the_rate_falls_at_plateaus_and_twice_at_most() -> None:
    assert learning_rate(PLATEAU, [0.5, 0.4, 0.41]) == 1.0
    assert learning_rate(PLATEAU, [0.5, 0.4, 0.41, 0.4]) == 0.1
    assert learning_rate(PLATEAU, [0.5, 0.4, 0.41, 0.4, 0.39, 0.5]) == 0.1
    assert learning_rate(PLATEAU, [0.5, 0.4, 0.41, 0.4, 0.39, 0.5, 0.6]) == 0.01
    assert learning_rate(PLATEAU, [0.5] * 50) == 0.01


@given(st.lists(st.floats(0.01, 10), max_size=60), st.integers(1, 9))
def test_the_rate_never_rises(errors: list[float], patience: int) -> None:
    config = TrainingConfig(patience=patience, sizes=(224, 180))
    rates = [learning_rate(config, errors[:n]) for n in range(len(errors) + 1)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] >= config.learning_rate / 100.0001


def test_sizes_that_take_turns_are_judged_by_whole_turns() -> None:
    config = TrainingConfig(learning_rate=1.0, patience=2, sizes=(224, 180))
    # The smaller size is always worse, and both get better.
    errors = [v for n in range(10) for v in (0.5 - 0.01 * n, 0.8 - 0.01 * n)]
    assert {learning_rate(config, errors[:n]) for n in range(21)} == {1.0}
    patient = TrainingConfig(learning_rate=1.0, patience=1)
    assert learning_rate(patient, errors[:8]) < 1.0


def test_milestones_replace_plateaus() -> None:
    config = TrainingConfig(learning_rate=1.0, patience=1, milestones=(3, 5))
    rates = [learning_rate(config, [0.5] * n) for n in range(7)]
    assert rates == [1.0, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01]


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
        ({"batch": 0}, "counts"),
        ({"epochs": -1}, "counts"),
        ({"learning_rate": 0.0}, "out of range"),
        ({"momentum": 1.0}, "out of range"),
        ({"sizes": (0,)}, "training.sizes"),
        ({"milestones": (0,)}, "milestones"),
        ({"random_sizes": (224, 180)}, "lowest and the highest"),
        ({"random_sizes": (180, 224), "sizes": (224,)}, "exclude each other"),
        ({"keep_mb": -1}, "negative"),
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
