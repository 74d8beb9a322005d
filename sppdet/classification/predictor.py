"""Either kind of image classifier behind one interface: a trained network, or SVMs on features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sppdet.classification.classifier import Classifier
from sppdet.classification.multi_view import ViewSet
from sppdet.classification.svm_classifier import SvmClassifier
from sppdet.core.errors import ConfigError
from sppdet.core.model_file import SVM_CLASSIFIER, read_header
from sppdet.core.types import FloatArray, ImageArray


@dataclass(frozen=True, slots=True)
class ImagePredictor:
    """Scores the classes of an image.

    Attributes:
        classes: class names, in the order of the scores.
        scores: from an RGB image `uint8 (H, W, 3)` to `float32 (K,)`.
        unit: of the scores: `probability`, or `margin` of an SVM.
    """

    classes: tuple[str, ...]
    scores: Callable[[ImageArray], FloatArray]
    unit: str


def load_predictor(
    source: str | Path, *, views: ViewSet | None = None, device: str = "cpu"
) -> ImagePredictor:
    """Load the classifier in a model file; a network tests on `views`, if they are given.

    Raises ModelFormatError as `Classifier.load`, ConfigError for views where SVMs take none.
    """
    path = Path(source)
    if read_header(path).kind != SVM_CLASSIFIER:
        network = Classifier.load(path, device=device)
        return ImagePredictor(
            network.classes, lambda image: network.probabilities(image, views), "probability"
        )
    svms = SvmClassifier.load(path, device=device)
    if views is not None:
        raise ConfigError(
            "SVMs on image features see images as they were trained to",
            path=path,
            hint="leave out --views",
        )
    return ImagePredictor(svms.classes, svms.scores, "margin")
