"""Several detectors as one (paper sec. 4.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from sppdet.backbones.feature_maps import FeatureMaps
from sppdet.core.errors import ConfigError, SppdetError
from sppdet.core.types import Detections, FloatArray, ImageArray
from sppdet.detection.detector import DEFAULT_MODEL, Detector
from sppdet.detection.many_images import detect_all, detect_many
from sppdet.detection.model_zoo import FUSIONS, Member, find_members, find_preset
from sppdet.detection.postprocess import Candidates, postprocess
from sppdet.detection.probabilities.calibration import Calibration
from sppdet.detection.scoring import AugmentedImage, detect_candidates
from sppdet.media.image_inputs import ImageInput, as_image, is_single


class Ensemble:
    """Detectors of the same classes that score the same regions.

    An image costs one forward pass for all members that read the same maps, and each member's own
    layers above it. Proposals and post-processing are by the first member's settings; how a member
    is shown the image and how it scores are its own.

    Args:
        members: one or more.
        fusion: `mean`: a region's scores and boxes are the means of the members'; `union`: the
            boxes of all go into NMS together (paper sec. 4.4).

    Raises ConfigError where members detect different classes, or were given them in another way,
    and for an unknown fusion.

    Attributes:
        classes: the names of what it detects.
        config: the first member's.
        calibration: the mean of the members'.
        is_calibrated: whether all members are.
        requests: the feature maps that it needs of an image, each once.
    """

    def __init__(self, members: Sequence[Detector], fusion: str = "mean") -> None:
        if not members or fusion not in FUSIONS:
            raise ConfigError(
                f"an ensemble of {len(members)} models by {fusion!r}",
                hint=f"give one or more, and one of {', '.join(FUSIONS)}",
            )
        first = members[0]
        if any(one.classes != first.classes for one in members):
            raise ConfigError(
                "models of different classes cannot be combined",
                hint="combine models that were trained on the same classes",
            )
        if fusion == "mean" and len({_numbers(one) for one in members}) > 1:
            raise ConfigError(
                "models whose classes were added to other ones cannot be averaged",
                hint="add the same classes in the same order to each of them",
            )
        self.members, self.fusion = tuple(members), fusion
        self.classes, self.config, self.propose = first.classes, first.config, first.propose
        self.calibration = Calibration.mean([one.calibration for one in members])
        self.is_calibrated = all(one.is_calibrated for one in members)
        every = [request for one in members for request in one.requests]
        self.requests = tuple({one.key: one for one in reversed(every)}.values())[::-1]

    def __reduce__(self) -> tuple[type[Ensemble], tuple[Any, ...]]:
        return Ensemble, (self.members, self.fusion)

    @classmethod
    def load(cls, source: str | Path = DEFAULT_MODEL, *, device: str = "cpu") -> Ensemble:
        """Load the models that a source names: a preset, or several with `+` between.

        Raises ModelFormatError as `Detector.load` does, ConfigError as the constructor.
        """
        preset = find_preset(source)
        return cls.load_members(find_members(source), preset.fusion if preset else "mean", device)

    @classmethod
    def load_members(
        cls, members: Sequence[Member], fusion: str = "mean", device: str = "cpu"
    ) -> Ensemble:
        """Load models from files, each under its changes of settings."""
        return cls([Detector.load_member(one, device=device) for one in members], fusion)

    def configure(self, path: Path | None = None, overrides: Sequence[str] = ()) -> Ensemble:
        """Put every member under the settings of a TOML file, then of `a.b=c` overrides.

        Raises ConfigError as `Detector.configure` does.
        """
        return Ensemble([one.configure(path, overrides) for one in self.members], self.fusion)

    @overload
    def detect(self, image: ImageInput) -> Detections: ...  # type: ignore[overload-overlap]
    @overload
    def detect(self, image: Iterable[ImageInput]) -> list[Detections]: ...
    def detect(self, image: ImageInput | Iterable[ImageInput]) -> Detections | list[Detections]:
        """Detect the objects of an image, or of each image of a list, as `Detector.detect` does."""
        if not is_single(image):
            return detect_all(self, image)
        pixels = as_image(image)
        return self.detect_regions(self.extract(pixels), self.propose(pixels))

    def detect_many(
        self, images: Iterable[ImageInput], *, workers: int = 1
    ) -> Iterator[Detections | SppdetError]:
        """Yield what `detect` gives for each image, as `Detector.detect_many` does."""
        return detect_many(self, images, workers)

    def extract(self, image: ImageArray) -> tuple[FeatureMaps, ...]:
        """Compute the feature maps of an image `uint8 (H, W, 3)` that members need, each once."""
        return tuple(request.compute(image) for request in self.requests)

    def detect_regions(self, maps: Sequence[FeatureMaps], boxes: FloatArray) -> Detections:
        """Detect the objects among regions `(N, 4)` of an image with known maps (`extract`)."""
        found = self.candidates(maps, boxes)
        return postprocess(found, self.classes, self.config.detection, self.calibration)

    def candidates(self, maps: Sequence[FeatureMaps], boxes: FloatArray) -> Candidates:
        """Score and move regions `(N, 4)`, as `Detector.candidates` does."""
        views, rules = self.views(maps), self.config.detection
        if self.fusion == "mean":
            views = [[view for member in views for view in member]]
        return Candidates.concat([detect_candidates(member, boxes, rules) for member in views])

    def with_calibration(self, calibration: Calibration) -> Ensemble:
        """Give every member these probabilities; ValueError where they are of other classes."""
        return Ensemble([one.with_calibration(calibration) for one in self.members], self.fusion)

    def views(self, maps: Sequence[FeatureMaps]) -> list[list[AugmentedImage]]:
        """Prepare an image's maps (`extract`) for pooling regions from them, per member."""
        known = {request.key: one for request, one in zip(self.requests, maps, strict=True)}
        return [
            member.views([known[request.key] for request in member.requests])
            for member in self.members
        ]


def _numbers(member: Detector) -> tuple[tuple[int, ...], ...]:
    """The numbers of the classes of each group."""
    return tuple(tuple(group.labels.tolist()) for group in member.groups)


def load_detector(
    source: str | Path = DEFAULT_MODEL, *, device: str = "cpu"
) -> Detector | Ensemble:
    """Load what a name or path means: a `Detector`, or an `Ensemble` where it names several.

    Raises ModelFormatError and ConfigError as their `load` does.
    """
    several = len(find_members(source)) > 1
    return (Ensemble if several else Detector).load(source, device=device)
