"""Small photos, and a detector that was made and not trained, in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.made_detector import make_detector, picture

IMAGES = 5


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, one of them broken, not to be changed."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(IMAGES):
        Image.fromarray(picture(seed=number)).save(folder / f"{number}.png")
    broken = folder / "2.png"
    broken.write_bytes(broken.read_bytes()[:40])
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that finds something in each of the photos."""
    path = tmp_path_factory.mktemp("made") / "model.safetensors"
    detector = make_detector("detection.margin_threshold=-2.0")
    detector.save(path, description="made", provenance={})
    return path
