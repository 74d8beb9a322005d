"""Files made of images: each of its own, nothing else is written over."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sppdet.core.errors import OutputError
from sppdet.core.images import read_image
from sppdet.core.types import Detections, ImageArray
from sppdet.outputs.drawing import draw_detections
from sppdet.outputs.pictures import Crops, Drawings, PictureFormat, safe_name
from sppdet.outputs.records import Source, detection_record
from tests.helpers.sources import CLASSES, detections, source
from tests.helpers.sources import Source as Plain


def image(shade: int = 128, width: int = 60, height: int = 60) -> ImageArray:
    return np.full((height, width, 3), shade, np.uint8)


NONE = detections(0)


def draw_all(folder: Path, sources: Sequence[Source], format: PictureFormat = "png") -> None:
    """Draw image after image; the shade tells which is which."""
    drawings = Drawings(folder, format)
    for number, one in enumerate(sources):
        drawings.write(one, image(number), NONE)


def shades(folder: Path) -> dict[str, int]:
    return {path.name: int(read_image(path)[0, 0, 0]) for path in folder.iterdir()}


def test_names_that_meet_the_made_ones(tmp_path: Path) -> None:
    names = ("x/a.jpg", "y/a.png", "z/a~2.png", "w/a~2~2.gif", "v/A.jpg")
    sources = [source(tmp_path / name) for name in names]
    for _ in range(2):  # the second time each takes its own place
        draw_all(tmp_path / "out", sources)
        assert shades(tmp_path / "out") == {
            "a.png": 0,
            "a~2.png": 1,
            "a~2~2.png": 2,
            "a~2~2~2.png": 3,
            "A.png": 4,
        }


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(
        st.tuples(st.sampled_from("xyz"), st.sampled_from(("a", "a~2", "a~2~2", "b", "猫" * 84))),
        unique=True,
        max_size=9,
    ),
    data=st.data(),
)
def test_every_image_has_one_drawing_in_any_order_of_runs(
    names: list[tuple[str, str]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    sources = [Plain(f"/{folder}/{place}/{stem}.jpg") for place, stem in names]
    sources = [Plain(one.name, Path(one.name)) for one in sources]
    for _ in range(2):
        some = data.draw(st.lists(st.sampled_from(sources), unique=True)) if sources else []
        drawings = Drawings(folder / "out", "png")
        for one in some:
            drawings.write(one, image(), NONE)
    draw_all(folder / "out", sources)
    found = sorted(shades(folder / "out").values()) if sources else []
    assert found == list(range(len(sources)))
    again = Drawings(folder / "out", "png")
    assert all(again.has(one, {"detections": []}) for one in sources)


@pytest.mark.parametrize("kind", ["picture", "folder", "link", "empty"])
def test_what_is_not_ours_is_left_alone(tmp_path: Path, kind: str) -> None:
    out, other = tmp_path / "out", tmp_path / "out" / "a.jpg"
    out.mkdir()
    if kind == "folder":
        other.mkdir()
    elif kind == "link":
        other.symlink_to(tmp_path / "nowhere.jpg")
    elif kind == "empty":
        other.touch()
    else:
        Image.fromarray(image(9)).save(other)
    one = source(tmp_path / "a.jpg")
    before = None if kind in ("folder", "link") else other.read_bytes()
    drawings = Drawings(out)
    assert not drawings.has(one, {})
    drawings.write(one, image(200), NONE)
    assert drawings.has(one, {})
    assert Drawings(out).has(one, {})
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "a~2.jpg"]
    assert before is None or other.read_bytes() == before
    assert not (tmp_path / "nowhere.jpg").exists()


def test_drawings_hold_what_was_drawn(tmp_path: Path) -> None:
    one, found = source(tmp_path / "a.jpg"), detections(4)
    Drawings(tmp_path / "png", "png").write(one, image(), found)
    assert np.array_equal(read_image(tmp_path / "png" / "a.png"), draw_detections(image(), found))
    Drawings(tmp_path / "jpeg").write(one, image(), found)
    assert Image.open(tmp_path / "jpeg" / "a.jpg").format == "JPEG"


def test_the_marks_do_not_tell_where_an_image_lay(tmp_path: Path) -> None:
    one = source(tmp_path / "secret place" / "a.jpg")
    Drawings(tmp_path / "out").write(one, image(), NONE)
    assert b"secret" not in (tmp_path / "out" / "a.jpg").read_bytes()


def test_crops_hold_every_pixel_of_their_box(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    # Smooth, so that JPEG changes little.
    pixels = np.repeat(np.repeat(rng.integers(0, 256, (6, 5, 3), np.uint8), 16, 0), 16, 1)
    boxes = np.array([[16, 16, 48, 64], [-3.5, 0.5, 15.2, 99], [70, 90, 70, 90]], np.float32)
    scores, labels = np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 2, 0])
    found = Detections(boxes, scores, labels, CLASSES)
    one, crops = source(tmp_path / "a.jpg"), Crops(tmp_path / "out")
    record = detection_record(pixels, found)
    assert not crops.has(one, record)
    crops.write(one, pixels, found)
    assert crops.has(one, record)
    expected = {
        "cat/a-1.jpg": pixels[16:64, 16:48],
        "кот/a-2.jpg": pixels[0:96, 0:16],
        "cat/a-3.jpg": pixels[90:91, 70:71],
    }
    made = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.jpg")}
    assert made == expected.keys()
    for name, crop in expected.items():
        read = read_image(tmp_path / "out" / name)
        assert read.shape == crop.shape
        assert np.abs(read.astype(int) - crop).mean() < 6
    crops.write(one, pixels, found)
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 3


@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_any_class_can_be_a_folder(name: str) -> None:
    safe = safe_name(name)
    assert safe not in ("", ".", "..")
    assert not set(safe) & set('/\\:*?"<>|\0\n')
    assert len(os.fsencode(safe)) <= 255


def test_a_drawing_too_large_for_jpeg_says_what_holds_it(tmp_path: Path) -> None:
    one, wide = source(tmp_path / "a.jpg"), image(0, 65_600, 1)
    with pytest.raises(OutputError, match="--format png"):
        Drawings(tmp_path / "out").write(one, wide, NONE)
    Drawings(tmp_path / "out", "png").write(one, wide, NONE)
    assert (tmp_path / "out" / "a.png").is_file()
