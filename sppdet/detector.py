"""The detector: image in, detections out, one call a stage (figure 1 of the paper)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sppdet.boxes import flip_horizontal
from sppdet.config import Config, differences, from_dict, load_config, to_dict
from sppdet.detection import DetectionConfig, select
from sppdet.errors import ConfigError, ModelFormatError, SppdetError
from sppdet.features import FeatureExtractor, FeatureMaps, ImageView
from sppdet.head import RegionHead
from sppdet.images import as_image
from sppdet.judging import RegionJudge, RegionView, judged
from sppdet.modelfile import ModelHeader, load_model, save_model
from sppdet.modelnames import find_preset, members, resolve_model
from sppdet.proposals import Proposer, make_proposer
from sppdet.region_features import RegionFeatures
from sppdet.regression import BoxRegressors
from sppdet.scene import SceneClassifier
from sppdet.svm import LinearSvms
from sppdet.types import Detections, FloatArray, ImageArray

DEFAULT_MODEL = "default"
# Settings that a trained model can be used with in any value; the others are part of it.
FREE_SETTINGS = ("proposals.", "detection.", "features.scales", "features.eight_bits")


class Detector:
    """A trained SPP-net detector.

    Attributes:
        classes: the names of what it detects.
        config: everything it was trained with and detects by.
        svms, regressors, scene: what judges regions, moves them, and judges whole images.
        partners: other models that judge the same regions; see `combined`.
        extractors: what sees the image: its own, and those of partners that read other maps.
        views: the ways in which they look at it (`DetectionConfig.views`), each once.
        judge: what this model by itself makes of regions' features.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        config: Config,
        extractor: FeatureExtractor,
        head: RegionHead,
        svms: LinearSvms,
        regressors: BoxRegressors | None,
        scene: SceneClassifier | None = None,
        partners: tuple[Detector, ...] = (),
    ) -> None:
        self.classes, self.config, self.partners = classes, config, partners
        self.extractor, self.head = extractor, head.freeze()
        self.svms, self.regressors, self.scene = svms, regressors, scene
        self.judge = RegionJudge(config, svms, regressors, scene)
        seeing = (self.extractor, *(one.extractor for one in partners))
        self.extractors = tuple(dict.fromkeys(seeing))
        own = _views(config, extractor)
        theirs = [view for one in partners for view in _views(config, one.extractor, partner=True)]
        self.views = tuple(dict.fromkeys((*own, *theirs)))
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
            found = _part(tensors, "scene.")
            scene = SceneClassifier(**found) if found else None
            _check_fit(head, config, len(header.classes), svms, regressors, scene)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ModelFormatError(
                f"its arrays do not fit its config: {error}", where=path, mend="train again"
            ) from error
        return cls(header.classes, config, extractor, head, svms, regressors, scene)

    def save(self, path: Path, *, description: str, provenance: dict[str, object]) -> None:
        """Writes one model file; head weights are stored as float16, which halves it.

        Raises ConfigError for models that are combined.
        """
        if self.partners:
            raise ConfigError("combined models have no file", mend="save each by itself")
        tensors: dict[str, np.ndarray] = {}
        for key, weight in self.head.state_dict().items():
            tensors[f"head.{key}"] = weight.half().numpy()
        for name in ("weights", "bias", "trained", "converged"):
            tensors[f"svm.{name}"] = getattr(self.svms, name)
        for part, value in (("box", self.regressors), ("scene", self.scene)):
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

    def with_settings(self, config: Config) -> Detector:
        """This detector under settings that differ in those of `FREE_SETTINGS` at most.

        Partners follow: in how regions are proposed and judged all of them, in how maps are made
        those that read the same ones.

        Raises ConfigError for a change to a setting that the model was trained with.
        """
        for name in differences(config, self.config):
            if not name.startswith(FREE_SETTINGS):
                free = ", ".join(f"{one}*" if one.endswith(".") else one for one in FREE_SETTINGS)
                raise ConfigError(
                    f"{name} was fixed when the model was trained",
                    mend=f"change {free} only, or train a model with it",
                )
        scales, eight_bits = config.features.scales, config.features.eight_bits
        extractor = self.extractor.in_eight_bits(eight_bits).at_scales(scales)
        head = self.head.reading(extractor.config)
        parts = (self.svms, self.regressors, self.scene)
        alone = Detector(self.classes, config, extractor, head, *parts)
        partners = (
            one.with_settings(_with_maps_of(one.config, config))
            if one.extractor is self.extractor
            else one
            for one in self.partners
        )
        return alone.combined(*partners)

    def combined(self, *others: Detector) -> Detector:
        """This model and others as one (paper sec. 4.4); see `detection.combination`.

        All judge the same regions by the rules of this one, each on maps as it was trained on:
        an image costs one forward pass for all models that read the same maps, and each model's
        own layers above it.

        Raises ConfigError where another detects other classes.
        """
        seeing = {one.digest(): one for one in self.extractors}
        partners = list(self.partners)
        for other in (one for each in others for one in (each, *each.partners)):
            if other.classes != self.classes:
                raise ConfigError(
                    "models of different classes cannot be combined",
                    mend="combine models that were trained on the same classes",
                )
            rules = self.config
            config = replace(other.config, proposals=rules.proposals, detection=rules.detection)
            extractor = seeing.setdefault(other.extractor.digest(), other.extractor)
            parts = (extractor, other.head, other.svms, other.regressors, other.scene)
            partners.append(Detector(other.classes, config, *parts))
        own = (self.extractor, self.head, self.svms, self.regressors, self.scene)
        return Detector(self.classes, self.config, *own, tuple(partners))

    def detect(self, image: str | Path | ImageArray) -> Detections:
        """The objects of one image, best first, boxes in image pixels.

        Scores are SVM margins plus `detection.softmax_weight` times the softmax's log probabilities
        and `detection.scene_weight` times the scene's, less what soft-NMS takes.

        `image` is a file or an RGB array `uint8 (H, W, 3)`. Raises ImageError when a file cannot
        be read or an array is of another type or shape.
        """
        pixels = as_image(image)
        return self.detect_regions(self.look(pixels), self.propose(pixels))

    def look(self, image: ImageArray) -> tuple[FeatureMaps, ...]:
        """The maps of an RGB image `uint8 (H, W, 3)` in each of `views`."""
        return tuple(view(image) for view in self.views)

    def detect_regions(self, maps: Sequence[FeatureMaps], boxes: FloatArray) -> Detections:
        """The objects among given regions `(N, 4)` of an image whose maps, of `look`, are known."""
        rules = self.config.detection
        return select(judged(rules, self.region_views(maps, boxes)), self.classes, rules)

    def region_views(
        self, maps: Sequence[FeatureMaps], boxes: FloatArray
    ) -> list[list[RegionView]]:
        """Given regions `(N, 4)` of an image as each model sees them in each view of its maps.

        `maps` are those of `look`. Features are computed when they are first asked for.
        """
        seen = dict(zip(self.views, maps, strict=True))
        models = []
        for one in (self, *self.partners):
            views = []
            for view in _views(self.config, one.extractor, partner=one is not self):
                own = flip_horizontal(boxes, seen[view].width) if view.mirrored else boxes
                head = one.head.reading(view.extractor.config)
                features = RegionFeatures(head, seen[view], own)
                views.append(RegionView(one.judge, features, view.mirrored))
            models.append(views)
        return models

    def detect_features(
        self, features: RegionFeatures, *, rules: DetectionConfig | None = None
    ) -> Detections:
        """What this model finds, without its partners, among regions whose features are known.

        `rules` replace the config's.
        """
        rules = rules or self.config.detection
        return select(judged(rules, [[RegionView(self.judge, features)]]), self.classes, rules)

    def detect_many(self, paths: Iterable[Path]) -> Iterator[tuple[Path, Detections | SppdetError]]:
        """Each file with its detections, or with the error that it gave; never stops early."""
        for path in paths:
            try:
                yield path, self.detect(path)
            except SppdetError as error:
                yield path, error


def _views(
    config: Config, extractor: FeatureExtractor, *, partner: bool = False
) -> list[ImageView]:
    views = config.detection.views(partner=partner)
    return [ImageView(extractor.zoomed(zoom), turned) for zoom, turned in views]


def _with_maps_of(config: Config, other: Config) -> Config:
    scales, eight_bits = other.features.scales, other.features.eight_bits
    features = replace(config.features, scales=scales, eight_bits=eight_bits)
    return replace(config, features=features)


def _part(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _check_fit(
    head: RegionHead,
    config: Config,
    n_classes: int,
    svms: LinearSvms,
    regressors: BoxRegressors | None,
    scene: SceneClassifier | None,
) -> None:
    """ValueError where SVMs or the others are not for these classes and this head's features."""
    found = {"svm": svms.weights.shape}
    wanted: dict[str, tuple[int, ...]] = {"svm": (n_classes, head.layer_width(config.svm.layer))}
    if regressors is not None:
        found["box"] = regressors.weights.shape
        wanted["box"] = (n_classes, head.layer_width(config.regression.layer), 4)
    if scene is not None:
        found["scene"] = scene.weights.shape
        wanted["scene"] = (n_classes, head.scene_width())
    for name, shape in found.items():
        if shape != wanted[name]:
            raise ValueError(f"{name}.weights is {shape}, not {wanted[name]}")
