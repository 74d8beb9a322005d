"""Seconds of each stage of one detection, through the pieces that `detect` is made of."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import torch

from sppdet.backbones.feature_maps import FeatureMaps
from sppdet.core.types import FloatArray, ImageArray, IntArray
from sppdet.detection.detector import Detector
from sppdet.detection.ensemble import Ensemble
from sppdet.detection.postprocess import Candidates, postprocess
from sppdet.detection.scoring import AugmentedImage, ClassGroup, ClassRefiner, detect_candidates
from sppdet.heads.head import RegionFeatures
from sppdet.heads.region_averages import has_averages, region_averages

STAGES = (
    "proposals",
    "resize, conv",
    "top stages",
    "pool",
    "pool, fc6",
    "fc7",
    "SVMs",
    "iterative localization",
    "NMS, boxes",
)


def stage_seconds(detector: Detector | Ensemble, image: ImageArray) -> dict[str, float]:
    """Seconds of each stage of one detection; a layer that nothing reads is left out."""
    found: dict[str, float] = {}
    last = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal last
        now = time.perf_counter()
        found[stage] = found.get(stage, 0.0) + now - last
        last = now

    boxes = detector.propose(image)
    lap("proposals")
    maps = detector.extract(image)
    lap("resize, conv")
    models, rules = view_groups(detector, maps), detector.config.detection
    lap("top stages")
    known = []
    for views in models:
        features = [region_features(view, boxes, lap) for view in views]
        pairs = zip(views, features, strict=True)
        known.append([KnownRegions(view, boxes, one) for view, one in pairs])
        for one in known[-1]:
            for group in one.groups:
                group.scorer.score(one.known)
        lap("SVMs")
    once = rules.replace(refine_top=0)
    candidates = [detect_candidates(views, boxes, once) for views in known]
    lap("NMS, boxes")
    scored = found["NMS, boxes"]
    # That scored the regions once more.
    found["NMS, boxes"] = max(0.0, scored - found["SVMs"])
    if rules.refine_top:
        candidates = [detect_candidates(views, boxes, rules) for views in known]
        lap("iterative localization")
        found["iterative localization"] = max(0.0, found["iterative localization"] - scored)
    postprocess(Candidates.concat(candidates), detector.classes, rules, detector.calibration)
    lap("NMS, boxes")
    return found


def view_groups(
    detector: Detector | Ensemble, maps: Sequence[FeatureMaps]
) -> list[list[AugmentedImage]]:
    """Prepare an image's maps; one list of views per prediction."""
    if isinstance(detector, Detector):
        return [detector.views(maps)]
    groups = detector.views(maps)
    return [[view for views in groups for view in views]] if detector.fusion == "mean" else groups


@dataclasses.dataclass(frozen=True)
class KnownRegions:
    """A view of an image in which the features of some boxes are known (a `RegionView`)."""

    view: AugmentedImage
    boxes: FloatArray
    known: RegionFeatures

    @property
    def groups(self) -> tuple[ClassGroup, ...]:
        return self.view.groups

    @property
    def size(self) -> tuple[int, int]:
        return self.view.size

    def regions(self, boxes: FloatArray) -> RegionFeatures:
        return self.known if boxes is self.boxes else self.view.regions(boxes)

    def refine(
        self, refiner: ClassRefiner, regions: RegionFeatures, rows: IntArray, labels: IntArray
    ) -> FloatArray:
        return self.view.refine(refiner, regions, rows, labels)


@torch.inference_mode()
def region_features(
    view: AugmentedImage, boxes: FloatArray, lap: Callable[[str], None]
) -> RegionFeatures:
    """Compute regions as `AugmentedImage.regions` does, calling `lap` after each layer."""
    head, maps, layers = view.head, view.maps, {}
    own = view.augmentation.boxes(boxes, view.size[0])
    vector = maps.image_vector().numpy()
    if "pool" in (head.config.svm_layer, head.config.regression_layer):
        pooled = head.pooler.pool(maps, own)
        lap("pool")
        layers["pool"] = pooled.numpy()
        fc6 = head.fc6_from_pooled(pooled)
    else:
        fc6 = torch.relu(head.fc6_response(maps, own))
    lap("pool, fc6")
    layers["fc6"], layers["fc7"] = fc6.numpy(), head.fc7_from_fc6(fc6).numpy()
    lap("fc7")
    average = None
    if has_averages(head.pooler):
        average = functools.partial(region_averages, head.pooler, maps, own)
    return RegionFeatures(own, view.size, layers, vector, average)
