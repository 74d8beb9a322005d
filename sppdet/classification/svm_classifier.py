"""Linear SVMs on features of whole images (He et al. 2014, sec. 4).

Each class is decided by itself, so an image may have any number of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sppdet.classification.config import SvmClassifierConfig
from sppdet.classification.image_features import ImageFeatureExtractor, extract_features
from sppdet.classification.image_svms import train_svms
from sppdet.core.errors import TrainingError, raise_for_images
from sppdet.core.model_file import (
    SVM_CLASSIFIER,
    ModelHeader,
    check_arrays,
    check_backbone,
    check_config,
    load_model,
    save_model,
)
from sppdet.core.progress import NullProgress, Progress
from sppdet.core.settings import from_dict, to_dict
from sppdet.core.types import FloatArray, IntArray
from sppdet.heads.svm import LinearSvms
from sppdet.media.image_inputs import ImageInput, as_image


class SvmClassifier:
    """Linear SVMs on features of whole images: the classes that are in an image.

    Attributes:
        classes: the class names, in the order of the scores.
        config: all settings of its training.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        config: SvmClassifierConfig,
        extractor: ImageFeatureExtractor,
        svms: LinearSvms,
    ) -> None:
        self.classes, self.config = classes, config
        self.extractor, self.svms = extractor, svms

    @classmethod
    def load(cls, source: str | Path, *, device: str = "cpu") -> SvmClassifier:
        """Load the classifier in a model file.

        Raises ModelFormatError when the file is missing, damaged, of another version or kind, or
        was trained on a backbone whose installed weights differ.
        """
        path = Path(source)
        header, tensors = load_model(path, SVM_CLASSIFIER)
        with check_config(header, path):
            config = from_dict(SvmClassifierConfig, header.config)
            # Nothing is fetched because a file says so.
            features = config.features.replace(download=False)
            extractor = ImageFeatureExtractor(features, seed=config.seed, device=device)
        check_backbone(header, extractor.weights_digest, path)
        with check_arrays(path):
            svms = LinearSvms(**tensors)
            if svms.weights.shape != (len(header.classes), extractor.dim):
                raise ValueError(f"weights have shape {svms.weights.shape}")
        return cls(header.classes, config, extractor, svms)

    def save(self, path: Path, *, description: str, provenance: dict[str, object]) -> None:
        """Write one model file, atomically."""
        header = ModelHeader(
            classes=self.classes,
            config=to_dict(self.config),
            backbone=self.config.features.backbone,
            backbone_digest=self.extractor.weights_digest,
            description=description,
            provenance=provenance,
            kind=SVM_CLASSIFIER,
        )
        names = ("weights", "bias", "trained", "converged")
        save_model(path, header, {name: getattr(self.svms, name) for name in names})

    def scores(self, image: ImageInput) -> FloatArray:
        """Compute `float32 (K,)` SVM margins, above 0 where the class is likely there.

        `image` is whatever `media.as_image` takes. An untrained class scores minus infinity.
        Raises ImageError as `as_image`.
        """
        margins: FloatArray = self.view_scores(self.extractor(as_image(image))[None])[0]
        return margins

    def view_scores(self, rows: FloatArray) -> FloatArray:
        """Compute `float32 (N, K)` of images' vectors `(N, views, dim)`.

        The whole image's margins, and the best window's times its weight.
        """
        config = self.config.features
        whole = self.svms.decision_function(rows[:, 0])
        if not config.windows:
            return whole
        windows = self.svms.decision_function(rows[:, 1:].reshape(-1, rows.shape[2]))
        best = windows.reshape(len(rows), config.windows**2, -1).max(axis=1)
        # Minus infinity, the score of an untrained class, times a weight of 0 would be nan.
        best[:, ~self.svms.trained] = 0.0
        margins: FloatArray = whole + np.float32(config.window_weight) * best
        return margins


def train_svm_classifier(
    config: SvmClassifierConfig,
    classes: tuple[str, ...],
    paths: Sequence[Path],
    labels: IntArray,
    *,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
) -> tuple[SvmClassifier, dict[str, object]]:
    """Train a classifier; also returns facts for its file's provenance.

    Args:
        labels: `int64 (N, K)`: 1 where the class is in the image, -1 where it is not, 0 where the
            image is left out of the class.
        cache_dir: keeps features by content.

    Raises TrainingError naming images that cannot be read, or when there are none.
    """
    extractor = ImageFeatureExtractor(config.features, seed=config.seed, device=device)
    progress = NullProgress() if progress is None else progress
    rows, errors = extract_features(paths, extractor, cache_dir, progress)
    raise_for_images(list(errors.values()), len(paths))
    if not len(rows):
        raise TrainingError("there are no images to train on", hint="name a folder with images")
    svms, c, figures = train_svms(rows[:, 0], labels, config.svm, config.seed, progress)
    facts: dict[str, object] = {
        "images": len(paths),
        "c": c,
        "held_out_map": figures,
        "untrained": [name for name, ok in zip(classes, svms.trained, strict=True) if not ok],
        "unconverged": [
            name
            for name, trained, ok in zip(classes, svms.trained, svms.converged, strict=True)
            if trained and not ok
        ],
    }
    return SvmClassifier(classes, config, extractor, svms), facts
