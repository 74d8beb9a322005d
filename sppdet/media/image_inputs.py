"""Images as Python holds them: paths, bytes, files, Pillow images, arrays, tensors."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sppdet.core.errors import ImageError
from sppdet.core.images import MAX_PIXELS, read_image, upright_rgb
from sppdet.core.types import ImageArray
from sppdet.media.web_image import fetch_image, is_address

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import TypeIs

    ImageInput: TypeAlias = (
        str
        | PathLike[str]
        | bytes
        | bytearray
        | memoryview
        | BinaryIO
        | Image.Image
        | NDArray[Any]
        | Tensor
    )
else:  # torch takes seconds to import
    ImageInput = Any

# Iterable, but one image; also what can be read from, and tensors.
SINGLE = (str, bytes, bytearray, memoryview, PathLike, Image.Image, np.ndarray)
# Gray, RGB, and RGB with alpha.
CHANNELS = (1, 3, 4)
# Of a file object: more than any image of `MAX_PIXELS` takes, less than an endless stream has.
MAX_BYTES = 1 << 30

_HINT = (
    "give a path, bytes, a binary file object, a Pillow image, an array (H, W), (H, W, 1), "
    "(H, W, 3) or (H, W, 4), or a tensor (C, H, W)"
)


def as_image(image: ImageInput, *, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Return an image as RGB `uint8 (H, W, 3)`; such an array comes back as it is.

    - `str`, `Path`: a file, read by `core.images.read_image`. A `str` that begins with `https://`
      is fetched (`web_image`).
    - `bytes` and their like, binary file objects (from where they stand): the content of a file.
    - Pillow images: any mode, turned upright by their EXIF orientation.
    - Arrays `(H, W)`, `(H, W, 1)`, `(H, W, 3)` as RGB, `(H, W, 4)` as RGBA, which is laid on white:
      `uint8`, or floats in [0, 1], which are rounded to the nearest of 255 steps.
    - Tensors `(C, H, W)` or `(H, W)` on any device, of the same types. An array or tensor whose
      shape can only be meant the other way round, `(3, 480, 640)` or `(480, 640, 3)`, is taken so.

    Raises:
        ImageError: as `read_image`, or for anything else, with what it is and what to give.
    """
    if isinstance(image, str | PathLike):
        if isinstance(image, str) and is_address(image):
            return fetch_image(image, max_pixels=max_pixels)
        if not os.fspath(image):
            raise ImageError("an empty path", hint="name an image file")
        return read_image(Path(image), max_pixels=max_pixels)
    if isinstance(image, bytes | bytearray | memoryview):
        return _from_bytes(bytes(image), "image bytes", max_pixels)
    if isinstance(image, Image.Image):
        name = getattr(image, "filename", "") or "Pillow image"
        return upright_rgb(image, str(name), max_pixels=max_pixels)
    if isinstance(image, np.ndarray):
        return _from_array(image, "array", 2, max_pixels)
    if _is_tensor(image):
        return _from_tensor(image, max_pixels)
    if hasattr(image, "read"):
        return _from_file_object(image, max_pixels)
    # OpenCV's imread gives None for a file that it cannot read.
    raise ImageError(f"an image of type {type(image).__name__}", hint=_HINT)


def is_single(image: ImageInput | Iterable[ImageInput]) -> TypeIs[ImageInput]:
    """Tell one image from a list, tuple or other iterable of images."""
    if isinstance(image, SINGLE) or _is_tensor(image) or hasattr(image, "read"):
        return True
    return not isinstance(image, Iterable)


def _is_tensor(value: object) -> TypeIs[Tensor]:
    """Tell whether a value is a torch tensor, without importing torch: who has one has it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _from_bytes(data: bytes, name: str, max_pixels: int) -> ImageArray:
    if not data:
        raise ImageError("empty (0 bytes)", path=name, hint="give all bytes of an image file")
    return read_image(BytesIO(data), name=name, max_pixels=max_pixels)


def _from_file_object(stream: BinaryIO, max_pixels: int) -> ImageArray:
    given = getattr(stream, "name", None)
    name = given if isinstance(given, str) else f"file object ({type(stream).__name__})"
    try:
        data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # a closed file, one open for writing only, no UTF-8
        hint = "open it with open(path, 'rb')"
        raise ImageError(f"cannot be read ({error})", path=name, hint=hint) from None
    if not isinstance(data, bytes | bytearray):
        hint = "open it with open(path, 'rb')"
        raise ImageError("is read as text, not as bytes", path=name, hint=hint)
    if not data:
        hint = "go back to its beginning with seek(0)"
        raise ImageError("has nothing left to read", path=name, hint=hint)
    if len(data) > MAX_BYTES:
        raise ImageError(f"gives more than {MAX_BYTES:,} bytes", path=name, hint="shrink the image")
    return _from_bytes(bytes(data), name, max_pixels)


def _from_tensor(tensor: Tensor, max_pixels: int) -> ImageArray:
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise ImageError(f"a tensor of type {tensor.dtype}", hint="give uint8, or floats in [0, 1]")
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # numpy has none
        tensor = tensor.float()
    return _from_array(tensor.numpy(), "tensor", 0, max_pixels)


def _from_array(array: NDArray[Any], kind: str, axis: int, max_pixels: int) -> ImageArray:
    """Convert an array whose channels, if it has some, are expected on `axis` (0 or 2)."""
    shape = array.shape
    if array.ndim == 3:
        other = 2 - axis
        if shape[axis] not in CHANNELS and shape[other] in CHANNELS:
            axis = other
        if axis == 0:
            array = array.transpose(1, 2, 0)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in CHANNELS):
        hint = "give list(batch)" if array.ndim == 4 else _HINT
        raise ImageError(f"an image {kind} of type {array.dtype} and shape {shape}", hint=hint)
    if not array.size:
        raise ImageError(f"an image {kind} of shape {shape}, without pixels", hint=_HINT)
    if array.shape[0] * array.shape[1] > max_pixels:
        problem = f"an image {kind} of shape {shape} exceeds the cap of {max_pixels:,} pixels"
        raise ImageError(problem, hint="shrink the image, or detect on parts of it")
    values = np.ascontiguousarray(_as_uint8(array, kind))
    if values.ndim == 3 and values.shape[2] == 3:
        return values
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    return upright_rgb(Image.fromarray(values), kind, max_pixels=max_pixels)


def _as_uint8(array: NDArray[Any], kind: str) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    hint = "give uint8 from 0 to 255, or floats in [0, 1], before any normalization"
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageError(f"an image {kind} of type {array.dtype}", hint=hint)
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # also true of NaN
        found = "NaN" if np.isnan(low) else f"values from {low:g} to {high:g}"
        if low >= 0 and 2 < high <= 255:
            hint = "divide them by 255, or give uint8"
        raise ImageError(f"an image {kind} of type {array.dtype} with {found}", hint=hint)
    # In float32 every k / 255 comes back as k.
    steps: NDArray[np.float32] = np.rint(array.astype(np.float32, copy=False) * np.float32(255))
    return steps.astype(np.uint8)
