"""Fine-tuning of the fully connected layers (paper sec. 4.1): one step on a batch of images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sppdet.backbones.feature_maps import FeatureMaps
from sppdet.core.boxes import DELTA_STDS
from sppdet.core.errors import SppdetError, TrainingError
from sppdet.core.types import FloatArray
from sppdet.heads.head import HeadOutput, RegionHead
from sppdet.training.config import AUTOMATIC, FineTuneConfig
from sppdet.training.region_sampling import RegionSample, RegionTargets, sample_regions

# Share of the mean deviation that is added to every pooled value's own.
FLAT_SHARE = 0.1


class TrainingImage(NamedTuple):
    """An image of a batch.

    Attributes:
        maps: its feature maps.
        targets: its regions.
    """

    maps: FeatureMaps
    targets: RegionTargets


class Losses(NamedTuple):
    """Losses of one step, and the share of foreground regions classified right."""

    total: float
    classification: float
    box: float
    foreground_accuracy: float


def learning_rate(config: FineTuneConfig, step: int) -> float:
    """The learning rate of a step: linear warm-up, then a cosine down to 0."""
    warm = max(1, round(config.warmup_fraction * config.steps))
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    progress = (step - warm) / max(1, config.steps - warm)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


class FineTuner:
    """Trains a head step by step, on the device that it is on.

    Its state after n steps is a function of batches, config and seed; on a GPU up to rounding.

    While it trains, every pooled value is brought to zero mean and unit deviation: pyramid bins
    and averaged channels differ in size a hundredfold, and without this the large ones alone are
    learned from for thousands of steps. `fold_normalization` moves it into fc6, so that the head
    alone gives the same outputs.

    Attributes:
        steps_done: how many steps were taken.
    """

    def __init__(self, head: RegionHead, config: FineTuneConfig, seed: int) -> None:
        """`config` has settled steps and learning rate; ValueError where it has not."""
        if AUTOMATIC in (config.steps, config.learning_rate):
            raise ValueError("the steps or their rate are not settled; see FineTuneConfig.suited")
        self.head, self.config, self.seed, self.steps_done = head, config, seed, 0
        self.device = head.pooler.mean.device
        self.input_mean = torch.zeros(head.pooler.dim, device=self.device)
        self.input_scale = torch.ones(head.pooler.dim, device=self.device)
        stages = head.pooler.top_stages
        slow = [] if stages is None else list(stages.parameters())
        known = {id(parameter) for parameter in slow}
        fresh = [one for one in head.parameters() if id(one) not in known]
        factor = config.backbone_lr_factor
        self.optimizer = torch.optim.AdamW(
            [{"params": fresh, "lr_factor": 1.0}, {"params": slow, "lr_factor": factor}],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )

    @torch.no_grad()
    def measure_inputs(self, images: Iterable[tuple[FeatureMaps, RegionTargets]]) -> None:
        """Set the mean and scale of the pooled values from sampled regions of these images."""
        pooled, pooler = [], self.head.pooler
        for number, (maps, targets) in enumerate(images):
            sample = self._sample(targets, np.random.default_rng([self.seed, 4, number]))
            pooled.append(pooler.pool(pooler.prepare(maps), sample.boxes))
        values = torch.cat(pooled)
        deviation = values.std(dim=0, correction=0)
        # A value that hardly varies must not be blown up: a tenth of the typical size is added.
        floor = FLAT_SHARE * float(deviation.mean()) + torch.finfo(torch.float32).tiny
        self.input_mean, self.input_scale = values.mean(dim=0), 1 / (deviation + floor)

    @torch.no_grad()
    def unfold_normalization(self) -> None:
        """Let fc6, which reads pooled values as they are, read normalized ones; before any step.

        Invariant: `fold_normalization` takes it back, up to rounding.
        """
        fc6 = self.head.fc6
        fc6.bias.add_(fc6.weight @ self.input_mean)
        fc6.weight.div_(self.input_scale)

    @torch.no_grad()
    def fold_normalization(self) -> None:
        """Fold the normalization of the inputs into fc6; no step may follow."""
        fc6 = self.head.fc6
        fc6.weight.mul_(self.input_scale)
        fc6.bias.sub_(fc6.weight @ self.input_mean)
        self.input_mean = torch.zeros_like(fc6.weight[0])
        self.input_scale = torch.ones_like(fc6.weight[0])

    def _sample(self, targets: RegionTargets, rng: np.random.Generator) -> RegionSample:
        config = self.config
        return sample_regions(
            targets,
            config.regions_per_image,
            rng,
            foreground_fraction=config.foreground_fraction,
            foreground_iou=config.foreground_iou,
            background_iou=config.background_iou,
        )

    def step(self, batch: Sequence[TrainingImage]) -> Losses:
        """Take one step on a batch of images.

        Raises TrainingError when the loss is not finite; the weights are then those of the step
        before.
        """
        # Every random choice of a step follows from the seed and its number: nothing to save.
        rng = np.random.default_rng([self.seed, 2, self.steps_done])
        torch.manual_seed(int(rng.integers(2**62)))
        self.head.train()
        samples = [self._sample(image.targets, rng) for image in batch]
        losses = self._descend([image.maps for image in batch], samples)
        rate = learning_rate(self.config, self.steps_done)
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr_factor"] * rate
        self.optimizer.step()
        self.steps_done += 1
        return losses

    @torch.no_grad()
    def outputs(self, maps: FeatureMaps, boxes: FloatArray) -> HeadOutput:
        """The head's outputs for regions `(N, 4)` of an image, as it stands, none dropped."""
        self.head.eval()
        pooled = self.head.pooler.pool(self.head.pooler.prepare(maps), boxes)
        output: HeadOutput = self.head((pooled - self.input_mean) * self.input_scale)
        return output

    def _descend(self, maps: list[FeatureMaps], samples: list[RegionSample]) -> Losses:
        """Set the gradients of all layers; raises TrainingError before if the loss is not finite.

        What is below fc6 runs image by image, each image on a thread of its own: two images on
        two cores take little longer than one, which two cores on each layer in turn do not reach.
        The gradients are added up in the images' order, so that threads never change a bit.
        """
        shared = [p for p in self.head.pooler.pooling_parameters() if p.requires_grad]
        with ThreadPoolExecutor(len(maps), initializer=torch.set_num_threads, initargs=(1,)) as (
            threads
        ):
            try:
                pooled = list(threads.map(self._pool, maps, samples))
            except SppdetError as error:  # maps of the top stages that are no numbers any more
                raise self._diverged() from error
            joined = torch.cat([one.detach() for one in pooled]).requires_grad_(bool(shared))
            total, losses = self._loss(joined, samples)
            if not math.isfinite(losses.total):
                raise self._diverged()
            self.optimizer.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            if joined.grad is None:
                return losses
            parts = torch.split(joined.grad, [len(one) for one in pooled])
            found = threads.map(
                lambda one, grad: torch.autograd.grad(one, shared, grad), pooled, parts
            )
            for grads in found:
                for parameter, grad in zip(shared, grads, strict=True):
                    parameter.grad = grad if parameter.grad is None else parameter.grad + grad
        return losses

    def _pool(self, maps: FeatureMaps, sample: RegionSample) -> Tensor:
        pooler = self.head.pooler
        return pooler.pool(pooler.prepare(maps), sample.boxes)

    def _diverged(self) -> TrainingError:
        return TrainingError(
            f"the loss is not finite at step {self.steps_done}",
            hint="lower finetune.learning_rate",
        )

    def _loss(self, pooled: Tensor, samples: list[RegionSample]) -> tuple[Tensor, Losses]:
        labels, targets = (
            torch.from_numpy(np.concatenate(parts)).to(self.device)
            for parts in ([one.labels for one in samples], [one.targets for one in samples])
        )
        output = self.head((pooled - self.input_mean) * self.input_scale)
        classification = F.cross_entropy(output.class_logits, labels)
        objects = torch.nonzero(labels > 0)[:, 0]
        box, accuracy = torch.zeros((), device=self.device), 1.0
        if len(objects):
            mine = labels[objects]
            goal = targets[objects] / torch.tensor(DELTA_STDS, device=self.device)
            deltas = output.box_deltas[objects, mine - 1]
            # Divided by all regions, as Fast R-CNN does, so that both losses keep their balance.
            box = F.smooth_l1_loss(deltas, goal, reduction="sum") / len(labels)
            right = output.class_logits[objects].argmax(dim=1) == mine
            accuracy = float(right.float().mean())
        total = classification + self.config.box_loss_weight * box
        losses = torch.stack([total, classification, box]).tolist()
        return total, Losses(losses[0], losses[1], losses[2], accuracy)

    def state(self) -> dict[str, Tensor]:
        """Everything that a later `load_state` needs to go on bit for bit."""
        tensors = {f"head.{key}": value for key, value in self.head.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            for key, value in moments.items():
                tensors[f"optimizer.{index}.{key}"] = value
        tensors["input_mean"], tensors["input_scale"] = self.input_mean, self.input_scale
        tensors["step"] = torch.tensor(self.steps_done)
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take up where the `state` of a tuner of the same config, seed and data was taken."""
        prefix = "head."
        head = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        self.head.load_state_dict(head)
        whole = self.optimizer.state_dict()
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                moments.setdefault(int(index), {})[name] = value
        whole["state"] = moments
        self.optimizer.load_state_dict(whole)
        self.input_mean = tensors["input_mean"].to(self.device)
        self.input_scale = tensors["input_scale"].to(self.device)
        self.steps_done = int(tensors["step"])
