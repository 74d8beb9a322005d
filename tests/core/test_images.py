"""Reading images: right pixels or a typed error, whatever the file."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from sppdet.core.errors import ImageError
from sppdet.core.images import image_size, read_image, read_sample
from sppdet.core.types import Sample
from tests.helpers.made_heic import HEIC, LEFT, RIGHT, TURNED_HEIC

RGB = np.random.RandomState(0).randint(0, 256, (11, 17, 3)).astype(np.uint8)
GRAY = RGB[:, :, 0].copy()
LOSSLESS = ("png", "bmp", "tiff", "webp", "ppm")

# What a viewer does to the stored pixels to show them upright (Exif 2.32, table of tag 0x0112).
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[:, ::-1].transpose(1, 0, 2),
}


def save(path: Path, image: Image.Image, **options: object) -> Path:
    if path.suffix == ".webp":
        options.setdefault("lossless", True)
        options.setdefault("exact", True)
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def as_rgb(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(gray[:, :, None], 3, axis=2)


def png(
    width: int, height: int, color_type: int, depth: int, rows: bytes, extra: bytes = b""
) -> bytes:
    """A PNG built by hand (PNG specification, section 11), for the modes Pillow cannot write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    body = (
        chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_zero_byte_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.jpg"
    path.touch()
    with pytest.raises(ImageError, match=r"empty\.jpg: is empty \(0 bytes\); ") as caught:
        read_image(path)
    assert caught.value.path == str(path)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_lossless_formats_give_the_very_pixels(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(RGB))
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, RGB)
    assert image_size(path) == (17, 11)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(LOSSLESS), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_any_size_comes_back(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, suffix: str, seed: int
) -> None:
    pixels = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)
    path = save(tmp_path_factory.mktemp("sizes") / f"a.{suffix}", Image.fromarray(pixels))
    np.testing.assert_array_equal(read_image(path), pixels)
    assert image_size(path) == (width, height)


def test_content_counts_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    Image.fromarray(RGB).save(path, format="PNG")
    np.testing.assert_array_equal(read_image(path), RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_all_eight_exif_orientations(tmp_path: Path, suffix: str, orientation: int) -> None:
    plain = save(tmp_path / f"plain.{suffix}", Image.fromarray(RGB))
    path = save(
        tmp_path / f"turned.{suffix}", Image.fromarray(RGB), exif=with_orientation(orientation)
    )
    upright = UPRIGHT[orientation](read_image(plain))
    np.testing.assert_array_equal(read_image(path), upright)
    assert image_size(path) == (upright.shape[1], upright.shape[0])


@pytest.mark.parametrize(
    "block", [b"", b"Exif\0\0", b"Exif\0\0MM\0*", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_broken_exif_does_not_cost_the_image(tmp_path: Path, block: bytes) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(RGB), exif=block)
    assert read_image(path).shape == RGB.shape
    assert image_size(path) == (17, 11)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif", "pgm"])
def test_gray(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(GRAY))
    np.testing.assert_array_equal(read_image(path), as_rgb(GRAY))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif", "pbm"])
def test_one_bit(tmp_path: Path, suffix: str) -> None:
    bits = GRAY > 127
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(bits))
    np.testing.assert_array_equal(read_image(path), as_rgb(bits.astype(np.uint8) * 255))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif"])
def test_palette(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(GRAY % 7, mode="P")
    colors = RGB.reshape(-1, 3)[:7]
    image.putpalette(colors.tobytes())
    path = save(tmp_path / f"a.{suffix}", image)
    np.testing.assert_array_equal(read_image(path), colors[GRAY % 7])


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_transparent_palette_entry_is_white(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(GRAY % 7, mode="P")
    colors = RGB.reshape(-1, 3)[:7].copy()
    image.putpalette(colors.tobytes())
    path = save(tmp_path / f"a.{suffix}", image, transparency=3)
    colors[3] = 255
    np.testing.assert_array_equal(read_image(path), colors[GRAY % 7])


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_alpha_is_laid_on_white(tmp_path: Path, suffix: str) -> None:
    alpha = np.random.RandomState(1).choice([0, 80, 255], GRAY.shape).astype(np.uint8)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(np.dstack([RGB, alpha])))
    share = alpha[:, :, None] / 255
    image = read_image(path)
    np.testing.assert_allclose(image, RGB * share + 255 * (1 - share), atol=1)
    np.testing.assert_array_equal(image[alpha == 255], RGB[alpha == 255])
    assert (image[alpha == 0] == 255).all()


def test_gray_with_alpha(tmp_path: Path) -> None:
    alpha = np.where(GRAY > 90, 255, 0).astype(np.uint8)
    path = save(tmp_path / "a.png", Image.fromarray(np.dstack([GRAY, alpha]), mode="LA"))
    np.testing.assert_array_equal(read_image(path), as_rgb(np.where(alpha, GRAY, 255)))


def test_transparent_color_of_an_rgb_png(tmp_path: Path) -> None:
    pixels = RGB.copy()
    pixels[2:5, 3:6] = (10, 20, 30)
    path = save(tmp_path / "a.png", Image.fromarray(pixels), transparency=(10, 20, 30))
    pixels[2:5, 3:6] = 255
    np.testing.assert_array_equal(read_image(path), pixels)


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_16_bit_gray_keeps_its_high_byte(tmp_path: Path, suffix: str) -> None:
    samples = np.random.RandomState(2).randint(0, 65536, (11, 17)).astype(np.uint16)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(samples))
    np.testing.assert_array_equal(read_image(path), as_rgb((samples >> 8).astype(np.uint8)))


def test_16_bit_color(tmp_path: Path) -> None:
    samples = np.random.RandomState(3).randint(0, 65536, (11, 17, 3))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    path = tmp_path / "a.png"
    path.write_bytes(png(17, 11, 2, 16, rows))
    np.testing.assert_array_equal(read_image(path), (samples >> 8).astype(np.uint8))


def test_16_bit_gray_with_a_transparent_value(tmp_path: Path) -> None:
    samples = np.array([[0, 4660, 65535]])
    extra_body = b"tRNS" + struct.pack(">H", 4660)
    extra = struct.pack(">I", 2) + extra_body + struct.pack(">I", zlib.crc32(extra_body))
    path = tmp_path / "a.png"
    path.write_bytes(png(3, 1, 0, 16, b"\0" + samples.astype(">u2").tobytes(), extra))
    assert read_image(path)[0].tolist() == [[0] * 3, [255] * 3, [255] * 3]


def test_16_bit_tiff_with_white_as_zero(tmp_path: Path) -> None:
    samples = np.array([[0, 0x1234, 0xFFFF]], dtype=np.uint16)
    path = save(tmp_path / "a.tiff", Image.fromarray(samples), tiffinfo={262: 0})
    assert read_image(path)[0, :, 0].tolist() == [255, 255 - 0x12, 0]


def test_12_bit_tiff(tmp_path: Path) -> None:
    # Two samples, 0xABC and 0x123, packed; TIFF 6.0, section 2: a header, one IFD, the strip.
    tags = [
        (256, 2),
        (257, 1),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 130),
        (277, 1),
        (278, 1),
        (279, 3),
    ]
    ifd = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + ifd + bytes(4)
    path = tmp_path / "a.tiff"
    path.write_bytes(head.ljust(130, b"\0") + b"\xab\xc1\x23")
    assert read_image(path)[0, :, 0].tolist() == [0xAB, 0x12]


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_cmyk(tmp_path: Path, suffix: str) -> None:
    flat = Image.new("CMYK", (24, 16), (0, 255, 255, 0))  # all magenta and yellow: red
    image = read_image(save(tmp_path / f"a.{suffix}", flat))
    np.testing.assert_allclose(image, np.broadcast_to([255, 0, 0], (16, 24, 3)), atol=3)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_samples_are_refused(tmp_path: Path, dtype: type) -> None:
    path = save(tmp_path / "a.tiff", Image.fromarray(GRAY.astype(dtype)))
    with pytest.raises(ImageError, match=r"a\.tiff: has 32-bit samples.*8 bits"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_the_first_frame_of_several(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "blue", "lime")]
    path = save(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:])
    assert (read_image(path) == [255, 0, 0]).all()


def test_multi_picture_jpeg_of_a_phone(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 16), color) for color in ("red", "blue")]
    path = tmp_path / "a.jpg"
    frames[0].save(path, format="MPO", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(read_image(path), np.broadcast_to([255, 0, 0], (16, 32, 3)), atol=3)


def test_a_jpeg_that_lacks_its_end_is_decoded_as_far_as_it_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ramp = np.arange(160, dtype=np.uint8)[:, None, None] + np.zeros((160, 120, 3), np.uint8)
    whole = save(tmp_path / "whole.jpg", Image.fromarray(ramp))
    expected, data, cut = read_image(whole), whole.read_bytes(), tmp_path / "cut.jpg"
    decoded: list[int] = []
    for length in range(1, len(data), max(1, len(data) // 80)):
        cut.write_bytes(data[:length])
        try:
            image = read_image(cut)
        except ImageError:
            assert not decoded, "what has a header is decoded"
            continue
        assert image.shape == expected.shape
        same = (image == expected).all(axis=(1, 2))
        decoded.append(int(same.sum()))
    # Said once, however often it is read.
    assert [record.getMessage() for record in caplog.records] == [
        f"{cut}: lacks its last bytes; decoded as far as it goes"
    ]
    assert decoded == sorted(decoded)
    assert decoded[0] < 20
    assert decoded[-1] > 130


def test_formats_of_phones_and_archives(tmp_path: Path) -> None:
    for suffix in ("avif", "jp2"):
        flat = save(tmp_path / f"a.{suffix}", Image.new("RGB", (32, 16), (200, 30, 60)))
        found = read_image(flat)
        np.testing.assert_allclose(found, np.broadcast_to([200, 30, 60], (16, 32, 3)), atol=4)


@pytest.mark.parametrize(("data", "shape"), [(HEIC, (32, 48, 3)), (TURNED_HEIC, (48, 32, 3))])
def test_heic(tmp_path: Path, data: bytes, shape: tuple[int, ...]) -> None:
    pytest.importorskip("pi_heif")
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(data)
    found = read_image(path)
    assert found.shape == shape
    assert image_size(path) == (shape[1], shape[0])
    ends = found[2, 2], found[-3, -3]  # turned to the right, the left half is on top
    for pixel, color in zip(ends, (LEFT, RIGHT), strict=True):
        np.testing.assert_allclose(pixel, color, atol=8)
    with pytest.raises(ImageError, match="exceeds the cap of 99 pixels"):
        read_image(path, max_pixels=99)
    for length in (12, 100, 300, len(data) - 30):
        path.write_bytes(data[:length])
        with pytest.raises(ImageError, match=r"IMG_1\.HEIC: the image is truncated or corrupt"):
            read_image(path)


def test_heic_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)  # as if it were not installed
    for name, data in (("a.heic", HEIC), ("really_heic.jpg", HEIC)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=r"pip install 'sppdet\[heic\]', or convert it"):
            read_image(tmp_path / name)
    (tmp_path / "text.heic").write_text("no photo")
    with pytest.raises(ImageError, match="not an image of an accepted format"):
        read_image(tmp_path / "text.heic")


@pytest.mark.parametrize("suffix", [*LOSSLESS, "gif"])
def test_truncated_files_raise_at_every_length(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.RandomState(4).randint(0, 256, (40, 30, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    if suffix == "gif":
        image = image.quantize(256)
    data = save(tmp_path / f"whole.{suffix}", image).read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    for length in range(1, int(len(data) * 0.9), max(1, len(data) // 60)):
        cut.write_bytes(data[:length])
        with pytest.raises(ImageError, match=rf"cut\.{suffix}: "):
            read_image(cut)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_give_an_image_or_an_image_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    suffix = data.draw(st.sampled_from(["jpg", *LOSSLESS]))
    path = save(tmp_path_factory.mktemp("fuzz") / f"a.{suffix}", Image.fromarray(RGB))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(raw))
    error: ImageError | None = None
    image = np.zeros((1, 1, 3), np.uint8)
    try:
        image = read_image(path, max_pixels=1_000_000)
    except ImageError as caught:
        error = caught
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    if error is not None:
        assert error.path == str(path)
        assert "\n" not in str(error)


@pytest.mark.parametrize("data", [b"hello", b"\xff\xd8\xff", b"%PDF-1.4", b"<svg/>", bytes(5000)])
def test_what_is_no_image(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.jpg: "):
        read_image(path)


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PCX", "EPS"])
def test_formats_off_the_list_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(RGB).resize((32, 32)).save(path, format=kind)
    with pytest.raises(ImageError, match="not an image of an accepted format; use one of JPEG"):
        read_image(path)


def test_missing_folder_pipe_and_impossible_names(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no\.jpg: no such image file"):
        read_image(tmp_path / "no.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path / "pipe.jpg")
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(ImageError, match="cannot be read"):
            read_image(tmp_path / name)


def test_the_cap_holds_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(60_000, 60_000, 2, 8, b"never decoded"))
    with pytest.raises(ImageError, match=r"bomb\.png: .*exceeds the cap of 89,000,000 pixels"):
        read_image(path)
    small = save(tmp_path / "small.png", Image.fromarray(RGB))
    with pytest.raises(
        ImageError, match=r"17x11 pixels exceeds the cap of 186 pixels; .*max_pixels"
    ):
        read_image(small, max_pixels=186)
    assert read_image(small, max_pixels=187).shape == RGB.shape


def test_the_cap_can_be_raised_over_pillows_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    path = save(tmp_path / "a.png", Image.fromarray(RGB))
    assert read_image(path, max_pixels=200).shape == RGB.shape
    assert Image.MAX_IMAGE_PIXELS == 50
    with pytest.raises(ImageError, match="exceeds the cap of 40 pixels"):
        read_image(path, max_pixels=40)


def test_a_sample_must_have_the_size_its_annotation_states(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(RGB), exif=with_orientation(6))
    none = np.zeros((0, 4), np.float32)
    upright = Sample("a", path, 11, 17, none, np.zeros(0, np.int64), np.zeros(0, np.bool_))
    assert read_sample(upright).shape == (17, 11, 3)
    stored = Sample("a", path, 17, 11, none, np.zeros(0, np.int64), np.zeros(0, np.bool_))
    with pytest.raises(ImageError, match="is 11x17 pixels, but its annotation says 17x11"):
        read_sample(stored)


def test_real_photos(voc_root: Path) -> None:
    for path in sorted((voc_root / "JPEGImages").iterdir())[:20]:
        with Image.open(path) as image:
            np.testing.assert_array_equal(read_image(path), np.asarray(image.convert("RGB")))
            assert image_size(path) == image.size
