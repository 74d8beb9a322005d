"""Fine-tuning: what is seen when, the same bits after a resume, and that it learns."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sppdet.backbones.feature_maps import FeatureMap, FeatureMaps
from sppdet.core.errors import ConfigError, SppdetError, TrainingError
from sppdet.core.types import Sample
from sppdet.heads.config import HeadConfig
from sppdet.heads.head import RegionHead
from sppdet.training.config import FROM_MODEL, FROM_RANDOM, FineTuneConfig, Schedule
from sppdet.training.finetune import FineTuner, Losses, TrainingImage, learning_rate
from sppdet.training.finetune_stage import batch_slots
from sppdet.training.region_sampling import RegionTargets, match_regions
from tests.helpers.region_cases import CUT, PLAIN, extractor, random_boxes, random_maps

SIZE = 192
N_IMAGES = 4
N_CLASSES = 3
SMALL = HeadConfig(
    pyramid_levels=(2, 1),
    pyramid_channels=8,
    context_scales=(),
    fc6=24,
    fc7=16,
    dropout=0.2,
    train_top_stages=False,
)
CONFIG = FineTuneConfig(steps=12, regions_per_image=16, learning_rate=0.01)


def image_of(index: int) -> tuple[FeatureMaps, RegionTargets]:
    """Noise in which an object of class k raises the channels 4 k to 4 k + 3."""
    rng = np.random.default_rng(index)
    maps = random_maps(PLAIN, SIZE, SIZE, seed=index, spread=0.3)
    label = index % N_CLASSES
    x, y = rng.integers(0, SIZE // 2, 2)
    box = np.array([[x, y, x + 90, y + 90]], np.float32)
    (scaled,) = maps.maps
    first, last = (round(v * scaled.scale_x / 16) for v in (x, x + 90))
    top, bottom = (round(v * scaled.scale_y / 16) for v in (y, y + 90))
    scaled.values[top:bottom, first:last, 4 * label : 4 * label + 4] += 3.0
    sample = Sample(
        f"{index:06}",
        Path(f"{index:06}.jpg"),
        SIZE,
        SIZE,
        box,
        np.array([label]),
        np.array([False]),
    )
    near = (box + rng.uniform(-12, 12, (30, 4))).clip(0, SIZE).astype(np.float32)
    return maps, match_regions(sample, np.concatenate([near, random_boxes(100, SIZE, SIZE, index)]))


IMAGES: list[tuple[FeatureMaps, RegionTargets]] = []


def load(index: int) -> tuple[FeatureMaps, RegionTargets]:
    if not IMAGES:
        IMAGES.extend(image_of(i) for i in range(N_IMAGES))
    return IMAGES[index]


def new_head(seed: int = 0, config: HeadConfig = SMALL) -> RegionHead:
    return RegionHead(config, extractor(PLAIN), N_CLASSES, seed=seed)


def tuner_of(config: FineTuneConfig = CONFIG, *, seed: int = 0, head_seed: int = 0) -> FineTuner:
    return FineTuner(new_head(head_seed), config, seed)


Source = Callable[[int], tuple[FeatureMaps, RegionTargets]]


def next_batch(tuner: FineTuner, source: Source = load) -> list[TrainingImage]:
    slots = batch_slots(tuner.config, N_IMAGES, tuner.seed, tuner.steps_done)
    return [
        TrainingImage(*source(slot.image)) for slot in islice(slots, tuner.config.images_per_step)
    ]


def take_step(tuner: FineTuner, source: Source = load) -> Losses:
    return tuner.step(next_batch(tuner, source))


def run(tuner: FineTuner, steps: int, source: Source = load) -> list[float]:
    return [take_step(tuner, source).total for _ in range(steps)]


def kept(tuner: FineTuner) -> dict[str, Tensor]:
    """The state as a file would hold it: later steps cannot reach it."""
    return copy.deepcopy(tuner.state())


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_no_steps_leave_the_layers_as_they_were() -> None:
    tuner = tuner_of()
    before = {key: value.clone() for key, value in tuner.head.state_dict().items()}
    tuner.fold_normalization()
    assert equal(before, dict(tuner.head.state_dict()))


@pytest.mark.parametrize("steps", [1, 2, 10, 1000])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
def test_the_rate_rises_in_a_line_and_falls_along_a_cosine(steps: int, warmup: float) -> None:
    config = FineTuneConfig(steps=steps, warmup_fraction=warmup, learning_rate=0.5)
    rates = [learning_rate(config, step) for step in range(steps)]
    warm = max(1, round(warmup * steps))
    assert rates[:warm] == pytest.approx([0.5 * (step + 1) / warm for step in range(warm)])
    for step in range(warm, steps):
        share = (step - warm) / (steps - warm)
        assert rates[step] == pytest.approx(0.5 * (0.5 + 0.5 * math.cos(math.pi * share)))
    assert max(rates) == pytest.approx(0.5)
    assert min(rates) > 0
    assert all(a >= b for a, b in pairwise(rates[warm:]))
    if warm < steps:
        assert learning_rate(config, steps) == pytest.approx(0.0, abs=1e-9)


def test_a_tiny_run_learns_its_images_by_heart() -> None:
    steps = 120
    config = FineTuneConfig(
        steps=steps, regions_per_image=32, learning_rate=0.01, warmup_fraction=0.05
    )
    tuner = FineTuner(new_head(config=SMALL.replace(dropout=0.0)), config, 0)
    tuner.measure_inputs(load(index) for index in range(N_IMAGES))
    losses = [take_step(tuner) for _ in range(steps)]
    first, last = losses[:8], losses[-8:]
    assert np.mean([one.total for one in last]) < 0.3 * np.mean([one.total for one in first])
    assert np.mean([one.box for one in last]) < np.mean([one.box for one in first])
    assert np.mean([one.foreground_accuracy for one in last]) > 0.9
    for one in losses:
        assert one.total == pytest.approx(one.classification + one.box, rel=1e-5)
    assert tuner.steps_done == steps


def test_without_box_loss_only_classification_counts() -> None:
    tuner = tuner_of(CONFIG.replace(steps=4, box_loss_weight=0.0))
    before = tuner.head.bbox_pred.bias.clone()
    losses = take_step(tuner)
    assert losses.total == pytest.approx(losses.classification)
    assert torch.equal(tuner.head.bbox_pred.bias, before)


@pytest.mark.parametrize("stop", [1, 5])
@pytest.mark.parametrize("measured", [False, True])
def test_a_resumed_run_ends_in_the_same_bits(stop: int, measured: bool) -> None:
    whole, begun = tuner_of(), tuner_of()
    for tuner in (whole, begun):
        pooler = tuner.head.pooler
        pooler.set_statistics(torch.full_like(pooler.mean, 0.1), pooler.std * 2)
        if measured:
            tuner.measure_inputs(load(index) for index in range(N_IMAGES))
    losses = run(whole, 8)
    run(begun, stop)
    state = kept(begun)
    run(begun, 2)
    # Another process: other first weights, another state of the global generator.
    torch.manual_seed(99)
    resumed = tuner_of(head_seed=5)
    resumed.load_state(copy.deepcopy(state))
    assert resumed.steps_done == stop
    assert equal(resumed.state(), state)
    assert run(resumed, 8 - stop) == losses[stop:]
    assert equal(resumed.state(), whole.state())


def staged_tuner(*, device: str = "cpu", **changes: float) -> FineTuner:
    """One whose head trains the backbone's top stages too."""
    config = SMALL.replace(context_scales=(1.0,), train_top_stages=True, dropout=0.0)
    head = RegionHead(config, extractor(CUT), N_CLASSES).to(device)
    return FineTuner(head, CONFIG.replace(**changes), 0)


def load_cut(index: int) -> tuple[FeatureMaps, RegionTargets]:
    return random_maps(CUT, SIZE, SIZE, seed=index), load(index)[1]


def test_the_top_stages_resume_in_the_same_bits_too() -> None:
    whole, begun = staged_tuner(), staged_tuner()
    losses = run(whole, 4, load_cut)
    run(begun, 2, load_cut)
    resumed = staged_tuner()
    resumed.load_state(kept(begun))
    assert run(resumed, 2, load_cut) == losses[2:]
    assert equal(resumed.state(), whole.state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_learns_what_a_cpu_learns() -> None:
    there, here = staged_tuner(device="cuda"), staged_tuner()
    assert run(there, 3, load_cut) == pytest.approx(run(here, 3, load_cut), rel=0.01)
    there.fold_normalization()
    assert there.head.fc6.weight.device.type == "cuda"


def test_images_on_threads_give_the_gradients_of_one_backward_pass() -> None:
    tuner = staged_tuner()
    before = copy.deepcopy(tuner.head)
    batch = next_batch(tuner, load_cut)
    tuner.step(batch)
    found = {name: p.grad for name, p in tuner.head.named_parameters()}
    # The same step, its loss taken through one graph.
    rng = np.random.default_rng([0, 2, 0])
    torch.manual_seed(int(rng.integers(2**62)))
    samples = [tuner._sample(image.targets, rng) for image in batch]
    pooled = [
        before.pooler.pool(before.pooler.prepare(image.maps), sample.boxes)
        for image, sample in zip(batch, samples, strict=True)
    ]
    tuner.head = before
    tuner._loss(torch.cat(pooled), samples)[0].backward()  # type: ignore[no-untyped-call]
    names = {name.removeprefix("pooler.").split(".")[0] for name in found}
    assert names >= {"top_stages", "reduce", "fc6"}
    for name, parameter in before.named_parameters():
        expected, grad = parameter.grad, found[name]
        assert expected is not None
        assert grad is not None
        torch.testing.assert_close(
            grad, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max())
        )


def test_the_top_stages_have_a_rate_of_their_own() -> None:
    frozen, moved = staged_tuner(backbone_lr_factor=0.0), staged_tuner()
    for tuner, moves in ((frozen, False), (moved, True)):
        before = copy.deepcopy(tuner.head.state_dict())
        run(tuner, 2, load_cut)
        for name, value in tuner.head.state_dict().items():
            if name.startswith("pooler.top_stages.") and name.endswith("weight"):
                assert torch.equal(value, before[name]) is not moves
        assert not torch.equal(tuner.head.fc6.weight, before["fc6.weight"])


def test_the_state_before_the_first_step_can_be_taken_up() -> None:
    fresh, other = tuner_of(), tuner_of(head_seed=5)
    other.load_state(kept(fresh))
    assert run(fresh, 2) == run(other, 2)


def test_the_run_follows_its_seed() -> None:
    assert run(tuner_of(), 3) == run(tuner_of(), 3)
    assert run(tuner_of(), 3) != run(tuner_of(seed=1), 3)


def test_a_diverging_run_stops_with_the_last_good_weights() -> None:
    tuner = tuner_of(FineTuneConfig(steps=20, regions_per_image=16, learning_rate=1e30))
    before: dict[str, Tensor] = {}

    def run_until_it_diverges() -> None:
        nonlocal before
        for _ in range(20):
            before = kept(tuner)
            take_step(tuner)

    with pytest.raises(TrainingError, match=r"not finite at step \d+.*learning_rate"):
        run_until_it_diverges()
    assert equal(tuner.state(), before)
    assert tuner.steps_done < 20


def test_maps_beyond_float_range_stop_the_run() -> None:
    def huge(index: int) -> tuple[FeatureMaps, RegionTargets]:
        maps, found = load(index)
        (scaled,) = maps.maps
        scaled = FeatureMap(scaled.values * 1e38, scaled.scale_x, scaled.scale_y, scaled.short_side)
        return FeatureMaps((scaled,), SIZE, SIZE), found

    tuner = tuner_of()
    before = kept(tuner)
    with pytest.raises(SppdetError, match="learning"):
        take_step(tuner, huge)
    assert equal(tuner.state(), before)


def test_images_without_objects_are_learned_from() -> None:
    def empty(index: int) -> tuple[FeatureMaps, RegionTargets]:
        maps, _ = load(index)
        nothing = Sample("", Path(), SIZE, SIZE, *(np.zeros(0),) * 3)  # type: ignore[arg-type]
        return maps, match_regions(nothing, random_boxes(50, SIZE, SIZE, index))

    losses = take_step(tuner_of(), empty)
    assert losses.box == 0
    assert losses.classification > 0


def test_unfolding_the_normalization_keeps_the_outputs_and_folding_takes_it_back() -> None:
    tuner, head = tuner_of(), new_head().eval()
    tuner.measure_inputs(load(index) for index in range(N_IMAGES))
    tuner.unfold_normalization()
    maps, targets = load(0)
    with torch.no_grad():
        pooled = head.pooler.pool(head.pooler.prepare(maps), targets.boxes)
        normalized = (pooled - tuner.input_mean) * tuner.input_scale
        expected, found = head(pooled), tuner.head.eval()(normalized)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        tuner.fold_normalization()
        torch.testing.assert_close(tuner.head(pooled), expected, rtol=1e-4, atol=1e-5)


def test_folding_the_normalization_keeps_the_outputs() -> None:
    tuner = tuner_of()
    tuner.measure_inputs(load(index) for index in range(N_IMAGES))
    run(tuner, 3)
    head = tuner.head.eval()
    pooled = head.pooler.pool(head.pooler.prepare(load(0)[0]), random_boxes(20, SIZE, SIZE))
    with torch.no_grad():
        trained = head((pooled - tuner.input_mean) * tuner.input_scale)
        tuner.fold_normalization()
        folded = head(pooled)
    torch.testing.assert_close(folded.class_logits, trained.class_logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(folded.box_deltas, trained.box_deltas, rtol=1e-3, atol=1e-4)


def test_measured_inputs_have_mean_zero_and_deviation_near_one() -> None:
    # More regions than there are: the sample is then all that an image can give.
    tuner = tuner_of(CONFIG.replace(regions_per_image=10_000))
    tuner.measure_inputs(load(index) for index in range(N_IMAGES))
    pooled = []
    for index in range(N_IMAGES):
        maps, found = load(index)
        rows = found.max_iou >= 0.1
        pooler = tuner.head.pooler
        pooled.append(pooler.pool(pooler.prepare(maps), found.boxes[rows]).detach())
    normal = (torch.cat(pooled) - tuner.input_mean) * tuner.input_scale
    torch.testing.assert_close(normal.mean(dim=0), torch.zeros(normal.shape[1]), atol=1e-3, rtol=0)
    deviation = normal.std(dim=0, correction=0)
    assert (deviation < 1).all()
    assert (deviation > 0.5).all()


def test_flat_inputs_are_not_blown_up() -> None:
    tuner = tuner_of()
    maps, found = load(0)
    (scaled,) = maps.maps
    ones = torch.ones_like(scaled.values)
    flat = FeatureMaps((FeatureMap(ones, 0.5, 0.5, scaled.short_side),), SIZE, SIZE)
    tuner.measure_inputs([(flat, found)])
    assert torch.isfinite(tuner.input_scale).all()
    losses = take_step(tuner, lambda _: (flat, found))
    assert math.isfinite(losses.total)


@given(
    n_images=st.integers(1, 200_000),
    images=st.integers(1, 32),
    schedule=st.sampled_from([FROM_RANDOM, FROM_MODEL]),
)
def test_steps_that_nobody_gave_suit_the_number_of_images(
    n_images: int, images: int, schedule: Schedule
) -> None:
    config = FineTuneConfig(images_per_step=images)
    settled = config.suited(n_images, schedule)
    # Nearest to so many passes in whole fifties, unless the images are few.
    beyond = settled.steps - schedule.passes * n_images / images
    assert -25.001 <= beyond <= 25.001 or (beyond > 0 and settled.steps == schedule.fewest)
    assert settled.steps >= schedule.fewest
    rate = schedule.learning_rate
    assert settled == config.replace(steps=settled.steps, learning_rate=rate)
    assert settled.suited(3 * n_images, FROM_RANDOM) == settled
    given = FineTuneConfig(steps=3, learning_rate=0.5)
    assert given.suited(n_images, schedule) == given


@pytest.mark.parametrize(
    "values",
    [
        {"images_per_step": 0},
        {"regions_per_image": 0},
        {"checkpoint_every": 0},
        {"steps": -2},
        {"background_iou": (0.5, 0.5)},
        {"background_iou": (-0.1, 0.5)},
        {"background_iou": (0.1, 1.1)},
        {"foreground_iou": 0.0},
        {"foreground_fraction": 1.5},
        {"flip_prob": -0.1},
        {"flip_prob": 1.1},
        {"augment_prob": -0.1},
        {"augment_prob": 1.1},
        {"scale_jitter": 0.9},
        {"scale_jitter": math.inf},
        {"color_jitter": -0.1},
        {"color_jitter": 1.0},
        {"warmup_fraction": -0.1},
        {"warmup_fraction": 1.1},
        {"learning_rate": 0.0},
        {"learning_rate": -0.5},
        {"learning_rate": math.inf},
        {"learning_rate": math.nan},
        {"weight_decay": -0.1},
        {"weight_decay": math.nan},
        {"box_loss_weight": -1.0},
    ],
)
def test_impossible_settings_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        FineTuneConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [{"steps": 1}, {"learning_rate": 0.1}])
def test_a_schedule_that_is_not_settled_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="not settled"):
        tuner_of(FineTuneConfig(**values))  # type: ignore[arg-type]
