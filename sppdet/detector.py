"""The detector: image in, detections out, one call a stage (figure 1 of the paper)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sppdet.boxes import decode
from sppdet.config import Config, differences, from_dict, load_config, to_dict
from sppdet.detection import DetectionConfig, Found, Refine, candidates, select
from sppdet.errors import ConfigError, ModelFormatError, SppdetError
from sppdet.features import FeatureExtractor, FeatureMaps
from sppdet.finetune import OFFSET_SCALE
from sppdet.head import RegionHead
from sppdet.images import as_image
from sppdet.modelfile import ModelHeader, load_model, save_model
from sppdet.modelnames import find_preset, members, resolve_model
from sppdet.proposals import Proposer, make_proposer
from sppdet.region_pool import JoinedMaps
from sppdet.regression import BoxRegressors
from sppdet.svm import LinearSvms
from sppdet.types import Detections, FloatArray, ImageArray, IntArray

DEFAULT_MODEL = "default"
# Settings that a trained model can be used with in any value; the others are part of it.
FREE_SETTINGS = ("proposals.", "detection.", "features.scales")


class RegionFeatures:
    """The features of an image's regions, each layer computed when it is first asked for.

    One row a box, independent of the other boxes; raw, not scaled to the SVMs' norm.
    """

    def __init__(self, head: RegionHead, maps: FeatureMaps | JoinedMaps, boxes: FloatArray) -> None:
        self.boxes = boxes
        self._head, self._maps = head.eval(), head.join(maps)
        self.size = (self._maps.maps.width, self._maps.maps.height)

    @cached_property
    def pool(self) -> FloatArray:
        """`float32 (N, dim)`: the spatial pyramid's bins."""
        with torch.inference_mode():
            return np.asarray(self._head.pool(self._maps, self.boxes).numpy())

    def _fc6(self) -> Tensor:
        if "pool" in self.__dict__:
            return self._head.run_fc6(torch.from_numpy(self.pool))
        return self._head.pool_fc6(self._maps, self.boxes)

    def rows(self, name: str, regions: IntArray) -> FloatArray:
        """Some regions' features of a layer; `pool` is computed for those alone."""
        if name != "pool" or "pool" in self.__dict__:
            return self.layer(name)[regions]
        chosen, back = np.unique(regions, return_inverse=True)
        with torch.inference_mode():
            return np.asarray(self._head.pool(self._maps, self.boxes[chosen]).numpy()[back])

    @cached_property
    def fc6(self) -> FloatArray:
        """`float32 (N, fc6)`, after ReLU."""
        with torch.inference_mode():
            return np.asarray(self._fc6().numpy())

    @cached_property
    def fc7(self) -> FloatArray:
        """`float32 (N, fc7)`, after ReLU."""
        with torch.inference_mode():
            return np.asarray(self._head.run_fc7(torch.from_numpy(self.fc6)).numpy())

    @cached_property
    def log_probabilities(self) -> FloatArray:
        """`float32 (N, K)`: logarithms of the fine-tuned softmax's probabilities of the classes."""
        with torch.inference_mode():
            logits = self._head.classify(torch.from_numpy(self.fc7))
            return np.asarray(torch.log_softmax(logits, dim=1)[:, 1:].numpy())

    def learned_boxes(self, regions: IntArray, labels: IntArray) -> FloatArray:
        """`float32 (M, 4)`: some of the boxes, moved as fine-tuning learned for their classes."""
        # A region is asked for once for each class that it may be of.
        chosen, back = np.unique(regions, return_inverse=True)
        with torch.inference_mode():
            offsets = self._head.offset(torch.from_numpy(self.fc7[chosen])).numpy()
        own = offsets.reshape(len(chosen), -1, 4)[back, labels]
        return decode(own * np.array(OFFSET_SCALE, np.float32), self.boxes[regions])

    def layer(self, name: str) -> FloatArray:
        """The features of the layer `pool`, `fc6` or `fc7`."""
        if name == "pool":
            return self.pool
        return self.fc6 if name == "fc6" else self.fc7


class Detector:
    """A trained SPP-net detector.

    Attributes:
        classes: the names of what it detects.
        config: everything it was trained with and detects by.
        partners: other models that look at the same maps and regions; see `combined`.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        config: Config,
        extractor: FeatureExtractor,
        head: RegionHead,
        svms: LinearSvms,
        regressors: BoxRegressors | None,
        partners: tuple[Detector, ...] = (),
    ) -> None:
        self.classes, self.config, self.partners = classes, config, partners
        self.extractor, self.head = extractor, head
        self.svms, self.regressors = svms, regressors
        self.propose: Proposer = make_proposer(config.proposals)

    @classmethod
    def load(cls, source: str | Path = DEFAULT_MODEL, *, device: str = "cpu") -> Detector:
        """The detector in a model file, given by a path or by the name of a shipped model.

        A name may also be a preset's: a shipped model under other settings. Several, with `+`
        between, are `combined`.

        Raises ModelFormatError when the file is missing, damaged, or of another version, or was
        trained on a backbone whose installed weights differ.
        """
        names = members(source)
        if len(names) > 1:
            first, *others = (cls.load(name, device=device) for name in names)
            return first.combined(*others)
        preset = find_preset(source)
        if preset is not None:
            base = cls.load(preset.base, device=device)
            return base.with_settings(load_config(preset.path, base=base.config))
        path = resolve_model(source)
        header, tensors = load_model(path)
        config = from_dict(Config, header.config, where=path)
        extractor = FeatureExtractor(config.features, seed=config.seed, device=device)
        if extractor.backbone.weights_digest() != header.backbone_digest:
            raise ModelFormatError(
                f"was trained on other weights of {header.backbone} than those installed",
                where=path,
                mend="install the package versions named in its header, or train again",
            )
        head = RegionHead(config.head, extractor, len(header.classes), seed=config.seed)
        stored = _part(tensors, "head.")
        weights = {name: torch.from_numpy(value).float() for name, value in stored.items()}
        try:
            if "squeeze.weight" in weights:
                head.squeeze_fc6(len(weights["squeeze.weight"]))
            head.load_state_dict(weights)
            svms = LinearSvms(**_part(tensors, "svm."))
            found = _part(tensors, "box.")
            regressors = BoxRegressors(**found) if found else None
            _check_fit(head, config, len(header.classes), svms, regressors)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ModelFormatError(
                f"its arrays do not fit its config: {error}", where=path, mend="train again"
            ) from error
        head.eval().requires_grad_(False)
        return cls(header.classes, config, extractor, head, svms, regressors)

    def save(self, path: Path, *, description: str, provenance: dict[str, object]) -> None:
        """Writes one model file; head weights are stored as float16, which halves it.

        Raises ConfigError for models that are combined.
        """
        if self.partners:
            raise ConfigError("combined models have no file", mend="save each by itself")
        tensors: dict[str, np.ndarray] = {}
        for key, value in self.head.state_dict().items():
            tensors[f"head.{key}"] = value.half().numpy()
        for name in ("weights", "bias", "trained", "converged"):
            tensors[f"svm.{name}"] = getattr(self.svms, name)
        if self.regressors is not None:
            for name in ("weights", "bias", "trained"):
                tensors[f"box.{name}"] = getattr(self.regressors, name)
        backbone = self.extractor.backbone
        header = ModelHeader(
            classes=self.classes,
            config=to_dict(self.config),
            backbone=backbone.name,
            backbone_digest=backbone.weights_digest(),
            description=description,
            provenance=provenance,
        )
        save_model(path, header, tensors)

    def with_settings(self, config: Config) -> Detector:
        """This detector under settings that differ in those of `FREE_SETTINGS` at most.

        Raises ConfigError for a change to a setting that the model was trained with.
        """
        for name in differences(config, self.config):
            if not name.startswith(FREE_SETTINGS):
                free = ", ".join(f"{one}*" if one.endswith(".") else one for one in FREE_SETTINGS)
                raise ConfigError(
                    f"{name} was fixed when the model was trained",
                    mend=f"change {free} only, or train a model with it",
                )
        head, extractor = self.head, self.extractor
        if config.features != self.config.features:
            extractor = FeatureExtractor(
                config.features, seed=config.seed, device=str(extractor.device)
            )
            head = copy.copy(head)
            head.features = config.features
        alone = Detector(self.classes, config, extractor, head, self.svms, self.regressors)
        return alone.combined(*self.partners)

    def combined(self, *others: Detector) -> Detector:
        """This model and others as one, which finds what any of them finds (paper sec. 4.4).

        All look at the same regions of the same maps, by the settings of this one: an image costs
        one forward pass, and each model's own layers above it.

        Raises ConfigError where another detects other classes, or reads other maps.
        """
        partners = list(self.partners)
        for other in others:
            if other.classes != self.classes:
                raise ConfigError(
                    "models of different classes cannot be combined",
                    mend="combine models that were trained on the same classes",
                )
            shared = replace(
                other.config,
                proposals=self.config.proposals,
                detection=self.config.detection,
                features=replace(other.config.features, scales=self.config.features.scales),
            )
            partner = other.with_settings(shared)
            if partner.extractor.digest() != self.extractor.digest():
                raise ConfigError(
                    "models that read different maps cannot be combined",
                    mend="combine models of one backbone and the same [features]",
                )
            partners += [partner, *partner.partners]
        parts = (self.extractor, self.head, self.svms, self.regressors)
        return Detector(self.classes, self.config, *parts, tuple(partners))

    def detect(self, image: str | Path | ImageArray) -> Detections:
        """The objects of one image, best first, boxes in image pixels.

        Scores are SVM margins plus `detection.softmax_weight` times log probabilities, less what
        soft-NMS takes.

        `image` is a file or an RGB array `uint8 (H, W, 3)`. Raises ImageError when a file cannot
        be read or an array is of another type or shape.
        """
        pixels = as_image(image)
        maps = self.extractor(pixels)
        return self.detect_regions(maps, self.propose(pixels))

    def detect_regions(self, maps: FeatureMaps, boxes: FloatArray) -> Detections:
        """The objects among given regions `(N, 4)` of an image whose maps are known."""
        found = [
            one.found(RegionFeatures(one.head, maps, boxes), self.config.detection)
            for one in (self, *self.partners)
        ]
        return select(found, self.classes, self.config.detection)

    def detect_features(
        self, features: RegionFeatures, *, rules: DetectionConfig | None = None
    ) -> Detections:
        """What this model finds, without its partners, among regions whose features are known.

        `rules` replace the config's.
        """
        rules = rules or self.config.detection
        return select([self.found(features, rules)], self.classes, rules)

    def found(self, features: RegionFeatures, rules: DetectionConfig) -> Found:
        """The regions that may be objects, scored and moved: detections but for (soft-)NMS."""
        scores = self.svms.scores(features.layer(self.config.svm.layer))
        if rules.softmax_weight:
            scores += np.float32(rules.softmax_weight) * features.log_probabilities
        known = self._refiner(features, rules) if rules.box_regression else None
        return candidates(features.boxes, scores, features.size, rules, known)

    def _refiner(self, features: RegionFeatures, rules: DetectionConfig) -> Refine | None:
        """What moves boxes: the regressors that `rules` ask for, as far as they were trained."""
        regressors, tuned = self.regressors, self.config.finetune
        learned = rules.regressors != "ridge" and tuned.steps > 0 and tuned.box_loss > 0
        if rules.regressors == "learned" or regressors is None:
            return features.learned_boxes if learned else None

        def refine(regions: IntArray, labels: IntArray) -> FloatArray:
            layer = features.rows(self.config.regression.layer, regions)
            moved = regressors.refine(layer, features.boxes[regions], labels)
            if not learned:
                return moved
            both = (moved + features.learned_boxes(regions, labels)) / 2
            return both.astype(np.float32)

        return refine

    def detect_many(self, paths: Iterable[Path]) -> Iterator[tuple[Path, Detections | SppdetError]]:
        """Each file with its detections, or with the error that it gave; never stops early."""
        for path in paths:
            try:
                yield path, self.detect(path)
            except SppdetError as error:
                yield path, error


def _part(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _check_fit(
    head: RegionHead,
    config: Config,
    n_classes: int,
    svms: LinearSvms,
    regressors: BoxRegressors | None,
) -> None:
    """ValueError where SVMs or regressors are not for these classes and this head's features."""
    found = {"svm": svms.weights.shape}
    wanted: dict[str, tuple[int, ...]] = {"svm": (n_classes, head.layer_width(config.svm.layer))}
    if regressors is not None:
        found["box"] = regressors.weights.shape
        wanted["box"] = (n_classes, head.layer_width(config.regression.layer), 4)
    for name, shape in found.items():
        if shape != wanted[name]:
            raise ValueError(f"{name}.weights is {shape}, not {wanted[name]}")
