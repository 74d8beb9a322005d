"""The detector: image in, detections out, one call per stage (figure 5 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sppdet.backbones.feature_maps import FeatureExtractor, FeatureMaps
from sppdet.core.errors import ConfigError, ModelFormatError
from sppdet.core.images import as_image
from sppdet.core.model_file import ModelHeader, check_backbone, check_config, load_model, save_model
from sppdet.core.settings import (
    differences,
    from_dict,
    load,
    parse_override,
    read_toml,
    to_dict,
    update,
)
from sppdet.core.types import Detections, FloatArray, ImageArray
from sppdet.detection.augmentation import MapRequest, augmentations
from sppdet.detection.config import DetectorConfig
from sppdet.detection.model_zoo import Member, find_members
from sppdet.detection.postprocess import postprocess
from sppdet.detection.scoring import AugmentedImage, BoxRefiner, RegionScorer, detect_candidates
from sppdet.heads.box_regression import BoxRegressors
from sppdet.heads.head import RegionHead
from sppdet.heads.image_context import ContextClassifier
from sppdet.heads.svm import LinearSvms
from sppdet.proposals import Proposer, make_proposer

DEFAULT_MODEL = "default"
# Settings that a trained model can be used with in any value; the others are part of it.
FREE_SETTINGS = ("proposals.", "detection.", "features.scales", "features.quantize")
# Tables of settings that training alone reads: a model has been through them.
TRAINING_TABLES = ("finetune", "svm", "regression", "context")


class Detector:
    """A trained SPP-net detector.

    Attributes:
        classes: the names of what it detects.
        config: what the model is and how it detects.
        extractor, head, svms, regressors, context: its stages (paper, figure 5).
        propose: selective search: image to boxes.
        augmentations: how it is shown an image (`augmentation.augmentations`).
        requests: the feature maps that it needs of an image, one per augmentation.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        config: DetectorConfig,
        extractor: FeatureExtractor,
        head: RegionHead,
        svms: LinearSvms,
        regressors: BoxRegressors | None,
        context: ContextClassifier | None = None,
    ) -> None:
        self.classes, self.config, self.extractor = classes, config, extractor
        self.head = head.freeze(quantize=config.features.quantize)
        self.svms, self.regressors, self.context = svms, regressors, context
        self.scorer = RegionScorer(self.head, svms, context, config.detection)
        self.refiner = BoxRefiner(self.head, regressors, config.detection)
        self.propose: Proposer = make_proposer(config.proposals)
        self.augmentations = augmentations(config.detection)
        scales = config.features.scales
        self.requests = tuple(
            MapRequest(extractor, one.scales(scales), one.flip) for one in self.augmentations
        )

    @classmethod
    def load(cls, source: str | Path = DEFAULT_MODEL, *, device: str = "cpu") -> Detector:
        """Load the detector in a model file, given by a path or by the name of a shipped model.

        A name may also be a preset's: a shipped model under other settings. Several models at once
        are an `Ensemble`.

        Raises ModelFormatError when the file is missing, damaged, or of another version, was
        trained on a backbone whose installed weights differ, or when several models are named.
        """
        member, *others = find_members(source)
        if others:
            raise ModelFormatError(
                "names several models", path=source, hint="load it with Ensemble.load"
            )
        return cls.load_member(member, device=device)

    @classmethod
    def load_member(cls, member: Member, *, device: str = "cpu") -> Detector:
        """Load a model file and put it under the member's settings."""
        detector, config = cls.load_file(member.path, device=device), None
        for path, values in member.changes:
            config = update(config or detector.config, values, path=path)
        return detector if config is None else detector.with_settings(config)

    @classmethod
    def load_file(cls, path: Path, *, device: str = "cpu") -> Detector:
        """Load the detector in a model file; raises ModelFormatError as `load` does."""
        header, tensors = load_model(path)
        with check_config(header, path):
            config = from_dict(DetectorConfig, header.config)
            extractor = FeatureExtractor(config.features, seed=config.seed, device=device)
        check_backbone(header, extractor.backbone.weights_digest(), path)
        classes = header.classes
        head = RegionHead(config.head, extractor, len(classes), seed=config.seed)
        try:
            _load_head(head, _part(tensors, "head."))
            svms = LinearSvms(**_part(tensors, "svm."))
            box, context = _part(tensors, "box."), _part(tensors, "context.")
            regressors = BoxRegressors(**box) if box else None
            classifier = ContextClassifier(**context) if context else None
            _check_fit(head, len(classes), svms, regressors, classifier)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ModelFormatError(
                f"its arrays do not fit its config: {error}", path=path, hint="train again"
            ) from error
        return cls(classes, config, extractor, head, svms, regressors, classifier)

    def save(self, path: Path, *, description: str, provenance: dict[str, object]) -> None:
        """Write one model file; head weights are stored as float16, which halves it."""
        tensors: dict[str, np.ndarray] = {}
        for key, weight in self.head.state_dict().items():
            tensors[f"head.{key}"] = weight.half().numpy()
        for name in ("weights", "bias", "trained", "converged"):
            tensors[f"svm.{name}"] = getattr(self.svms, name)
        for part, value in (("box", self.regressors), ("context", self.context)):
            for name in ("weights", "bias", "trained") if value is not None else ():
                tensors[f"{part}.{name}"] = getattr(value, name)
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

    def with_settings(self, config: DetectorConfig) -> Detector:
        """Put this model under settings that differ in those of `FREE_SETTINGS` at most.

        Raises ConfigError for a change to a setting that the model was trained with.
        """
        for name in differences(config, self.config):
            if not name.startswith(FREE_SETTINGS):
                raise fixed_setting(name)
        extractor, features = self.extractor, config.features
        if features.quantize != self.config.features.quantize:
            extractor = FeatureExtractor(
                features, device=str(extractor.device), backbone=extractor.backbone
            )
        stages = (extractor, self.head, self.svms, self.regressors, self.context)
        return Detector(self.classes, config, *stages)

    def configure(self, path: Path | None = None, overrides: Sequence[str] = ()) -> Detector:
        """Put this model under the settings of a TOML file, then of `a.b=c` overrides.

        Raises ConfigError as `settings.load` and `with_settings` do, and for a setting of training.
        """
        tables = [] if path is None else [read_toml(path)]
        for table in (*tables, *map(parse_override, overrides)):
            _refuse_training(table)
        return self.with_settings(load(DetectorConfig, path, overrides, self.config))

    def detect(self, image: str | Path | ImageArray) -> Detections:
        """Detect the objects of one image, best first, boxes in image pixels.

        Scores are SVM margins plus `detection.softmax_weight` times the softmax's log probabilities
        and `detection.context_weight` times the image context's, less what soft-NMS takes.

        `image` is a file or an RGB array `uint8 (H, W, 3)`. Raises ImageError when a file cannot
        be read or an array is of another type or shape.
        """
        pixels = as_image(image)
        return self.detect_regions(self.extract(pixels), self.propose(pixels))

    def extract(self, image: ImageArray) -> tuple[FeatureMaps, ...]:
        """Compute the feature maps of an image `uint8 (H, W, 3)`, one per augmentation."""
        return tuple(request.compute(image) for request in self.requests)

    def detect_regions(self, maps: Sequence[FeatureMaps], boxes: FloatArray) -> Detections:
        """Detect the objects among regions `(N, 4)` of an image with known maps (`extract`)."""
        rules = self.config.detection
        return postprocess(detect_candidates(self.views(maps), boxes, rules), self.classes, rules)

    def views(self, maps: Sequence[FeatureMaps]) -> list[AugmentedImage]:
        """Prepare an image's maps (`extract`) for pooling regions from them."""
        return [
            AugmentedImage(self.head, self.scorer, self.refiner, self.head.prepare(one), how)
            for how, one in zip(self.augmentations, maps, strict=True)
        ]


def fixed_setting(name: str) -> ConfigError:
    """Describe a changed setting that a trained model cannot be used with."""
    free = ", ".join(f"{one}*" if one.endswith(".") else one for one in FREE_SETTINGS)
    return ConfigError(
        f"{name} was fixed when the model was trained",
        hint=f"change {free} only, or train a model with it",
    )


def _refuse_training(table: Mapping[str, Any]) -> None:
    for section in TRAINING_TABLES:
        if section in table:
            values = table[section]
            key = f".{next(iter(values))}" if isinstance(values, dict) and values else ""
            raise fixed_setting(f"{section}{key}")


def _part(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _load_head(head: RegionHead, stored: dict[str, np.ndarray]) -> None:
    weights = {name: torch.from_numpy(value).float() for name, value in stored.items()}
    if "fc6_in.weight" in weights:
        head.make_factors(len(weights["fc6_in.weight"]))
    head.load_state_dict(weights)


def _check_fit(
    head: RegionHead,
    n_classes: int,
    svms: LinearSvms,
    regressors: BoxRegressors | None,
    context: ContextClassifier | None,
) -> None:
    """Raise ValueError where SVMs or the others are not for these classes and features."""
    config = head.config
    found = {"svm": svms.weights.shape}
    wanted: dict[str, tuple[int, ...]] = {"svm": (n_classes, head.layer_width(config.svm_layer))}
    if regressors is not None:
        found["box"] = regressors.weights.shape
        wanted["box"] = (n_classes, head.layer_width(config.regression_layer), 4)
    if context is not None:
        found["context"] = context.weights.shape
        wanted["context"] = (n_classes, head.pooler.image_width())
    for name, shape in found.items():
        if shape != wanted[name]:
            raise ValueError(f"{name}.weights is {shape}, not {wanted[name]}")
