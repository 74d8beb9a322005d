"""Reading image files safely: a right `uint8 (H, W, 3)` RGB array, or a typed error.

Pillow decodes; the formats let in, the cap on pixels, and how each pixel mode becomes RGB are
decided here. Color profiles are ignored, as the detector's training data has none.
"""

from __future__ import annotations

import logging
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from sppdet.core.errors import ImageError
from sppdet.core.types import ImageArray, Sample

# Just under Pillow's own warning threshold (2**30 / 12): 267 MB of RGB pixels.
MAX_PIXELS = 89_000_000

# Pillow opens some fifty formats, several of them old and seldom tested. (Phones' multi-picture
# JPEGs come in through JPEG; an animation gives its first frame.)
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000")

_COMMON_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".gif", ".tif", ".tiff"}
_OTHER_SUFFIXES = {".webp", ".avif", ".jp2", ".j2k", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm"}
IMAGE_SUFFIXES = frozenset(_COMMON_SUFFIXES | _OTHER_SUFFIXES)
# Photos of phones, read where pi-heif is installed; selected in any case, so that each is named.
SELECTED_SUFFIXES = IMAGE_SUFFIXES | {".heic", ".heif", ".hif"}
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_JPEG_END = b"\xff\xd9"
_warn_once = lru_cache(maxsize=4096)(logging.getLogger(__name__).warning)

_TIFF_BITS_PER_SAMPLE = 258
_TIFF_PHOTOMETRIC = 262
_WHITE_IS_ZERO = 0

_T = Image.Transpose
_MIRRORED = (_T.FLIP_LEFT_RIGHT, _T.ROTATE_180, _T.FLIP_TOP_BOTTOM)
_TURNED = (_T.TRANSPOSE, _T.ROTATE_270, _T.TRANSVERSE, _T.ROTATE_90)
# What shows an image upright, by its EXIF orientation (Exif 2.32, tag 0x0112).
_UPRIGHT = dict(enumerate(_MIRRORED + _TURNED, start=2))
# EXIF orientations that turn an image by 90 degrees, so that its sides change places.
SWAPPING_ORIENTATIONS = frozenset((5, 6, 7, 8))

_pillow_limit_lock = threading.Lock()


def read_image(
    file: Path | BytesIO, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> ImageArray:
    """Read an image as `uint8 (H, W, 3)` RGB, upright by its EXIF orientation, writable.

    `file` is a file, or the bytes of one, which errors call `name`. The size is read from the
    header and held against `max_pixels` before any pixel is decoded. Gray, palette, 1-bit and CMYK
    images become RGB; transparency is laid on white; 16-bit samples keep their high byte. A JPEG
    that lacks its last bytes is decoded as far as it goes, with a warning logged; the rest of it is
    gray.

    Raises ImageError for a file that is missing, not a regular file, empty, of a format not in
    `FORMATS`, truncated or corrupt, larger than `max_pixels`, or of 32-bit samples, whose range is
    unknown.
    """
    with _opened(file, name, max_pixels) as opened:
        try:
            opened.load()
            image = opened
        except OSError as error:
            image = _load_without_end(opened, file, name, error)
        return upright_rgb(image, str(name or file), max_pixels=max_pixels)


def upright_rgb(image: Image.Image, name: str, *, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Convert a Pillow image of any mode as `read_image` does; `image` stays as it is.

    Raises:
        ImageError: as `read_image`, naming `name`.
    """
    with _typed_errors(name, max_pixels):
        _check_size(image, name, max_pixels)
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        return _to_rgb(image if turn is None else image.transpose(turn), name)


def flip_image(image: ImageArray) -> ImageArray:
    """Flip an image `uint8 (H, W, 3)` horizontally."""
    return np.ascontiguousarray(image[:, ::-1])


def image_size(path: Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return the width and height in pixels of what `read_image` returns.

    Most formats are not decoded for this, so a truncated file may pass.

    Raises:
        ImageError: as `read_image`.
    """
    width, height, orientation = stored_size(path, max_pixels=max_pixels)
    return (height, width) if orientation in SWAPPING_ORIENTATIONS else (width, height)


def stored_size(path: Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int, int]:
    """Return the width and height as stored, and the EXIF orientation (1 to 8) that turns them.

    Raises:
        ImageError: as `image_size`.
    """
    with _opened(path, None, max_pixels) as image:
        # Pillow gives a TIFF's size upright already.
        orientation = 1 if image.format == "TIFF" else _orientation(image)
        return (*image.size, orientation)


def read_sample(sample: Sample, *, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Read a sample's image, and check that it has the size that the sample states.

    Raises ImageError as `read_image`, or for a size other than the annotation's, whose boxes would
    then lie elsewhere than where they were drawn.
    """
    image = read_image(sample.path, max_pixels=max_pixels)
    height, width = image.shape[:2]
    if (width, height) != (sample.width, sample.height):
        stated = f"{sample.width}x{sample.height}"
        problem = f"is {width}x{height} pixels, but its annotation says {stated}"
        hint = "annotate this very file, or correct that size (an EXIF turn swaps the sides)"
        raise ImageError(problem, path=sample.path, hint=hint)
    return image


def select_images(paths: Iterable[Path]) -> list[Path]:
    """Select the files with the suffix of an image, sorted; hidden ones are left out.

    HEIC photos and links to nothing are among them, for `read_image` to name.
    """
    images = [p for p in paths if p.suffix.lower() in SELECTED_SUFFIXES and not p.is_dir()]
    return sorted(path for path in images if not path.name.startswith("."))


@contextmanager
def _opened(file: Path | BytesIO, name: str | None, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image without decoding it; whatever fails inside the block is an ImageError."""
    if isinstance(file, Path):
        check_file(file)
    name = str(name or file)
    with _typed_errors(name, max_pixels), _pillow_limit(max_pixels):
        try:
            opened: Image.Image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            opened = _open_heif(file, name)
        with opened as image:
            _check_size(image, name, max_pixels)
            yield image


def _open_heif(file: Path | BytesIO, name: str) -> Image.Image:
    """Open a HEIC photo by pi_heif, which is asked for only where there is one."""
    head = _content(file, 12)
    if head[4:8] != b"ftyp" or head[8:12] not in _HEIF_BRANDS:
        hint = f"use one of {', '.join(FORMATS)}"
        raise ImageError("not an image of an accepted format", path=name, hint=hint)
    try:
        import pi_heif
    except ImportError:
        hint = "pip install 'sppdet[heic]', or convert it to JPEG (phones can save photos so)"
        raise ImageError("is a HEIC photo, which needs pi-heif", path=name, hint=hint) from None
    pi_heif.register_heif_opener()
    return Image.open(file, formats=("HEIF",))


@contextmanager
def _typed_errors(name: str, max_pixels: int) -> Iterator[None]:
    """Make an ImageError of whatever Pillow raises in the block."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large("the image", name, max_pixels) from None
    except PermissionError:
        raise ImageError("may not be read", path=name, hint="change its permissions") from None
    # Pillow's decoders let many types out of a damaged file: OSError, SyntaxError, ValueError,
    # struct.error, IndexError, KeyError, EOFError, zlib.error, MemoryError.
    except Exception as error:
        reason = "cut off" if isinstance(error, UnidentifiedImageError) else error
        problem = f"the image is truncated or corrupt ({reason})"
        hint = "restore it from its source, or leave it out"
        raise ImageError(problem, path=name, hint=hint) from error


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise _too_large(f"{image.width}x{image.height} pixels", name, max_pixels)


def _too_large(size: str, name: str, max_pixels: int) -> ImageError:
    problem = f"{size} exceeds the cap of {max_pixels:,} pixels"
    return ImageError(problem, path=name, hint="shrink the image, or raise max_pixels")


def _load_without_end(
    image: Image.Image, file: Path | BytesIO, name: str | None, error: OSError
) -> Image.Image:
    """Decode anew an image whose decoding failed, if only the end of a JPEG is missing."""
    if image.format not in ("JPEG", "MPO") or "truncated" not in str(error):
        raise error
    image = Image.open(BytesIO(_content(file) + _JPEG_END), formats=("JPEG",))
    image.load()
    _warn_once(f"{name or file}: lacks its last bytes; decoded as far as it goes")
    return image


def _content(file: Path | BytesIO, size: int = -1) -> bytes:
    """Read a file's first `size` bytes, or all of them."""
    if isinstance(file, BytesIO):
        file.seek(0)
        return file.read(size)
    with file.open("rb") as stream:
        return stream.read(size)


def check_file(path: Path) -> None:
    """Check that a path is a regular file that holds something; ImageError if not."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ImageError("no such image file", path=path, hint="check the path") from None
    # A name too long, a NUL in it, a folder that may not be entered.
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot be read ({error})", path=path, hint="check the path") from None
    if stat.S_ISDIR(status.st_mode):
        raise ImageError("is a folder, not an image", path=path, hint="name a file in it")
    if not stat.S_ISREG(status.st_mode):  # a pipe or a device could block for ever
        raise ImageError("is not a regular file", path=path, hint="copy it into a file")
    if status.st_size == 0:
        raise ImageError("is empty (0 bytes)", path=path, hint="restore it, or leave it out")


@contextmanager
def _pillow_limit(max_pixels: int) -> Iterator[None]:
    """Raise Pillow's own cap, a global, to `max_pixels` if that is higher."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or max_pixels <= limit:
        yield
        return
    with _pillow_limit_lock:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation (Exif 2.32, tag 0x0112); 1, upright, if there is none."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    # A damaged EXIF block is no reason to refuse good pixels. (Its parser raises many types.)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image, name: str) -> ImageArray:
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.array(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format != "TIFF"):
        return _gray16_to_rgb(image)
    if image.mode in ("I", "F"):
        raise ImageError(
            "has 32-bit samples, whose range is unknown", path=name, hint="save it with 8 bits"
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return np.array(Image.alpha_composite(white, rgba).convert("RGB"))
    return np.array(image.convert("RGB"))


def _gray16_to_rgb(image: Image.Image) -> ImageArray:
    samples: NDArray[np.int64] = np.asarray(image).astype(np.int64)
    clear = image.info.get("transparency")
    tags = getattr(image, "tag_v2", {})
    bits = int(tags.get(_TIFF_BITS_PER_SAMPLE, (16,))[0])
    gray = samples >> (bits - 8)
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        gray = 255 - gray
    if clear is not None:
        gray[samples == clear] = 255
    return np.repeat(gray.astype(np.uint8)[:, :, None], 3, axis=2)
