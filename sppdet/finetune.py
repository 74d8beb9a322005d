"""Fine-tuning of the fully connected layers on frozen conv maps (paper sec. 4.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sppdet.errors import SppdetError, TrainingError
from sppdet.features import FeatureMaps
from sppdet.finetune_config import AUTOMATIC, FineTuneConfig, images_of_step, learning_rate
from sppdet.head import RegionHead
from sppdet.sampling import Candidates, RegionBatch, sample_regions
from sppdet.types import FloatArray, IntArray

# Offsets are divided by these, their rough standard deviations (Fast R-CNN normalises them too).
OFFSET_SCALE = (0.1, 0.1, 0.2, 0.2)

# Share of the mean deviation that is added to every pooled value's own.
FLAT_SHARE = 0.1

# An image's maps, what is learned of it, the boxes to pool, and whether they are pooled mirrored.
_Regions = tuple[FeatureMaps, RegionBatch, FloatArray, bool]


class Seen(NamedTuple):
    """What a step sees of an image.

    Attributes:
        maps: its conv maps.
        found: its regions.
        altered: whether the image was altered before its maps were computed; mirrored too, if so.
    """

    maps: FeatureMaps
    found: Candidates
    altered: bool = False


LoadImage = Callable[[int], Seen]


class Losses(NamedTuple):
    """Losses of one step, and the share of foreground regions classified right."""

    total: float
    classification: float
    box: float
    foreground_accuracy: float


def object_scales(scales: IntArray, found: Candidates, foreground_iou: float) -> IntArray:
    """The scales at which there are objects' regions; without objects, at which there are any."""
    objects = scales[found.overlap >= foreground_iou]
    return np.unique(objects if len(objects) else scales)


class FineTuner:
    """Trains a head step by step, on the device that it is on.

    Its state after n steps is a function of data, config and seed; on a GPU up to rounding.

    While it trains, every pooled value is brought to zero mean and unit deviation: pyramid bins
    and averaged channels differ in size a hundredfold, and without this the large ones alone are
    learned from for thousands of steps. `finish` folds it into fc6, so that the head alone gives
    the same outputs.

    Attributes:
        step: steps done.
    """

    def __init__(self, head: RegionHead, config: FineTuneConfig, seed: int) -> None:
        """`config` has a settled number of steps; ValueError where it has not."""
        if config.steps == AUTOMATIC:
            raise ValueError("the number of steps is not settled; see FineTuneConfig.suited")
        self.head, self.config, self.seed, self.step = head, config, seed, 0
        self.device = head.mean.device
        self.input_mean = torch.zeros(head.dim, device=self.device)
        self.input_scale = torch.ones(head.dim, device=self.device)
        upper = [] if head.upper is None else list(head.upper.parameters())
        known = {id(parameter) for parameter in upper}
        fresh = [one for one in head.parameters() if id(one) not in known]
        self.optimizer = torch.optim.AdamW(
            [{"params": fresh, "share": 1.0}, {"params": upper, "share": config.upper_rate}],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )

    @torch.no_grad()
    def measure_inputs(self, images: Iterable[tuple[FeatureMaps, Candidates]]) -> None:
        """Sets the mean and scale of the pooled values from sampled regions of these images."""
        pooled = []
        for number, (maps, found) in enumerate(images):
            batch = self._sample(found, np.random.default_rng([self.seed, 4, number]))
            pooled.append(self.head.pool(maps, batch.boxes))
        values = torch.cat(pooled)
        deviation = values.std(dim=0, correction=0)
        # A value that hardly varies must not be blown up: a tenth of the typical size is added.
        floor = FLAT_SHARE * float(deviation.mean()) + torch.finfo(torch.float32).tiny
        self.input_mean, self.input_scale = values.mean(dim=0), 1 / (deviation + floor)

    @torch.no_grad()
    def finish(self) -> None:
        """Folds the normalisation of the inputs into fc6; no step may follow."""
        fc6 = self.head.fc6
        fc6.weight.mul_(self.input_scale)
        fc6.bias.sub_(fc6.weight @ self.input_mean)
        self.input_mean = torch.zeros_like(fc6.weight[0])
        self.input_scale = torch.ones_like(fc6.weight[0])

    def _sample(self, found: Candidates, rng: np.random.Generator) -> RegionBatch:
        config = self.config
        return sample_regions(
            found,
            config.regions,
            rng,
            foreground=config.foreground,
            foreground_iou=config.foreground_iou,
            background_iou=(config.background_low, config.background_high),
        )

    def _of_one_scale(
        self, maps: FeatureMaps, found: Candidates, rng: np.random.Generator
    ) -> Candidates:
        """The regions of one scale, drawn among those at which there are objects' regions.

        A step then goes through the map of one scale, however many there are: of all of them it
        would cost their sum, and learn from as many regions.
        """
        if len(maps.scaled) == 1:
            return found
        scales = self.head.scale_of(maps, found.boxes)
        choice = object_scales(scales, found, self.config.foreground_iou)
        return found.take(scales == rng.choice(choice))

    def run_step(self, n_images: int, load: LoadImage) -> Losses:
        """Takes one step on the images that `images_of_step` names and `load` gives.

        Raises TrainingError when the loss is not finite; the weights are then those of the step
        before.
        """
        config = self.config
        # Every random choice of a step follows from the seed and its number: nothing to save.
        rng = np.random.default_rng([self.seed, 2, self.step])
        torch.manual_seed(int(rng.integers(2**62)))
        self.head.train()
        regions = []
        for image in images_of_step(config, n_images, self.step, self.seed):
            maps, found, altered = load(image)
            batch = self._sample(self._of_one_scale(maps, found, rng), rng)
            flip = bool(rng.random() < config.flip) and not altered
            regions.append((maps, _mirrored(batch) if flip else batch, batch.boxes, flip))
        losses = self._descend(regions)
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * learning_rate(config, self.step)
        self.optimizer.step()
        self.step += 1
        return losses

    def _descend(self, regions: list[_Regions]) -> Losses:
        """Sets the gradients of all layers; raises TrainingError before if the loss is not finite.

        What is below fc6 runs image by image, each image on a thread of its own: two images on
        two cores take little longer than one, which two cores on each layer in turn do not reach.
        The gradients are added up in the images' order, so that threads never change a bit.
        """
        shared = [p for p in self.head.below_fc6() if p.requires_grad]
        with ThreadPoolExecutor(len(regions), initializer=torch.set_num_threads, initargs=(1,)) as (
            pool
        ):
            try:
                pooled = list(pool.map(self._pool, regions))
            except SppdetError as error:  # maps of upper stages that are no numbers any more
                raise self._diverged() from error
            joined = torch.cat([one.detach() for one in pooled]).requires_grad_(bool(shared))
            total, losses = self._loss(joined, [one[1] for one in regions])
            if not math.isfinite(losses.total):
                raise self._diverged()
            self.optimizer.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            if joined.grad is None:
                return losses
            parts = torch.split(joined.grad, [len(one) for one in pooled])
            found = pool.map(
                lambda one, grad: torch.autograd.grad(one, shared, grad), pooled, parts
            )
            for grads in found:
                for parameter, grad in zip(shared, grads, strict=True):
                    parameter.grad = grad if parameter.grad is None else parameter.grad + grad
        return losses

    def _pool(self, one: _Regions) -> Tensor:
        maps, _, boxes, flip = one
        return self.head.pool(maps, boxes, flip=flip)

    def _diverged(self) -> TrainingError:
        return TrainingError(
            f"the loss is not finite at step {self.step}", mend="lower finetune.learning_rate"
        )

    def _loss(self, pooled: Tensor, batches: list[RegionBatch]) -> tuple[Tensor, Losses]:
        labels, targets = (
            torch.from_numpy(np.concatenate(parts)).to(self.device)
            for parts in ([one.labels for one in batches], [one.targets for one in batches])
        )
        output = self.head((pooled - self.input_mean) * self.input_scale)
        classification = F.cross_entropy(output.logits, labels)
        objects = torch.nonzero(labels > 0)[:, 0]
        box, accuracy = torch.zeros((), device=self.device), 1.0
        if len(objects):
            mine = labels[objects]
            goal = targets[objects] / torch.tensor(OFFSET_SCALE, device=self.device)
            offsets = output.offsets[objects, mine - 1]
            # Divided by all regions, as Fast R-CNN does, so that both losses keep their balance.
            box = F.smooth_l1_loss(offsets, goal, reduction="sum") / len(labels)
            right = output.logits[objects].argmax(dim=1) == mine
            accuracy = float(right.float().mean())
        total = classification + self.config.box_loss * box
        losses = torch.stack([total, classification, box]).tolist()
        return total, Losses(losses[0], losses[1], losses[2], accuracy)

    def state(self) -> dict[str, Tensor]:
        """All that a later `load_state` needs to go on bit for bit: weights, moments, step."""
        tensors = {f"head.{key}": value for key, value in self.head.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            for key, value in moments.items():
                tensors[f"optimizer.{index}.{key}"] = value
        tensors["input_mean"], tensors["input_scale"] = self.input_mean, self.input_scale
        tensors["step"] = torch.tensor(self.step)
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Takes up where the `state` of a tuner of the same config, seed and data was taken."""
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
        self.step = int(tensors["step"])


def _mirrored(batch: RegionBatch) -> RegionBatch:
    """The batch of the mirrored image, seen from its pooled vectors: dx changes sign."""
    return RegionBatch(
        batch.boxes, batch.labels, batch.targets * np.array([-1, 1, 1, 1], np.float32)
    )
