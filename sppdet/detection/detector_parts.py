"""What a detector consists of, in memory and in a model file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sppdet.backbones.feature_maps import FeatureExtractor
from sppdet.core.errors import ModelFormatError
from sppdet.core.model_file import ModelHeader, check_backbone, check_config, load_model, save_model
from sppdet.core.settings import to_dict
from sppdet.detection.added.classes import (
    ADDED_LIMITS,
    KnownClass,
    added_tensors,
    check_widths,
    load_added,
)
from sppdet.detection.added.names import ClassNames
from sppdet.detection.config import DetectorConfig, read_config
from sppdet.detection.probabilities.calibration import Calibration
from sppdet.detection.scoring import BoxRefiner, ClassGroup, RegionScorer
from sppdet.heads.added.negative_bank import NegativeBank
from sppdet.heads.box_regression import BoxRegressors
from sppdet.heads.head import RegionHead
from sppdet.heads.image_context import ContextClassifier
from sppdet.heads.svm import LinearSvms


class DetectorParts(NamedTuple):
    """What `Detector` is made of; the fields are its arguments."""

    classes: tuple[str, ...]
    config: DetectorConfig
    extractor: FeatureExtractor
    head: RegionHead
    svms: LinearSvms
    regressors: BoxRegressors | None
    context: ContextClassifier | None
    calibration: Calibration | None
    added: tuple[KnownClass, ...]
    hidden: tuple[str, ...]
    bank: NegativeBank | None

    @property
    def names(self) -> ClassNames:
        """All its classes."""
        added = tuple({"name": one.name, **one.info} for one in self.added)
        return ClassNames(self.classes, self.hidden, added)

    def groups(self) -> tuple[ClassGroup, ...]:
        """The classes of the training together, and each added one by itself."""
        shown, rules = self.names.shown(), self.config.detection
        labels = [-1 if one in self.hidden else shown.index(one) for one in self.classes]
        trained = ClassGroup(
            RegionScorer(self.head, self.svms, self.context, rules),
            BoxRefiner(self.head, self.regressors, rules),
            np.array(labels, np.int64),
        )
        alone = [np.array([shown.index(one.name)], np.int64) for one in self.added]
        added = zip(self.added, alone, strict=True)
        return (trained, *(ClassGroup(one.model, one.model, n, ADDED_LIMITS) for one, n in added))


def read_parts(path: Path, *, device: str = "cpu") -> DetectorParts:
    """Load the parts of the detector in a model file; raises ModelFormatError as `load_model`."""
    header, tensors = load_model(path)
    with check_config(header, path):
        config = read_config(header.config)
        extractor = FeatureExtractor(config.features, seed=config.seed, device=device)
    check_backbone(header, extractor.backbone.weights_digest(), path)
    try:
        names = ClassNames.read(header.classes, header.provenance)
        classes, shown = names.trained, names.shown()
        head = RegionHead(config.head, extractor, len(classes), seed=config.seed)
        _load_head(head, _part(tensors, "head."))
        svms = LinearSvms(**_part(tensors, "svm."))
        box, context = _part(tensors, "box."), _part(tensors, "context.")
        regressors = BoxRegressors(**box) if box else None
        classifier = ContextClassifier(**context) if context else None
        _check_fit(head, len(classes), svms, regressors, classifier)
        fitted = _part(tensors, "calibration.")
        calibration = Calibration(**fitted).check(len(shown)) if fitted else None
        added = load_added(tensors, names)
        check_widths(added, head)
        bank = NegativeBank.from_tensors(tensors)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelFormatError(
            f"its arrays do not fit its config: {error}", path=path, hint="train again"
        ) from error
    stages = (extractor, head, svms, regressors, classifier)
    return DetectorParts(classes, config, *stages, calibration, added, names.hidden, bank)


def write_parts(
    parts: DetectorParts, path: Path, *, description: str, provenance: dict[str, object]
) -> None:
    """Write one model file; head weights are stored as float16, which halves it."""
    tensors: dict[str, np.ndarray] = {}
    for key, weight in parts.head.state_dict().items():
        tensors[f"head.{key}"] = weight.half().numpy()
    for name in ("weights", "bias", "trained", "converged"):
        tensors[f"svm.{name}"] = getattr(parts.svms, name)
    for part, value in (("box", parts.regressors), ("context", parts.context)):
        for name in ("weights", "bias", "trained") if value is not None else ():
            tensors[f"{part}.{name}"] = getattr(value, name)
    if parts.calibration is not None:
        tensors |= parts.calibration.tensors()
    tensors |= added_tensors(parts.added)
    if parts.bank is not None:
        tensors |= parts.bank.tensors()
    backbone, names = parts.extractor.backbone, parts.names
    # What a file said of its classes before is no longer so.
    rest = {key: value for key, value in provenance.items() if key != "classes"}
    header = ModelHeader(
        classes=names.shown(),
        config=to_dict(parts.config),
        backbone=backbone.name,
        backbone_digest=backbone.weights_digest(),
        description=description,
        provenance={**rest, **names.entry()},
    )
    save_model(path, header, tensors)


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
