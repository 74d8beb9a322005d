"""Pascal VOC archives from torchvision's addresses, against pinned SHA-256 digests."""

from __future__ import annotations

import hashlib
import shutil
import socket
import ssl
import tarfile
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

from sppdet.core.errors import DatasetError
from sppdet.core.files import atomic_write_text

TIMEOUT_SECONDS = 60.0
# By torchvision's name of the archive; digests as recorded by tensorflow/datasets
# (url_checksums/voc.txt), which agree with those of pytorch/vision's prototype.
ARCHIVES = {
    "2007": "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
    "2007-test": "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
    "2012": "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
}


def download_voc(root: Path, which: str, *, progress: bool = False) -> Path:
    """Download and unpack `which` of `ARCHIVES`; return the folder `root/VOCdevkit/VOC<year>`.

    Does nothing if it was unpacked before. `progress` shows torch's bar on standard error.

    Raises:
        DatasetError: unknown `which`, no network, a full disk, or bytes other than the pinned.
    """
    if which not in ARCHIVES:
        raise DatasetError(
            f"there is no download {which!r}", hint=f"choose one of {', '.join(ARCHIVES)}"
        )
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    url = str(DATASET_YEAR_DICT[which]["url"])
    if not url.startswith("https://"):
        raise DatasetError(f"{url} is not https", hint="install a newer torchvision")
    install(url, ARCHIVES[which], root, progress=progress)
    return root / "VOCdevkit" / f"VOC{which[:4]}"


def install(url: str, sha256: str, root: Path, *, progress: bool = False) -> None:
    """Download a tar file into `root`, unpack it there, and delete it.

    A marker file, written last, records what was unpacked. An archive that is already in `root`
    with the right digest is used as it is.

    Raises:
        DatasetError: as `download_voc`.
    """
    path = root / url.rsplit("/", 1)[-1]
    marker = root / f".{path.name}.unpacked"
    if marker.is_file() and marker.read_text(encoding="utf-8").strip() == sha256:
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not (path.is_file() and _file_digest(path) == sha256):
            _fetch(url, sha256, path, progress=progress)
        unpack(path, root)
        atomic_write_text(marker, sha256 + "\n")
        path.unlink()
    except (OSError, shutil.Error) as error:
        raise DatasetError(
            f"cannot write there ({getattr(error, 'strerror', None) or error})",
            path=root,
            hint="check the folder and the free space, then run it again",
        ) from error


def unpack(path: Path, root: Path) -> None:
    """Unpack a tar file's regular files and folders under `root`, over what is there.

    Raises:
        DatasetError: not a whole tar file, or a member that is a link or device, or that would
            land outside `root`.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            tar.extractall(root, filter=_plain_member)
    except tarfile.TarError as error:
        raise DatasetError(
            f"cannot be unpacked safely ({error})", path=path, hint="delete it and fetch it again"
        ) from error


def _plain_member(member: tarfile.TarInfo, root: str) -> tarfile.TarInfo | None:
    if not (member.isfile() or member.isdir()):
        raise tarfile.FilterError(f"{member.name!r} is a link or a device")
    return tarfile.data_filter(member, root)


def _fetch(url: str, sha256: str, path: Path, *, progress: bool) -> None:
    """Write `url` to `path`, which appears whole and verified or not at all."""
    from torch.hub import download_url_to_file

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)  # torch sets none: a dead server would block forever
    try:
        download_url_to_file(url, str(path), hash_prefix=sha256, progress=progress)
    except (URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        reason = error.reason if type(error) is URLError else error
        raise DatasetError(
            f"the download stopped ({reason})",
            path=url,
            hint="check the network and run it again",
        ) from None
    except RuntimeError:
        raise DatasetError(
            "what came is cut off or not the pinned file (its SHA-256 differs), and was deleted",
            path=url,
            hint="run it again; if it happens twice, fetch the file by hand from another source",
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
