"""Sizes from headers, and what EXIF turns do to annotations of other tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppdet.core.images import read_image
from sppdet.core.types import Sample
from sppdet.datasets.image_sizes import measure_images, turn_box
from sppdet.datasets.load import load_dataset
from sppdet.datasets.raw import (
    MISSING_IMAGE,
    STATED_SIZE,
    TURNED_SIZE,
    UNCLEAR_TURN,
    Findings,
    RawImage,
)
from tests.helpers.made_voc import annotation, write_image

# Stored 160 x 120, upright 120 x 160.
UPRIGHT_ONLY = "11 101 50 150"
STORED_ONLY = "101 11 150 50"
BOTH = "11 21 50 60"


def load(
    folder: Path, *boxes: str, orientation: int = 6, size: tuple[int, int] = (160, 120)
) -> tuple[list[Sample], Findings]:
    for n, box in enumerate(boxes):
        write_image(folder / f"{n}.jpg", orientation=orientation)
        (folder / f"{n}.xml").write_text(annotation(("cat", box), size=size))
    findings = Findings()
    return list(load_dataset(folder, findings=findings)), findings


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_turn_with_their_pixels(tmp_path: Path, orientation: int) -> None:
    """A bright patch is where the turned box says it is."""
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[10:40, 100:148] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    upright = read_image(tmp_path / "a.png")
    x1, y1, x2, y2 = (int(v) for v in turn_box((100, 10, 148, 40), 160, 120, orientation))
    assert (upright[y1:y2, x1:x2] == 255).all()
    assert upright.sum() == (x2 - x1) * (y2 - y1) * 3 * 255
    with pytest.raises(ValueError, match="orientation 3"):
        turn_box((0, 0, 1, 1), 2, 2, 3)


def test_one_clear_image_tells_how_the_tool_draws(tmp_path: Path) -> None:
    samples, findings = load(tmp_path / "upright", UPRIGHT_ONLY, BOTH)
    assert [s.boxes.tolist() for s in samples] == [[[10, 100, 50, 150]], [[10, 20, 50, 60]]]
    assert dict(findings.counts()) == {TURNED_SIZE: 2}
    assert (samples[0].width, samples[0].height) == (120, 160)
    samples, findings = load(tmp_path / "stored", STORED_ONLY, BOTH)
    assert [s.boxes.tolist() for s in samples] == [[[70, 100, 110, 150]], [[60, 10, 100, 50]]]
    assert dict(findings.counts()) == {TURNED_SIZE: 2}
    assert (samples[0].width, samples[0].height) == (120, 160)


@pytest.mark.parametrize("boxes", [[BOTH], [UPRIGHT_ONLY, BOTH, STORED_ONLY]])
def test_what_cannot_be_told_is_named(tmp_path: Path, boxes: list[str]) -> None:
    samples, findings = load(tmp_path, *boxes)
    assert findings.counts()[UNCLEAR_TURN] == 1
    place = boxes.index(BOTH)
    assert samples[place].boxes.tolist() == [[10, 20, 50, 60]]


@pytest.mark.parametrize(("orientation", "size"), [(6, (120, 160)), (3, (160, 120)), (1, (0, 0))])
def test_right_sizes_are_nothing_to_tell(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    _, findings = load(tmp_path, BOTH, orientation=orientation, size=size)
    assert findings.lines() == []


def test_sides_in_the_wrong_order(tmp_path: Path) -> None:
    samples, findings = load(tmp_path, STORED_ONLY, orientation=1, size=(120, 160))
    assert dict(findings.counts()) == {STATED_SIZE: 1}
    assert samples[0].boxes.tolist() == [[100, 10, 150, 50]]


def test_many_stated_sizes_are_trusted_but_not_that_images_exist(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    images = [
        RawImage(name, tmp_path / f"{name}.jpg", tmp_path / "all.json", (7, 5)) for name in "ab"
    ]
    findings = Findings()
    (one,) = measure_images(images, findings, max_headers=1)
    assert (one.image, one.size) == (images[0], (7, 5))
    assert dict(findings.counts()) == {MISSING_IMAGE: 1}
