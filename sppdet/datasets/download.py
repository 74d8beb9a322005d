"""Pascal VOC from its own server, only when asked for: resumed, verified, safely unpacked.

Addresses are torchvision's; sizes and digests are pinned here, so neither a mirror nor a broken
transfer can put other bytes in place. A partial file is kept and the next call goes on from it.
"""

from __future__ import annotations

import hashlib
import shutil
import ssl
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from sppdet.errors import DatasetError
from sppdet.files import atomic_write_text

# Called with bytes so far and bytes in all.
Progress = Callable[[int, int], None]

TIMEOUT_SECONDS = 60.0
_CHUNK = 1 << 20
_RANGE_NOT_SATISFIABLE = 416
_BROKEN_LINE = (TimeoutError, ConnectionError, ssl.SSLError)


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar file to fetch: its name here, exact size in bytes, and SHA-256."""

    name: str
    size: int
    sha256: str


# Keys are those of torchvision's table of VOC archives. Sizes and SHA-256 digests as recorded by
# tensorflow/datasets (url_checksums/voc.txt); the digests agree with pytorch/vision's prototype.
ARCHIVES: dict[str, Archive] = {
    "2007": Archive(
        "VOCtrainval_06-Nov-2007.tar",
        460_032_000,
        "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
    ),
    "2007-test": Archive(
        "VOCtest_06-Nov-2007.tar",
        451_020_800,
        "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
    ),
    "2012": Archive(
        "VOCtrainval_11-May-2012.tar",
        1_999_639_040,
        "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
    ),
}


def download_voc(root: Path, which: str, *, progress: Progress | None = None) -> Path:
    """Fetch `which` of `ARCHIVES` and unpack it: the `root/VOCdevkit/VOC<year>` folder.

    Does nothing where it was unpacked before; interrupted, the next call goes on. The archive is
    deleted once it is unpacked.

    Raises:
        DatasetError: unknown `which`, no network, a full disk, or bytes that are not the pinned
            ones.
    """
    archive = ARCHIVES.get(which)
    if archive is None:
        raise DatasetError(
            f"there is no download {which!r}", mend=f"choose one of {', '.join(ARCHIVES)}"
        )
    from torchvision.datasets.voc import DATASET_YEAR_DICT  # slow to import, and seldom needed

    url = str(DATASET_YEAR_DICT[which]["url"])
    if urllib.parse.urlsplit(url).scheme != "https":
        raise DatasetError(f"{url} is not https", mend="install a newer torchvision")
    install(archive, url, root, progress=progress)
    return root / "VOCdevkit" / f"VOC{which[:4]}"


def install(archive: Archive, url: str, root: Path, *, progress: Progress | None = None) -> None:
    """Fetch `url` into `root`, verify it against `archive`, unpack it, and delete it.

    A marker file, written last, records what was unpacked.
    """
    marker = root / f".{archive.name}.unpacked"
    if marker.is_file() and marker.read_text(encoding="utf-8").strip() == archive.sha256:
        return
    path = root / archive.name
    try:
        root.mkdir(parents=True, exist_ok=True)
        fetch(archive, url, path, progress=progress)
        unpack(path, root)
        atomic_write_text(marker, archive.sha256 + "\n")
        path.unlink()
    except OSError as error:
        raise DatasetError(
            f"cannot write there ({error.strerror or error})",
            where=root,
            mend="check the folder and the free space, then run it again: it goes on from here",
        ) from error


def fetch(archive: Archive, url: str, path: Path, *, progress: Progress | None = None) -> None:
    """Make `path` the verified archive, going on from `<path>.part` if an earlier call left one.

    Raises:
        DatasetError: no network, too little space, or wrong bytes (these are deleted).
    """
    if path.is_file() and path.stat().st_size == archive.size and _sha256(path) == archive.sha256:
        return
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.is_file() else 0
    if have > archive.size:
        part.unlink()
        have = 0
    # The unpacked files take about as much again as the archive.
    free, needed = shutil.disk_usage(path.parent).free, 2 * archive.size - have
    if free < needed:
        raise DatasetError(
            f"needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            where=path.parent,
            mend="free some space, or choose another folder",
        )
    if have < archive.size:
        _transfer(url, part, have, archive.size, progress)
    if part.stat().st_size != archive.size or _sha256(part) != archive.sha256:
        part.unlink()
        raise DatasetError(
            "what came is not the pinned file (size or SHA-256 differ), and was deleted",
            where=url,
            mend="run it again; if it happens twice, fetch the file by hand from another source",
        )
    part.replace(path)


def unpack(path: Path, root: Path) -> None:
    """Unpack a tar file's regular files and folders under `root`; overwrites what is there.

    Raises:
        DatasetError: not a whole tar file, or a member that is a link or device, or would land
            outside `root`.
    """
    if not hasattr(tarfile, "data_filter"):
        raise DatasetError(
            "this Python cannot unpack safely (PEP 706)", mend="use Python 3.11.4 or newer"
        )
    try:
        with tarfile.open(path, "r:") as tar:
            tar.extractall(root, filter=_plain_members)
    except tarfile.TarError as error:
        raise DatasetError(
            f"cannot be unpacked safely ({error})", where=path, mend="delete it and fetch it again"
        ) from error


def _plain_members(member: tarfile.TarInfo, root: str) -> tarfile.TarInfo | None:
    if not (member.isfile() or member.isdir()):
        raise tarfile.FilterError(f"{member.name!r} is a link or a device")
    return tarfile.data_filter(member, root)


def _transfer(url: str, part: Path, have: int, size: int, progress: Progress | None) -> None:
    """Append to `part` what it lacks of `size` bytes, and never more than that."""
    request = urllib.request.Request(url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            if urllib.parse.urlsplit(url).scheme != urllib.parse.urlsplit(response.url).scheme:
                raise DatasetError(f"redirects to {response.url}", where=url, mend="try later")
            resumed = have > 0 and _starts_at(response, have)
            with part.open("ab" if resumed else "wb") as stream:
                done = have if resumed else 0
                while done < size and (chunk := response.read(min(_CHUNK, size - done))):
                    stream.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, size)
    except urllib.error.HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE:
            part.unlink()
        raise _unreachable(url, f"HTTP {error.code} {error.reason}") from None
    except (urllib.error.URLError, HTTPException, *_BROKEN_LINE) as error:
        raise _unreachable(url, str(getattr(error, "reason", error) or error)) from None
    if done < size:
        raise _unreachable(url, f"the connection closed after {done:,} of {size:,} bytes")


def _starts_at(response: HTTPResponse, offset: int) -> bool:
    content_range = response.headers.get("Content-Range", "")
    return response.status == 206 and content_range.startswith(f"bytes {offset}-")


def _unreachable(url: str, why: str) -> DatasetError:
    return DatasetError(
        f"the download stopped ({why})",
        where=url,
        mend="check the network and run it again: it goes on from where it stopped",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
