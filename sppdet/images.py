"""Reading image files safely: a right `uint8 (H, W, 3)` RGB array, or a typed error.

Decoding is Pillow's. What is ours: which formats are let in, the cap on pixels, and how each
pixel mode becomes RGB. Colour profiles are ignored, as the detector's training data has none.
"""

from __future__ import annotations

import glob
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from sppdet.errors import ImageError
from sppdet.types import ImageArray, Sample

# Just under Pillow's own warning threshold (2**30 / 12): 267 MB of RGB pixels.
MAX_PIXELS = 89_000_000

# Pillow opens some fifty formats, several of them old and seldom tested. (Phones' multi-picture
# JPEGs come in through JPEG; an animation gives its first frame.)
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")

_JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".mpo"})
_PNM_SUFFIXES = frozenset({".ppm", ".pgm", ".pbm", ".pnm"})
IMAGE_SUFFIXES = _JPEG_SUFFIXES | _PNM_SUFFIXES | {".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}

# EXIF orientation -> the turn that shows the image upright (Exif 2.32, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = frozenset({5, 6, 7, 8})
_TIFF_BITS_PER_SAMPLE = 258
_TIFF_PHOTOMETRIC = 262
_WHITE_IS_ZERO = 0

_pillow_limit_lock = threading.Lock()


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """The image as `uint8 (H, W, 3)` RGB, upright by its EXIF orientation, writable.

    The size is read from the header and held against `max_pixels` before any pixel is decoded.
    Grey, palette, 1-bit and CMYK images become RGB; transparency is laid on white; 16-bit
    samples keep their high byte.

    Raises:
        ImageError: missing, not a regular file, empty, of a format not in `FORMATS`, truncated or
            corrupt, larger than `max_pixels`, or of 32-bit samples, whose range is unknown.
    """
    with _opened(path, max_pixels) as image:
        image.load()
        # Pillow turns a TIFF upright itself, while loading it, and then clears its orientation.
        turn = _UPRIGHT.get(_orientation(image))
        return _to_rgb(image if turn is None else image.transpose(turn), path)


def as_image(image: str | Path | ImageArray) -> ImageArray:
    """The pixels of a file, or the array itself: RGB `uint8 (H, W, 3)`.

    Raises:
        ImageError: as `read_image`, or an array of another type or shape.
    """
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    mend = "give an RGB array uint8 (H, W, 3), or a file's path"
    # OpenCV's imread gives None for a file that it cannot read.
    if not isinstance(image, np.ndarray):
        raise ImageError(f"an image of type {type(image).__name__}", mend=mend)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ImageError(f"an image array of type {image.dtype} and shape {image.shape}", mend=mend)
    return image


def mirrored(image: ImageArray) -> ImageArray:
    """The image `uint8 (H, W, 3)` with left and right exchanged."""
    return np.ascontiguousarray(image[:, ::-1])


def image_size(path: Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """`(width, height)` in pixels of what `read_image` returns; raises ImageError as it does.

    Most formats are not decoded for this, so a truncated file may pass.
    """
    with _opened(path, max_pixels) as image:
        width, height = image.size
        # Pillow gives a TIFF's size upright already.
        turned = image.format != "TIFF" and _orientation(image) in _SWAPS_SIDES
        return (height, width) if turned else (width, height)


def read_sample(sample: Sample, *, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """The sample's image as `read_image` gives it, checked to have the size the sample states.

    Raises:
        ImageError: as `read_image`, or a size other than the annotation's: its boxes would lie
            elsewhere in the image than where they were drawn.
    """
    image = read_image(sample.path, max_pixels=max_pixels)
    height, width = image.shape[:2]
    if (width, height) != (sample.width, sample.height):
        raise ImageError(
            f"is {width}x{height} pixels, but its annotation says {sample.width}x{sample.height}",
            where=sample.path,
            mend="annotate this very file, or correct <size> (an EXIF turn swaps the sides)",
        )
    return image


def find_images(inputs: Sequence[str]) -> list[Path]:
    """The image files that files, folders and glob patterns name: sorted, each one once.

    A folder gives the image files directly in it (`folder/**` reaches further down), chosen by
    suffix; hidden files are left out. A plain path is taken as it is, even when nothing is there:
    `read_image` then names it, and the rest of a batch can go on.

    Raises:
        ImageError: a folder without images, or that cannot be listed; a pattern without matches.
    """
    found: dict[Path, Path] = {}
    for name in inputs:
        try:
            for path in _matches(name):
                found.setdefault(path.resolve(), path)
        # A folder that may not be listed, a name too long.
        except (OSError, ValueError) as error:
            raise ImageError(
                f"cannot be read ({error})", where=name, mend="check the path"
            ) from None
    return sorted(found.values())


def _matches(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        matches, kind = list(path.iterdir()), "the folder holds no images"
    elif glob.has_magic(name) and not path.exists():
        matches, kind = [Path(m) for m in glob.glob(name, recursive=True)], "matches no images"  # noqa: PTH207
    else:
        return [path]
    images = [m for m in matches if m.suffix.lower() in IMAGE_SUFFIXES and m.is_file()]
    images = [m for m in images if not m.name.startswith(".")]
    if not images:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise ImageError(kind, where=name, mend=f"name one with image files ({suffixes})")
    return images


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """The opened, not yet decoded image; whatever fails inside the block is an ImageError."""
    path = Path(path)
    _check_file(path)
    try:
        with _pillow_limit(max_pixels), Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise _too_large(path, f"{image.width}x{image.height} pixels", max_pixels)
            yield image
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(path, "the image", max_pixels) from None
    except UnidentifiedImageError:
        raise ImageError(
            "not an image of an accepted format",
            where=path,
            mend=f"use one of {', '.join(FORMATS)}",
        ) from None
    except PermissionError:
        raise ImageError("may not be read", where=path, mend="change its permissions") from None
    # Pillow's decoders let many types out of a damaged file: OSError, SyntaxError, ValueError,
    # struct.error, IndexError, KeyError, EOFError, zlib.error, MemoryError.
    except Exception as error:
        raise ImageError(
            f"the image is truncated or corrupt ({error})",
            where=path,
            mend="restore it from its source, or leave it out",
        ) from error


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ImageError("no such image file", where=path, mend="check the path") from None
    # A name too long, a NUL in it, a folder that may not be entered.
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot be read ({error})", where=path, mend="check the path") from None
    if stat.S_ISDIR(status.st_mode):
        raise ImageError("is a folder, not an image", where=path, mend="name a file in it")
    if not stat.S_ISREG(status.st_mode):  # a pipe or a device could block for ever
        raise ImageError("is not a regular file", where=path, mend="copy it into a file")
    if status.st_size == 0:
        raise ImageError("is empty (0 bytes)", where=path, mend="restore it, or leave it out")


def _too_large(path: Path, what: str, max_pixels: int) -> ImageError:
    return ImageError(
        f"{what} exceeds the cap of {max_pixels:,} pixels",
        where=path,
        mend="shrink the image, or raise max_pixels",
    )


@contextmanager
def _pillow_limit(max_pixels: int) -> Iterator[None]:
    """Pillow's own cap, one global for the process, raised to `max_pixels` where that is higher."""
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
    """EXIF orientation 1..8; 1 where it is absent or the EXIF block is broken."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    # A damaged side block is no reason to refuse good pixels; its parser raises many types.
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image, path: Path) -> ImageArray:
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.array(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format != "TIFF"):
        return _grey16_to_rgb(image)
    if image.mode in ("I", "F"):
        raise ImageError(
            "has 32-bit samples, whose range is unknown", where=path, mend="save it with 8 bits"
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return np.array(Image.alpha_composite(white, rgba).convert("RGB"))
    return np.array(image.convert("RGB"))


def _grey16_to_rgb(image: Image.Image) -> ImageArray:
    samples: NDArray[np.int64] = np.asarray(image).astype(np.int64)
    clear = image.info.get("transparency")
    tags = getattr(image, "tag_v2", {})
    bits = int(tags.get(_TIFF_BITS_PER_SAMPLE, (16,))[0])
    grey = samples >> (bits - 8)
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    if clear is not None:
        grey[samples == clear] = 255
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
