"""Reading image files safely: a right `uint8 (H, W, 3)` RGB array, or a typed error.

Pillow decodes; the formats let in, the cap on pixels, and how each pixel mode becomes RGB are
decided here. Color profiles are ignored, as the detector's training data has none.
"""

from __future__ import annotations

import glob
import logging
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from sppdet.core.errors import ImageError
from sppdet.core.types import ImageArray, Sample

# Just under Pillow's own warning threshold (2**30 / 12): 267 MB of RGB pixels.
MAX_PIXELS = 89_000_000

# Pillow opens some fifty formats, several of them old and seldom tested. (Phones' multi-picture
# JPEGs come in through JPEG; an animation gives its first frame.)
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000")

_PNM_SUFFIXES = {".ppm", ".pgm", ".pbm", ".pnm"}
_JPEG_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".mpo"}
_OTHER_SUFFIXES = {".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif", ".jp2", ".j2k"}
IMAGE_SUFFIXES = frozenset(_JPEG_SUFFIXES | _PNM_SUFFIXES | _OTHER_SUFFIXES)
# Photos of phones that Pillow does not read: selected all the same, so that each is named.
_HEIF_SUFFIXES = frozenset((".heic", ".heif", ".hif"))

_JPEG_END = b"\xff\xd9"
_warn_once = lru_cache(maxsize=4096)(logging.getLogger(__name__).warning)

_TIFF_BITS_PER_SAMPLE = 258
_TIFF_PHOTOMETRIC = 262
_WHITE_IS_ZERO = 0

# EXIF orientations that turn an image by 90 degrees, so that its sides change places.
SWAPPING_ORIENTATIONS = frozenset((5, 6, 7, 8))

_pillow_limit_lock = threading.Lock()


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Read an image as `uint8 (H, W, 3)` RGB, upright by its EXIF orientation, writable.

    The size is read from the header and held against `max_pixels` before any pixel is decoded.
    Gray, palette, 1-bit and CMYK images become RGB; transparency is laid on white; 16-bit
    samples keep their high byte. A JPEG that lacks its last bytes is decoded as far as it goes,
    with a warning logged; the rest of it is gray.

    Raises ImageError for a file that is missing, not a regular file, empty, of a format not in
    `FORMATS`, truncated or corrupt, larger than `max_pixels`, or of 32-bit samples, whose range is
    unknown.
    """
    with _opened(path, max_pixels) as opened:
        image = _load(opened, path)
        try:
            ImageOps.exif_transpose(image, in_place=True)
        except MemoryError:
            raise
        # A damaged EXIF block is no reason to refuse good pixels. (Its parser raises many types;
        # in place, the pixels are turned before the block is written anew.)
        except Exception:
            pass
        return _to_rgb(image, path)


def as_image(image: str | Path | ImageArray) -> ImageArray:
    """Read a file, or check an array and return it: RGB `uint8 (H, W, 3)`.

    Raises:
        ImageError: as `read_image`, or an array of another type or shape.
    """
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    hint = "give an RGB array uint8 (H, W, 3), or a file's path"
    # OpenCV's imread gives None for a file that it cannot read.
    if not isinstance(image, np.ndarray):
        raise ImageError(f"an image of type {type(image).__name__}", hint=hint)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ImageError(f"an image array of type {image.dtype} and shape {image.shape}", hint=hint)
    return image


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
    with _opened(path, max_pixels) as image:
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


def find_images(inputs: Sequence[str]) -> list[Path]:
    """List the image files that files, folders and glob patterns name: sorted, each one once.

    A folder gives the image files directly in it (`folder/**` reaches further down), chosen by
    suffix; hidden files are left out. A plain path is taken as it is, even when nothing is there:
    `read_image` then names it, and the rest of a batch can go on.

    Raises ImageError for a folder without images, or that cannot be listed, and for a pattern
    without matches.
    """
    paths: dict[Path, Path] = {}
    for name in inputs:
        try:
            for path in _matches(name):
                paths.setdefault(path.resolve(), path)
        # A folder that may not be listed, a name too long.
        except (OSError, ValueError) as error:
            problem = f"cannot be read ({error})"
            raise ImageError(problem, path=name, hint="check the path") from None
    return sorted(paths.values())


def select_images(paths: Iterable[Path]) -> list[Path]:
    """Select the files with the suffix of an image, sorted; hidden ones are left out.

    HEIC photos and links to nothing are among them, for `read_image` to name.
    """
    suffixes = IMAGE_SUFFIXES | _HEIF_SUFFIXES
    images = [p for p in paths if p.suffix.lower() in suffixes and not p.is_dir()]
    return sorted(path for path in images if not path.name.startswith("."))


def _matches(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        images, problem = select_images(path.iterdir()), "the folder holds no images"
    elif glob.has_magic(name) and not path.exists():
        matches = glob.iglob(name, recursive=True)  # noqa: PTH207
        images, problem = select_images(map(Path, matches)), "matches no images"
    else:
        return [path]
    if not images:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise ImageError(problem, path=name, hint=f"name one with image files ({suffixes})")
    return images


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image without decoding it; whatever fails inside the block is an ImageError."""
    path = Path(path)
    _check_file(path)
    size = "the image"
    try:
        with _pillow_limit(max_pixels), Image.open(path, formats=FORMATS) as image:
            size = f"{image.width}x{image.height} pixels"
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError
            yield image
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        problem = f"{size} exceeds the cap of {max_pixels:,} pixels"
        hint = "shrink the image, or raise max_pixels"
        raise ImageError(problem, path=path, hint=hint) from None
    except UnidentifiedImageError:
        hint = f"use one of {', '.join(FORMATS)}"
        if path.suffix.lower() in _HEIF_SUFFIXES:
            hint = "convert it to JPEG (phones can save photos so)"
        raise ImageError("not an image of an accepted format", path=path, hint=hint) from None
    except PermissionError:
        raise ImageError("may not be read", path=path, hint="change its permissions") from None
    # Pillow's decoders let many types out of a damaged file: OSError, SyntaxError, ValueError,
    # struct.error, IndexError, KeyError, EOFError, zlib.error, MemoryError.
    except Exception as error:
        problem = f"the image is truncated or corrupt ({error})"
        hint = "restore it from its source, or leave it out"
        raise ImageError(problem, path=path, hint=hint) from error


def _load(image: Image.Image, path: Path) -> Image.Image:
    """Decode an opened image; one anew where only the end of a JPEG is missing."""
    try:
        image.load()
    except OSError as error:
        if image.format not in ("JPEG", "MPO") or "truncated" not in str(error):
            raise
        image = Image.open(BytesIO(path.read_bytes() + _JPEG_END), formats=("JPEG",))
        image.load()
        _warn_once(f"{path}: lacks its last bytes; decoded as far as it goes")
    return image


def _check_file(path: Path) -> None:
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
    except Exception:  # a damaged EXIF block, as in `read_image`
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image, path: Path) -> ImageArray:
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.array(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format != "TIFF"):
        return _gray16_to_rgb(image)
    if image.mode in ("I", "F"):
        raise ImageError(
            "has 32-bit samples, whose range is unknown", path=path, hint="save it with 8 bits"
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
