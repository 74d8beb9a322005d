"""Lists of images: names of files, one a line, or with a NUL after each (`find -print0`)."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from sppdet.core.errors import ImageError

# Of JPEG and PNG, the slips that are likely.
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_list(path: Path) -> list[str]:
    """Read the names that a list file holds.

    A name is meant from the working folder, as whatever wrote the list was in it; one that is not
    there but beside the list, from the list's folder.

    Raises:
        ImageError: no such file, it cannot be read, or it names nothing.
    """
    hint = "give a text file of paths, one a line, as @list.txt"
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"the list cannot be read ({reason})", path=path, hint=hint) from None
    return [_locate(name, path.parent) for name in split_names(data, str(path))]


def split_names(data: bytes, source: str) -> list[str]:
    """Split the bytes of a list into names.

    Names with a NUL after each are taken as they are. Else there is one a line; spaces around it,
    empty lines and a byte order mark are left out. Bytes that are no UTF-8 are kept for the file
    system (`os.fsdecode`).

    Raises:
        ImageError: `source` names nothing, or is an image.
    """
    if data.startswith(_IMAGES):
        hint = "give the image file itself"
        raise ImageError("is an image, not a list of images", path=source, hint=hint)
    if data.startswith(_UTF16):
        lines = data.decode("utf-16", "replace").splitlines()
    elif b"\0" in data:
        lines = [os.fsdecode(one) for one in data.split(b"\0")]
        return _checked([one for one in lines if one], source)
    else:
        data = data.removeprefix(codecs.BOM_UTF8)
        # Not `str.splitlines`, which also splits at characters that a name may hold.
        lines = [os.fsdecode(one) for one in data.replace(b"\r\n", b"\n").split(b"\n")]
    return _checked([line.strip() for line in lines if line.strip()], source)


def _checked(names: list[str], source: str) -> list[str]:
    if not names:
        raise ImageError("names no images", path=source, hint="give one path a line")
    return names


def _locate(name: str, folder: Path) -> str:
    beside = folder / name
    return str(beside) if not os.path.lexists(name) and os.path.lexists(beside) else name
