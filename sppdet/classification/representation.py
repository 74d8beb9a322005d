"""The paper's representation of images and linear SVMs on it (He et al. 2014, sec. 4).

Each class is decided by itself, so an image may have any number of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sppdet.classification.features import FeatureStore, ImageFeatures, RepresentationConfig
from sppdet.classification.image_svms import ImageSvmConfig, train_svms
from sppdet.errors import (
    ConfigError,
    ImageError,
    ModelFormatError,
    SppdetError,
    TrainingError,
)
from sppdet.files import sha256
from sppdet.images import MAX_PIXELS, as_image, read_image
from sppdet.modelfile import SVM_CLASSIFIER, ModelHeader, load_model, save_model
from sppdet.modelnames import resolve_model
from sppdet.prefetch import ahead
from sppdet.progress import NullProgress, Progress
from sppdet.settings import from_dict, to_dict
from sppdet.svm import LinearSvms
from sppdet.types import FloatArray, ImageArray, IntArray

# How many broken images an error names.
NAMED = 5


@dataclass(frozen=True)
class SvmClassifierConfig:
    """Everything that decides what is trained and how it scores."""

    # What an image's vector is.
    representation: RepresentationConfig = field(default_factory=RepresentationConfig)
    # One linear SVM a class.
    svm: ImageSvmConfig = field(default_factory=ImageSvmConfig)
    # Draws the held-out images, the solver's order, and weights that are not pretrained.
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}", mend="give 0 or a positive whole number")


class SvmClassifier:
    """Linear SVMs on the features of whole images: which classes are in an image.

    Attributes:
        classes: the class names, in the order of the scores.
        config: everything it was trained with.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        config: SvmClassifierConfig,
        features: ImageFeatures,
        svms: LinearSvms,
    ) -> None:
        self.classes, self.config = classes, config
        self.features, self.svms = features, svms

    @classmethod
    def load(cls, source: str | Path, *, device: str = "cpu") -> SvmClassifier:
        """The classifier in a model file.

        Raises ModelFormatError when the file is missing, damaged, of another version or kind, or
        was trained on a backbone whose installed weights differ.
        """
        path = resolve_model(source)
        header, tensors = load_model(path, SVM_CLASSIFIER)
        config = from_dict(SvmClassifierConfig, header.config, where=path)
        features = ImageFeatures(config.representation, seed=config.seed, device=device)
        if features.weights_digest != header.backbone_digest:
            raise ModelFormatError(
                f"was trained on other weights of {header.backbone} than those installed",
                where=path,
                mend="install the package versions named in its header, or train again",
            )
        try:
            svms = LinearSvms(**tensors)
            if svms.weights.shape != (len(header.classes), features.dim):
                raise ValueError(f"weights have shape {svms.weights.shape}")
        except (TypeError, ValueError) as error:
            raise ModelFormatError(
                f"its arrays do not fit its config: {error}", where=path, mend="train again"
            ) from error
        return cls(header.classes, config, features, svms)

    def save(self, path: Path, *, description: str, provenance: dict[str, object]) -> None:
        """Writes one model file, atomically."""
        header = ModelHeader(
            classes=self.classes,
            config=to_dict(self.config),
            backbone=self.config.representation.backbone,
            backbone_digest=self.features.weights_digest,
            description=description,
            provenance=provenance,
            kind=SVM_CLASSIFIER,
        )
        names = ("weights", "bias", "trained", "converged")
        save_model(path, header, {name: getattr(self.svms, name) for name in names})

    def scores(self, image: str | Path | ImageArray) -> FloatArray:
        """`float32 (K,)` SVM margins, above 0 where the class is likely there.

        `image` is a file or an RGB array `uint8 (H, W, 3)`. An untrained class scores minus
        infinity. Raises ImageError when a file cannot be read or an array is of another type or
        shape.
        """
        found: FloatArray = self.view_scores(self.features(as_image(image))[None])[0]
        return found

    def view_scores(self, rows: FloatArray) -> FloatArray:
        """`float32 (N, K)` of images' vectors `(N, views, dim)`, as `ImageFeatures` gives them.

        The whole image's margins, and the best window's times its weight.
        """
        config = self.config.representation
        whole = self.svms.scores(rows[:, 0])
        if not config.windows:
            return whole
        windows = self.svms.scores(rows[:, 1:].reshape(-1, rows.shape[2]))
        best = windows.reshape(len(rows), config.windows**2, -1).max(axis=1)
        # Minus infinity, the score of an untrained class, times a weight of 0 would be nan.
        best[:, ~self.svms.trained] = 0.0
        joined: FloatArray = whole + np.float32(config.window_weight) * best
        return joined


def extract(
    paths: Sequence[Path],
    features: ImageFeatures,
    cache: Path | None,
    progress: Progress,
    *,
    max_pixels: int = MAX_PIXELS,
) -> tuple[FloatArray, dict[int, SppdetError]]:
    """`float32 (N, views, dim)` of image files, and the errors of those that cannot be read.

    The rows of unreadable images are zeros. With `cache`, blocks are kept in that folder and
    found there again.
    """
    store = None if cache is None else FeatureStore(cache, features)
    rows = np.zeros((len(paths), features.config.views, features.dim), np.float32)
    errors: dict[int, SppdetError] = {}

    def read(index: int) -> FloatArray | tuple[str, ImageArray] | SppdetError:
        """What the disk gives, on another thread: kept features, else the image's pixels."""
        try:
            digest = "" if store is None else sha256(paths[index].read_bytes())
            kept = None if store is None else store.load(digest)
            if kept is not None:
                return kept
            return digest, read_image(paths[index], max_pixels=max_pixels)
        except SppdetError as error:
            return error
        except OSError as error:
            return ImageError(
                f"cannot be read ({error.strerror})", where=paths[index], mend="check the path"
            )

    with progress.task("image features", len(paths)) as advance:
        for index, found in ahead(range(len(paths)), read):
            if isinstance(found, SppdetError):
                errors[index] = found
            elif isinstance(found, tuple):
                digest, image = found
                rows[index] = features(image) if store is None else store.compute(digest, image)
            else:
                rows[index] = found
            advance(1)
    return rows, errors


def train_svm_classifier(
    config: SvmClassifierConfig,
    classes: tuple[str, ...],
    paths: Sequence[Path],
    labels: IntArray,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
) -> tuple[SvmClassifier, dict[str, object]]:
    """A classifier, and the facts of its training for its file's provenance.

    Args:
        labels: `int64 (N, K)`: 1 where the class is in the image, -1 where it is not, 0 where the
            image is left out of the class.
        cache: a folder that keeps features by content.

    Raises TrainingError naming images that cannot be read, or when there are none.
    """
    features = ImageFeatures(config.representation, seed=config.seed, device=device)
    progress = NullProgress() if progress is None else progress
    rows, errors = extract(paths, features, cache, progress)
    if errors:
        named = "; ".join(str(error) for error in list(errors.values())[:NAMED])
        raise TrainingError(
            f"{len(errors)} of {len(paths)} images cannot be used: {named}",
            mend="mend them or take them out",
        )
    if not len(rows):
        raise TrainingError("there are no images to train on", mend="name a folder with images")
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
    return SvmClassifier(classes, config, features, svms), facts
