"""Every form of an image that Python holds gives the pixels of the same image as an array."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from sppdet.core.errors import ImageError
from sppdet.media import as_image
from sppdet.media.image_inputs import is_single

RGB = np.random.RandomState(0).randint(0, 256, (11, 17, 3)).astype(np.uint8)
Pixels = NDArray[np.uint8]

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4]))
ANY_PIXELS = SHAPES.flatmap(lambda shape: arrays.arrays(np.uint8, shape))


def as_png(pixels: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()


def over_white(pixels: Pixels) -> NDArray[np.float64]:
    """The colors that should be seen, by the formula of Porter and Duff."""
    values = pixels.astype(float)
    if pixels.shape[2] < 4:
        return np.broadcast_to(values, (*pixels.shape[:2], 3))
    alpha = values[:, :, 3:] / 255
    seen: NDArray[np.float64] = values[:, :, :3] * alpha + 255 * (1 - alpha)
    return seen


@given(ANY_PIXELS)
@settings(deadline=None)
def test_every_form_gives_the_same_pixels(pixels: Pixels) -> None:
    expected = as_image(pixels)
    assert expected.dtype == np.uint8
    assert expected.shape == (*pixels.shape[:2], 3)
    np.testing.assert_allclose(expected, over_white(pixels), atol=1)
    data = as_png(pixels)
    # The channels of a 1, 3 or 4 pixels wide image are the first axis of a tensor, as documented.
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    forms: dict[str, Any] = {
        "bytes": data,
        "bytearray": bytearray(data),
        "memoryview": memoryview(data),
        "file object": io.BytesIO(data),
        "Pillow": Image.open(io.BytesIO(data)),
        "read-only": np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape),
        "upside down twice": pixels[::-1].copy()[::-1],
        "column by column": np.asfortranarray(pixels),
        "double": pixels / 255,
        "float": pixels.astype(np.float32) / np.float32(255),
        "half": (pixels / 255).astype(np.float16),
        "tensor": tensor,
        "tensor in memory order": tensor.contiguous(),
        "float tensor": tensor / 255,
        "half tensor": tensor.to(torch.float64).div(255).half(),
        "tensor with a gradient": (tensor / 255).requires_grad_(),
    }
    if pixels.shape[2] == 1:
        forms |= {"(H, W)": pixels[:, :, 0], "tensor (H, W)": tensor[0]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.png"
        path.write_bytes(data)
        forms |= {"path": path, "str": str(path)}
        with path.open("rb") as stream:
            forms["open file"] = stream
            for form, value in forms.items():
                assert is_single(value), form
                found = as_image(value)
                np.testing.assert_array_equal(found, expected, err_msg=form)
                assert found.flags.c_contiguous, form


def test_an_rgb_array_comes_back_as_it_is() -> None:
    assert as_image(RGB) is RGB


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_modes_of_pillow(mode: str) -> None:
    plain = Image.fromarray(RGB)
    image = plain.convert(mode)
    before = image.copy()
    found = as_image(image)
    assert found.shape == RGB.shape
    np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))
    assert image == before


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pillow_image_is_turned_as_its_file_is(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.jpg", "a.tiff"):
        path = tmp_path / name
        Image.fromarray(RGB).save(path, exif=exif)
        with Image.open(path) as image:
            size = image.size
            np.testing.assert_array_equal(as_image(image), as_image(path))
            assert image.size == size or name == "a.tiff"  # which Pillow turns itself


def test_16_bit_pillow_images_keep_their_high_byte() -> None:
    samples = np.random.RandomState(2).randint(0, 65536, (5, 7)).astype(np.uint16)
    found = as_image(Image.fromarray(samples))
    np.testing.assert_array_equal(found, np.repeat((samples >> 8)[:, :, None], 3, axis=2))


@given(st.integers(5, 9), st.integers(5, 9), st.sampled_from([1, 3, 4]), st.integers(0, 99))
@settings(deadline=None)
def test_a_shape_that_can_only_be_meant_otherwise_is_taken_so(
    height: int, width: int, channels: int, seed: int
) -> None:
    shape = (height, width, channels)
    pixels = np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)
    expected = as_image(pixels)
    np.testing.assert_array_equal(as_image(torch.from_numpy(pixels)), expected)
    np.testing.assert_array_equal(as_image(pixels.transpose(2, 0, 1)), expected)


FLOAT = "give uint8 from 0 to 255, or floats in [0, 1]"
REFUSED: list[tuple[Any, str]] = [
    (None, "an image of type NoneType; give a path, bytes"),
    (3, "an image of type int"),
    ("", "an empty path"),
    (b"", "image bytes: empty (0 bytes)"),
    (b"no image", "image bytes: not an image of an accepted format; use one of JPEG"),
    (as_png(RGB)[:-40], "image bytes: the image is truncated"),
    (io.StringIO("text"), "is read as text, not as bytes; open it with open(path, 'rb')"),
    (io.BytesIO(), "has nothing left to read; go back to its beginning with seek(0)"),
    (np.zeros((5, 5, 2), np.uint8), "of type uint8 and shape (5, 5, 2)"),
    (np.zeros(5, np.uint8), "shape (5,)"),
    (np.zeros((2, 4, 5, 3), np.uint8), "shape (2, 4, 5, 3); give list(batch)"),
    (np.zeros((0, 5, 3), np.uint8), "shape (0, 5, 3), without pixels"),
    (np.zeros((4, 5), np.uint16), f"array of type uint16; {FLOAT}"),
    (np.zeros((4, 5), bool), f"array of type bool; {FLOAT}"),
    (np.zeros((4, 5), np.complex64), "array of type complex64"),
    (np.full((4, 5), -0.5), f"with values from -0.5 to -0.5; {FLOAT}"),
    (np.full((4, 5), 1.01), f"with values from 1.01 to 1.01; {FLOAT}"),
    (np.full((4, 5), 254.0), "with values from 254 to 254; divide them by 255"),
    (np.array([[0.5, np.nan]]), "with NaN"),
    (np.array([[0.5, np.inf]]), "with values from 0.5 to inf"),
    (torch.zeros(3, 4, 5, dtype=torch.int64), f"tensor of type int64; {FLOAT}"),
    (torch.zeros(3, 4, 5) - 1, "an image tensor of type float32 with values from -1 to -1"),
    (torch.zeros(2, 3, 4, 5), "tensor of type float32 and shape (2, 3, 4, 5); give list(batch)"),
    (torch.zeros(3, 4, 5).to_sparse(), "a tensor of type torch.float32"),
    (Image.fromarray(np.zeros((4, 5), np.float32)), "Pillow image: has 32-bit samples"),
    ("http://example.org/a.jpg", "is not an https:// address"),
    ("FTP://example.org/a.jpg", "is not an https:// address"),
    ("https:/example.org/a.jpg", "no such image file"),
    (Path("https://example.org/a.jpg"), "no such image file"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED)
def test_what_is_refused_is_named_with_a_remedy(value: Any, message: str) -> None:
    with pytest.raises(ImageError, match=re.escape(message)) as caught:
        as_image(value)
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


def test_a_bfloat16_tensor_is_as_near_as_it_can_be() -> None:
    found = as_image((torch.from_numpy(RGB) / 255).to(torch.bfloat16))
    assert np.abs(found.astype(int) - RGB).max() <= 1  # 8 bits of mantissa


def test_the_cap_holds_for_all_forms(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(as_png(RGB))
    tensor = torch.from_numpy(RGB).permute(2, 0, 1)
    forms: list[Any] = [path, path.read_bytes(), io.BytesIO(path.read_bytes()), RGB, tensor]
    for value in (*forms, Image.fromarray(RGB), Image.open(path)):
        with pytest.raises(ImageError, match=r"exceeds the cap of 186 pixels"):
            as_image(value, max_pixels=186)
    for value in (path, RGB, tensor):
        assert as_image(value, max_pixels=187).shape == RGB.shape


def test_closed_and_write_only_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with path.open("wb") as stream, pytest.raises(ImageError, match=r"a\.png: cannot be read"):
        as_image(stream)
    with pytest.raises(ImageError, match=r"a\.png: cannot be read"):
        as_image(stream)


def test_a_file_object_is_read_from_where_it_stands() -> None:
    stream = io.BytesIO(b"head" + as_png(RGB))
    stream.seek(4)
    np.testing.assert_array_equal(as_image(stream), RGB)


def test_lists_are_no_single_image() -> None:
    assert not any(map(is_single, ([], (RGB,), {1: RGB}.values(), iter([RGB]), [RGB] * 2)))


def test_torch_is_not_imported_to_look_at_other_inputs() -> None:
    code = (
        "import sys, numpy as np\n"
        "from sppdet.media import as_image\n"
        "as_image(np.zeros((4, 5)))\n"
        "try:\n    as_image(None)\nexcept Exception:\n    pass\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
