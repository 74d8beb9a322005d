"""The fully connected layers: widths, weights, the short way to fc6, and what regions get."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sppdet.backbones.feature_maps import FeatureConfig
from sppdet.core.boxes import DELTA_STDS, decode_deltas
from sppdet.core.errors import ConfigError
from sppdet.heads.config import HeadConfig
from sppdet.heads.head import RegionHead
from tests.helpers.region_cases import (
    FORMS,
    LAYERS,
    NARROW,
    PLAIN,
    extractor,
    head_of,
    random_boxes,
    random_maps,
)

WIDTH, HEIGHT = 150, 100


@pytest.mark.parametrize("form", FORMS)
def test_no_boxes(form: str) -> None:
    head = head_of(form)
    prepared = head.prepare(random_maps(head.pooler.rules, WIDTH, HEIGHT))
    none = np.zeros((0, 4), np.float32)
    output = head(head.pooler.pool(prepared, none))
    assert output.class_logits.shape == (0, 4)
    assert output.box_deltas.shape == (0, 3, 4)
    regions = head.regions(prepared, none)
    assert head.class_log_probabilities(regions).shape == (0, 3)
    moved = head.predict_boxes(regions, np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert moved.shape == (0, 4)


@pytest.mark.parametrize("form", FORMS)
def test_the_short_way_to_fc6_is_the_long_one(form: str) -> None:
    head = head_of(form)
    prepared = head.prepare(random_maps(head.pooler.rules, WIDTH, HEIGHT))
    for count in (0, 12, 300):
        boxes = random_boxes(count, WIDTH, HEIGHT)
        expected = head.fc6_from_pooled(head.pooler.pool(prepared, boxes))
        found = torch.relu(head.fc6_response(prepared, boxes))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_maps_prepared_anew_follow_the_weights(form: str) -> None:
    head = head_of(form)
    maps, boxes = random_maps(head.pooler.rules, WIDTH, HEIGHT), random_boxes(40, WIDTH, HEIGHT)
    prepared = head.prepare(maps)
    first = head.fc6_response(prepared, boxes)
    assert torch.equal(head.fc6_response(prepared, boxes), first)
    head.fc6.weight.mul_(2)
    head.fc6.bias.mul_(2)
    torch.testing.assert_close(head.fc6_response(head.prepare(maps), boxes), 2 * first)


@pytest.mark.parametrize("form", FORMS)
def test_layers_have_the_widths_they_say(form: str) -> None:
    head = head_of(form)
    prepared = head.prepare(random_maps(head.pooler.rules, WIDTH, HEIGHT))
    pooled = head.pooler.pool(prepared, random_boxes(5, WIDTH, HEIGHT))
    fc6 = head.fc6_from_pooled(pooled)
    fc7 = head.fc7_from_fc6(fc6)
    for name, values in (("pool", pooled), ("fc6", fc6), ("fc7", fc7)):
        assert values.shape == (5, head.layer_width(name))
    assert (fc6 >= 0).all()
    assert (fc7 >= 0).all()
    output = head(pooled)
    assert output.class_logits.shape == (5, 4)
    assert output.box_deltas.shape == (5, 3, 4)
    assert torch.equal(output.class_logits, head.cls_score(fc7))


@pytest.mark.parametrize("layer", ["svm_layer", "regression_layer"])
@pytest.mark.parametrize("form", FORMS)
def test_regions_have_the_layers_that_are_read(form: str, layer: str) -> None:
    head = head_of(form)
    prepared = head.prepare(random_maps(head.pooler.rules, WIDTH, HEIGHT))
    boxes = random_boxes(20, WIDTH, HEIGHT)
    short = head.regions(prepared, boxes)
    assert set(short.layers) == {"fc6", "fc7"}
    head.config = head.config.replace(**{layer: "pool"})
    whole = head.regions(prepared, boxes)
    assert set(whole.layers) == {"pool", "fc6", "fc7"}
    pooled = head.pooler.pool(prepared, boxes)
    assert np.array_equal(whole.layers["pool"], pooled.numpy())
    known = head.regions_from_pooled(pooled, boxes, prepared.size)
    assert known.image_vector is None
    for name, values in whole.layers.items():
        assert np.array_equal(known.layers[name], values)
        assert values.shape == (20, head.layer_width(name))
    for name, values in short.layers.items():
        np.testing.assert_allclose(values, whole.layers[name], rtol=1e-4, atol=1e-4)
    for regions in (short, whole):
        assert regions.size == (WIDTH, HEIGHT)
        assert np.array_equal(regions.boxes, boxes)
        assert regions.image_vector is not None
        assert np.array_equal(regions.image_vector, prepared.image_vector().numpy())


def test_log_probabilities_are_those_of_the_softmax_without_background() -> None:
    head = head_of("context")
    prepared = head.prepare(random_maps(head.pooler.rules, WIDTH, HEIGHT))
    regions = head.regions(prepared, random_boxes(20, WIDTH, HEIGHT))
    logits = head.cls_score(torch.from_numpy(regions.layers["fc7"]))
    expected = torch.softmax(logits.double(), dim=1)[:, 1:].log().numpy()
    np.testing.assert_allclose(head.class_log_probabilities(regions), expected, atol=1e-5)


def test_boxes_are_moved_by_the_deltas_of_their_class() -> None:
    head = head_of("context")
    head.bbox_pred.bias.copy_(torch.linspace(-0.3, 0.3, 12))
    prepared = head.prepare(random_maps(head.pooler.rules, WIDTH, HEIGHT))
    regions = head.regions(prepared, random_boxes(20, WIDTH, HEIGHT))
    rows, labels = np.array([7, 3, 7, 0, 3]), np.array([2, 0, 0, 1, 0])
    found = head.predict_boxes(regions, rows, labels)
    deltas = head.bbox_pred(torch.from_numpy(regions.layers["fc7"])).unflatten(1, (3, 4)).numpy()
    own = deltas[rows, labels] * np.array(DELTA_STDS, np.float32)
    np.testing.assert_allclose(found, decode_deltas(own, regions.boxes[rows]), rtol=1e-4, atol=1e-3)
    assert not np.array_equal(found, regions.boxes[rows])
    assert np.array_equal(found[1], found[4])


def test_dropout_acts_in_training_only() -> None:
    head = head_of("pyramid")
    pooled = torch.randn(4, head.pooler.dim)
    assert torch.equal(head(pooled).class_logits, head(pooled).class_logits)
    head.train()
    assert not torch.equal(head(pooled).class_logits, head(pooled).class_logits)


def test_the_first_weights_follow_the_seed() -> None:
    first, again, other = (head_of("context", seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["fc6.weight"], other["fc6.weight"])


def test_weights_of_the_backbone_are_neither_trained_nor_stored() -> None:
    features, config = FORMS["context"]
    head = RegionHead(config, extractor(features), 3)
    trained = {name for name, _ in head.named_parameters()}
    layers = {name.rpartition(".")[0] for name in trained}
    assert layers == {"pooler.reduce", "fc6", "fc7", "cls_score", "bbox_pred"}
    assert set(head.state_dict()) == trained | {"pooler.mean", "pooler.std"}


def test_the_top_stages_are_trained_and_stored() -> None:
    features, config = FORMS["top"]
    head = RegionHead(config, extractor(features), 3)
    top, reduce = "pooler.top_stages.", "pooler.reduce."
    stages = {name for name, _ in head.named_parameters() if name.startswith(top)}
    # Five inverted residuals of stage 6 and one of stage 7: three convolutions each.
    assert len(stages) == 2 * 3 * 6
    assert stages <= set(head.state_dict())
    below = {id(parameter) for parameter in head.pooler.pooling_parameters()}
    assert below == {
        id(parameter)
        for name, parameter in head.named_parameters()
        if name.startswith((top, reduce))
    }
    # A copy: the backbone stays frozen as it was.
    assert not any(p.requires_grad for p in extractor(features).backbone.parameters())


@pytest.mark.parametrize("layers", [LAYERS, ("stage3",), ("bottleneck",)])
def test_top_stages_need_the_one_layer_below_them(layers: tuple[str, ...]) -> None:
    features = extractor(FeatureConfig(layers=layers, scales=(96,)))
    with pytest.raises(ConfigError, match=r"no stages to train above.*head\.train_top_stages"):
        RegionHead(NARROW.replace(train_top_stages=True), features, 3)


@pytest.mark.parametrize("form", ["context", "top"])
def test_gradients_reach_every_layer(form: str) -> None:
    features, config = FORMS[form]
    head = RegionHead(config, extractor(features), 3)
    prepared = head.pooler.prepare(random_maps(features, WIDTH, HEIGHT))
    output = head(head.pooler.pool(prepared, random_boxes(10, WIDTH, HEIGHT)))
    (output.class_logits.square().sum() + output.box_deltas.square().sum()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_state_dicts_carry_a_head_over() -> None:
    head, other = head_of("context"), head_of("context", statistics=False, seed=5)
    maps, boxes = random_maps(head.pooler.rules, WIDTH, HEIGHT), random_boxes(10, WIDTH, HEIGHT)
    other.load_state_dict(head.state_dict())
    found, same = (one(one.pooler.pool(one.prepare(maps), boxes)) for one in (head, other))
    assert torch.equal(found.class_logits, same.class_logits)


@pytest.mark.parametrize(
    "config",
    [
        HeadConfig(context_scales=(1.0,), train_top_stages=False),
        HeadConfig(pyramid_levels=(), train_top_stages=False),
        HeadConfig(train_top_stages=False),
    ],
)
def test_a_backbone_without_a_head_cannot_be_averaged(config: HeadConfig) -> None:
    with pytest.raises(ConfigError, match=r"zf5 has no pretrained 1x1 head.*to \[\]"):
        RegionHead(config, extractor(PLAIN), 3)


@pytest.mark.parametrize(
    "values",
    [
        {"pyramid_levels": (), "context_scales": ()},
        {"pyramid_levels": (3, 0)},
        {"pyramid_levels": (3, 3)},
        {"context_scales": (0.0,)},
        {"context_scales": (-2.0,)},
        {"pyramid_channels": -1},
        {"fc6": 0},
        {"fc7": 0},
        {"fc6_rank": -1},
        {"svm_layer": "fc8"},
        {"dropout": 1.0},
        {"dropout": -0.1},
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        HeadConfig(**values)  # type: ignore[arg-type]
