"""Either kind of image classifier behind one face: a trained network, or SVMs on features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sppdet.classification.classifier import Classifier
from sppdet.classification.representation import SvmClassifier
from sppdet.classification.views import Views
from sppdet.errors import ConfigError
from sppdet.modelfile import SVM_CLASSIFIER, read_header
from sppdet.modelnames import resolve_model
from sppdet.types import FloatArray, ImageArray


@dataclass(frozen=True, slots=True)
class ImageScorer:
    """What scores the classes of an image.

    Attributes:
        classes: class names, in the order of the scores.
        scores: from an RGB image `uint8 (H, W, 3)` to `float32 (K,)`.
        unit: what a score is: `probability`, or `margin` of an SVM.
    """

    classes: tuple[str, ...]
    scores: Callable[[ImageArray], FloatArray]
    unit: str


def load_scorer(
    source: str | Path, *, views: Views | None = None, device: str = "cpu"
) -> ImageScorer:
    """The classifier in a model file; a network looks at images by `views`, if they are given.

    Raises ModelFormatError as `Classifier.load`, ConfigError for views where SVMs take none.
    """
    path = resolve_model(source)
    if read_header(path).kind != SVM_CLASSIFIER:
        network = Classifier.load(path, device=device)
        return ImageScorer(
            network.classes, lambda image: network.probabilities(image, views), "probability"
        )
    svms = SvmClassifier.load(path, device=device)
    if views is not None:
        raise ConfigError(
            "SVMs on image features see images as they were trained to",
            where=path,
            mend="leave out --views",
        )
    return ImageScorer(svms.classes, svms.scores, "margin")
