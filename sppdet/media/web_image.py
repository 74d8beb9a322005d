"""Images at `https://` addresses, which are reached only when one is given."""

from __future__ import annotations

import re
import time
from http.client import HTTPException, HTTPMessage, HTTPResponse
from io import BytesIO
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from sppdet.core.errors import ImageError
from sppdet.core.images import MAX_PIXELS, read_image
from sppdet.core.types import ImageArray

SCHEME = "https://"
MAX_BYTES = 64 << 20
# For a connection and for each wait; for all of it.
TIMEOUT_SECONDS = 20.0
TOTAL_SECONDS = 120.0

_CHUNK = 1 << 16
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# Characters of addresses; what else one holds (a space, a letter of another script) is quoted.
_RESERVED = "%/:=&?~#+!$,;'@()*[]"


def is_address(name: str) -> bool:
    """Tell whether a name is an address of any kind (`scheme://`), rather than a file's."""
    return _ADDRESS.match(name) is not None


def is_web_address(name: str) -> bool:
    """Tell whether a name is an `https://` address."""
    return name[: len(SCHEME)].lower() == SCHEME


def web_stem(address: str) -> str:
    """Return the last part of an address without its suffix, or else its host."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    last = unquote(parts.path.rstrip("/").rpartition("/")[2])
    return last.rpartition(".")[0] or last or parts.netloc


def fetch_image(address: str, *, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Fetch and read an image, `uint8 (H, W, 3)`, as `read_image` reads a file's.

    Raises:
        ImageError: no such address or server, another answer than 200, more than `MAX_BYTES`, too
            slow, sent on to what is not `https://`, or as `read_image`.
    """
    data = fetch(address)
    if not data:
        raise ImageError("gives 0 bytes", path=address, hint="check the address")
    return read_image(BytesIO(data), name=address, max_pixels=max_pixels)


def fetch(address: str) -> bytes:
    """Fetch what is at an `https://` address; raises ImageError as `fetch_image`."""
    if not is_web_address(address):
        raise ImageError("is not an https:// address", path=address, hint="download it yourself")
    try:
        request = Request(quote(address, safe=_RESERVED), headers={"User-Agent": "sppdet"})
        with _opener().open(request, timeout=TIMEOUT_SECONDS) as answer:
            return _read(answer, address)
    except HTTPError as error:
        with error:
            problem = f"the server answers {error.code} {error.reason}"
        raise ImageError(problem, path=address, hint="check the address") from None
    # Refused, unknown, a wrong certificate, cut off; an address that cannot be (ValueError).
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        problem = f"cannot be fetched ({reason or type(error).__name__})"
        hint = "check the address and the network"
        raise ImageError(problem, path=address, hint=hint) from None


def _opener() -> OpenerDirector:
    """Make an opener that knows https only: no http, ftp, file or data."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        HTTPSHandler(),
        HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(),
        _SecureRedirects(),
    ):
        opener.add_handler(handler)
    return opener


class _SecureRedirects(HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if not is_web_address(newurl):
            hint = "give the address of the image itself"
            problem = f"sends on to what is not {SCHEME} ({newurl})"
            raise ImageError(problem, path=req.full_url, hint=hint)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _read(answer: HTTPResponse, address: str) -> bytes:
    """Read an answer's body piece by piece; ImageError if it is too long, cut off or too slow."""
    length = answer.headers.get("Content-Length", "")
    expected = int(length) if length.isascii() and length.isdigit() else None
    end = time.monotonic() + TOTAL_SECONDS
    data = bytearray()
    while len(data) <= MAX_BYTES and (expected is None or expected <= MAX_BYTES):
        piece = answer.read1(min(_CHUNK, MAX_BYTES + 1 - len(data)))
        if not piece:
            if expected is not None and len(data) < expected:
                problem = f"was cut off after {len(data):,} of {expected:,} bytes"
                raise ImageError(problem, path=address, hint="try again")
            return bytes(data)
        data += piece
        if time.monotonic() > end:
            problem = f"took more than {TOTAL_SECONDS:g} seconds"
            raise ImageError(problem, path=address, hint="download it yourself")
    problem = f"has more than {MAX_BYTES >> 20} MB"
    raise ImageError(problem, path=address, hint="download and shrink it")
