"""What a detector consists of, in memory and in a model file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

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
from sppdet.detection.scoring import BoxRefiner, ClassGroup, ClassRefiner, RegionScorer
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
        return (trained, *(self._alone(one, shown, trained.refiner) for one in self.added))

    def _alone(self, one: KnownClass, shown: Sequence[str], refiner: ClassRefiner) -> ClassGroup:
        """An added class as a group; `refiner` is that of the classes of the training."""
        moves = self.config.detection.box_regression != "none"
        label = np.array([shown.index(one.name)], np.int64)
        return ClassGroup(one.model, one.model if moves else refiner, label, ADDED_LIMITS)


def read_parts(path: Path, *, device: str = "cpu") -> DetectorParts:
    """Load the parts of the detector in a model file; raises ModelFormatError as `load_model`."""
    return decode_parts(*load_model(path), path, device)


def decode_parts(
    header: ModelHeader, tensors: Mapping[str, np.ndarray], path: Path, device: str
) -> DetectorParts:
    """Make the parts of what `encode_parts` gave; `path` is named in a ModelFormatError."""
    with check_config(header, path):
        config = read_config(header.config)
        # Nothing is fetched because a file says so.
        config = config.replace(features=config.features.replace(download=False))
        extractor = FeatureExtractor(config.features, seed=config.seed, device=device)
    check_backbone(header, extractor.backbone.weights_digest(), path)
    try:
        names = ClassNames.read(header.classes, header.provenance)
        classes, shown = names.trained, names.shown()
        head = RegionHead.from_arrays(config.head, extractor, len(classes), _part(tensors, "head."))
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
    header, tensors = encode_parts(parts, description, provenance)
    halved = {k: v.astype(np.float16) for k, v in tensors.items() if k.startswith("head.")}
    save_model(path, header, tensors | halved)


def encode_parts(
    parts: DetectorParts, description: str, provenance: Mapping[str, object]
) -> tuple[ModelHeader, dict[str, np.ndarray]]:
    """All that a detector is made of, as a model file's header and arrays."""
    tensors: dict[str, np.ndarray] = {}
    for key, weight in parts.head.state_dict().items():
        tensors[f"head.{key}"] = weight.cpu().numpy()
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
    return header, tensors


def _part(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


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
