"""The detector: image in, detections out, one call per stage (figure 5 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from sppdet.backbones.feature_maps import FeatureExtractor, FeatureMaps
from sppdet.core.errors import ConfigError, ModelFormatError, SppdetError
from sppdet.core.model_file import ModelHeader
from sppdet.core.progress import NullProgress, Progress
from sppdet.core.settings import (
    differences,
    load,
    parse_override,
    read_toml,
    update,
)
from sppdet.core.types import Dataset, Detections, FloatArray, ImageArray
from sppdet.detection.added.add import add_classes
from sppdet.detection.added.classes import KnownClass, check_known_name, check_new_name
from sppdet.detection.added.correct import WrongImage, correct_class
from sppdet.detection.augmentation import MapRequest, augmentations
from sppdet.detection.config import (
    FREE_SETTINGS,
    DetectorConfig,
    fixed_setting,
    refuse_training,
)
from sppdet.detection.detector_parts import (
    DetectorParts,
    decode_parts,
    encode_parts,
    read_parts,
    write_parts,
)
from sppdet.detection.many_images import detect_all, detect_many
from sppdet.detection.model_zoo import Member, find_members
from sppdet.detection.postprocess import Candidates, postprocess
from sppdet.detection.probabilities.calibration import Calibration
from sppdet.detection.scoring import AugmentedImage, detect_candidates
from sppdet.heads.added.negative_bank import NegativeBank
from sppdet.heads.box_regression import BoxRegressors
from sppdet.heads.head import RegionHead
from sppdet.heads.image_context import ContextClassifier
from sppdet.heads.svm import LinearSvms
from sppdet.media.image_inputs import ImageInput, as_image, is_single
from sppdet.proposals import Proposer, make_proposer

DEFAULT_MODEL = "default"


class Detector:
    """A trained SPP-net detector.

    Attributes:
        classes: the names of what it detects.
        config: what the model is and how it detects.
        extractor, head, svms, regressors, context: its stages (paper, figure 5).
        calibration: what makes probabilities of margins.
        is_calibrated: whether it was fitted to held-out images; else one for any model is used.
        parts: what it is made of.
        groups: its classes, those together that are scored together.
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
        calibration: Calibration | None = None,
        added: tuple[KnownClass, ...] = (),
        hidden: tuple[str, ...] = (),
        bank: NegativeBank | None = None,
    ) -> None:
        """Put the stages together.

        Args:
            classes: the names of what the head and the SVMs were trained on.
            config, extractor, head, svms, regressors, context: see the class.
            calibration: of the classes that are shown, in their order; None: not calibrated.
            added: classes that came later.
            hidden: trained classes that are not shown.
            bank: what classes that are added later are not.
        """
        self.config, self.extractor = config, extractor
        self.head = head.freeze(quantize=config.features.quantize)
        self.svms, self.regressors, self.context, self.added = svms, regressors, context, added
        stages = (extractor, self.head, svms, regressors, context)
        self.parts = DetectorParts(classes, config, *stages, calibration, added, hidden, bank)
        self.classes = self.parts.names.shown()
        self.is_calibrated = calibration is not None
        self.calibration = calibration or Calibration.uncalibrated(len(self.classes))
        self.groups = self.parts.groups()
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
        if config is not None:
            detector = detector.with_settings(config)
        own = member.calibration
        return detector if own is None else detector.with_calibration(own)

    @classmethod
    def load_file(cls, path: Path, *, device: str = "cpu") -> Detector:
        """Load the detector in a model file; raises ModelFormatError as `load` does."""
        return cls(**read_parts(path, device=device)._asdict())

    def save(self, path: Path, *, description: str, provenance: dict[str, object]) -> None:
        """Write one model file; head weights are stored as float16, which halves it."""
        write_parts(self.parts, path, description=description, provenance=provenance)

    def __reduce__(self) -> tuple[Callable[..., Detector], tuple[Any, ...]]:
        """Let worker processes be given it: by its arrays, some 30 MB, and not by its parts."""
        device = str(self.extractor.device)
        return _from_arrays, (*encode_parts(self.parts, "", {}), device)

    def _with(self, **changes: Any) -> Detector:
        """Return this detector with some of its parts exchanged."""
        return Detector(**{**self.parts._asdict(), **changes})

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
        return self._with(config=config, extractor=extractor)

    def with_calibration(self, calibration: Calibration) -> Detector:
        """Give this model other probabilities; ValueError where they are of other classes."""
        return self._with(calibration=calibration.check(len(self.classes)))

    def add_classes(self, dataset: Dataset, *, progress: Progress | None = None) -> Detector:
        """Return this detector with the classes of a data set, learned from its images in seconds.

        What it detects of its other classes stays as it is, to the last bit. `progress` shows how
        far it is. Raises as `added.add.add_classes` does.
        """
        added, fitted = add_classes(self, dataset, progress or NullProgress())
        calibration = self.calibration.join(fitted) if self.is_calibrated else None
        return self._with(added=(*self.parts.added, *added), calibration=calibration)

    def correct_class(
        self, name: str, wrong: Sequence[WrongImage], *, progress: Progress | None = None
    ) -> Detector:
        """Return this detector with an added class taught that some regions are not of it.

        Raises as `added.correct.correct_class` does.
        """
        better = correct_class(self, name, wrong, progress or NullProgress())
        added = tuple(better if one.name == name else one for one in self.parts.added)
        return self._with(added=added)

    def remove_class(self, name: str) -> Detector:
        """Return this detector without a class; what it detects of the others stays as it is.

        Raises ConfigError for a class that it does not have, and for its last.
        """
        check_known_name(name, self.classes)
        if len(self.classes) == 1:
            raise ConfigError(f"{name} is its only class", hint="a model detects one at least")
        parts = self.parts
        added = tuple(one for one in parts.added if one.name != name)
        hidden = parts.hidden if len(added) < len(parts.added) else (*parts.hidden, name)
        kept = [label for label, one in enumerate(self.classes) if one != name]
        fitted = parts.calibration and parts.calibration.take(kept)
        return self._with(added=added, hidden=hidden, calibration=fitted)

    def rename_class(self, name: str, new: str) -> Detector:
        """Return this detector with another name for a class; ConfigError for one that is taken."""
        check_known_name(name, self.classes)
        parts = self.parts
        check_new_name(new, [one for one in parts.names.every() if one != name])
        if any(one.name == name for one in parts.added):
            renamed = (one._replace(name=new) if one.name == name else one for one in parts.added)
            return self._with(added=tuple(renamed))
        return self._with(classes=tuple(new if one == name else one for one in parts.classes))

    def configure(self, path: Path | None = None, overrides: Sequence[str] = ()) -> Detector:
        """Put this model under the settings of a TOML file, then of `a.b=c` overrides.

        Raises ConfigError as `settings.load` and `with_settings` do, and for a setting of training.
        """
        tables = [] if path is None else [read_toml(path)]
        for table in (*tables, *map(parse_override, overrides)):
            refuse_training(table)
        return self.with_settings(load(DetectorConfig, path, overrides, self.config))

    @overload
    def detect(self, image: ImageInput) -> Detections: ...  # type: ignore[overload-overlap]
    @overload
    def detect(self, image: Iterable[ImageInput]) -> list[Detections]: ...
    def detect(self, image: ImageInput | Iterable[ImageInput]) -> Detections | list[Detections]:
        """Detect the objects of an image, best first, boxes in image pixels; or a list, of several.

        Scores are probabilities that the box overlaps an object of its class by an IoU of 0.5 or
        more, by `calibration` of the margins: the SVM's plus `detection.softmax_weight` times the
        softmax's log probabilities and `detection.context_weight` times the image context's, less
        what soft-NMS takes.

        An image is a path, the bytes of a file, a file object, a Pillow image, an array
        `(H, W, 3)` in RGB, a tensor `(C, H, W)` or an `https://` address: `media.as_image` has all
        kinds. Raises ImageError for anything else and for what cannot be read; see `detect_many`
        for how to do the rest of a list all the same.
        """
        if not is_single(image):
            return detect_all(self, image)
        pixels = as_image(image)
        return self.detect_regions(self.extract(pixels), self.propose(pixels))

    def detect_many(
        self, images: Iterable[ImageInput], *, workers: int = 1
    ) -> Iterator[Detections | SppdetError]:
        """Yield what `detect` gives for each image, in their order and to the last bit.

        Images are taken from an iterable as they are needed, and read and proposed for ahead, on
        `workers` threads; a few per thread are in memory at a time. One that cannot be read gives
        its SppdetError in the place of its detections, and the others are done.
        """
        return detect_many(self, images, workers)

    def extract(self, image: ImageArray) -> tuple[FeatureMaps, ...]:
        """Compute the feature maps of an image `uint8 (H, W, 3)`, one per augmentation."""
        return tuple(request.compute(image) for request in self.requests)

    def detect_regions(self, maps: Sequence[FeatureMaps], boxes: FloatArray) -> Detections:
        """Detect the objects among regions `(N, 4)` of an image with known maps (`extract`)."""
        found = self.candidates(maps, boxes)
        return postprocess(found, self.classes, self.config.detection, self.calibration)

    def candidates(self, maps: Sequence[FeatureMaps], boxes: FloatArray) -> Candidates:
        """Score and move regions `(N, 4)`: what `postprocess` makes detections of."""
        return detect_candidates(self.views(maps), boxes, self.config.detection)

    def views(self, maps: Sequence[FeatureMaps]) -> list[AugmentedImage]:
        """Prepare an image's maps (`extract`) for pooling regions from them."""
        return [
            AugmentedImage(self.head, self.groups, self.head.prepare(one), how)
            for how, one in zip(self.augmentations, maps, strict=True)
        ]


def _from_arrays(header: ModelHeader, tensors: dict[str, Any], device: str) -> Detector:
    return Detector(**decode_parts(header, tensors, Path("a detector"), device)._asdict())
