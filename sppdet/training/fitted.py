"""What is fitted to all images at once: box regressors and scene classifier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import numpy as np

from sppdet.config import to_dict
from sppdet.files import config_digest, sha256
from sppdet.head import RegionHead
from sppdet.regression import BoxRegressors, RidgeCollector
from sppdet.scene import SceneClassifier, fit_scenes
from sppdet.training.job import Job
from sppdet.training.overview import Overview
from sppdet.training.statistics import norm_scale
from sppdet.training.store import as_tensors

Linear = TypeVar("Linear", BoxRegressors, SceneClassifier)
# The arrays that either is made of.
FIELDS = ("weights", "bias", "trained")


class Fitted(ABC, Generic[Linear]):
    """A stage that learns from one look over all images, unless its result was saved before."""

    def __init__(
        self,
        kind: type[Linear],
        label: str,
        stage: str,
        job: Job,
        key: str,
    ) -> None:
        self._store, self._stage, self._key = job.store, stage, key
        self._found: Linear | None = None
        done = job.store.load(stage, key)
        if done is not None:
            self._found = kind(**{name: value.numpy() for name, value in done.items()})
            job.progress.say(f"{label}: unchanged, taken from the run's folder")

    @property
    def needed(self) -> bool:
        """Whether nothing was saved for these inputs."""
        return self._found is None

    @abstractmethod
    def see(self, seen: Overview) -> None:
        """Learns from one image."""

    @abstractmethod
    def _fit(self) -> Linear:
        """The result, when all images were seen."""

    def finish(self) -> None:
        """Fits and saves."""
        self._found = self._fit()
        arrays = {name: getattr(self._found, name) for name in FIELDS}
        self._store.save(self._stage, self._key, as_tensors(arrays))

    def result(self) -> Linear:
        """What was fitted, now or before."""
        assert self._found is not None
        return self._found


class RegressorStage(Fitted[BoxRegressors]):
    """One box regressor a class, on regions that overlap an object well (release)."""

    def __init__(self, job: Job, head: RegionHead, upstream: str) -> None:
        settings = job.config.regression
        key = sha256(upstream, config_digest(to_dict(settings)), "regression")
        super().__init__(BoxRegressors, "box regressors", "regression", job, key)
        self._layer = settings.layer
        self._collector: RidgeCollector | None = None
        if self.needed:
            scale = norm_scale(
                head, settings.layer, job.data, settings.feature_norm, job.config.seed
            )
            n_classes, dim = len(job.data.dataset.classes), head.layer_width(settings.layer)
            self._collector = RidgeCollector(n_classes, dim, settings, scale)

    def see(self, seen: Overview) -> None:
        """Takes the regions close to objects as samples."""
        near = seen.near
        if not len(near.boxes):
            return
        assert self._collector is not None
        features = seen.features.layer(self._layer)
        targets, labels = near.objects[near.match], near.labels[near.match]
        where = seen.sample.image_id
        self._collector.add(features, near.boxes, targets, labels, where=where)

    def _fit(self) -> BoxRegressors:
        assert self._collector is not None
        return self._collector.finish()


class SceneStage(Fitted[SceneClassifier]):
    """What tells from a whole image which classes it shows."""

    def __init__(self, job: Job, head: RegionHead, upstream: str) -> None:
        self._settings = job.config.scene
        key = sha256(upstream, config_digest(to_dict(self._settings)), "scene")
        super().__init__(SceneClassifier, "scenes", "scene", job, key)
        count = len(job.data.dataset) if self.needed else 0
        self._scenes = np.zeros((count, head.scene_width()), np.float32)
        self._shown = np.zeros((count, len(job.data.dataset.classes)), np.bool_)

    def see(self, seen: Overview) -> None:
        """Takes the image's scene vector and classes."""
        scene = seen.features.scene
        assert scene is not None
        self._scenes[seen.place] = scene
        self._shown[seen.place, seen.sample.labels] = True

    def _fit(self) -> SceneClassifier:
        return fit_scenes(self._scenes, self._shown, self._settings)
