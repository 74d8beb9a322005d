"""Fixtures that several test files share."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def voc_root() -> Path:
    """The folder of a real `VOC2007`; skips where no Pascal VOC data is at hand."""
    devkit = Path(os.environ.get("SPPDET_VOC", ROOT.parent / "shared" / "data" / "VOCdevkit"))
    folder = devkit / "VOC2007"
    if not (folder / "Annotations").is_dir():
        pytest.skip(f"no Pascal VOC 2007 under {devkit}; set SPPDET_VOC to a VOCdevkit folder")
    return folder


@pytest.fixture(scope="session")
def sets_root() -> Path:
    """The folder of other people's data sets, as they lie there; skips where it is not at hand."""
    folder = Path(os.environ.get("SPPDET_SETS", ROOT.parent / "shared" / "data" / "sets"))
    if not folder.is_dir():
        pytest.skip(f"no data sets under {folder}; set SPPDET_SETS to their folder")
    return folder


def _is_here(host: object) -> bool:
    if not host or host in ("localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Refuses every connection and look-up that would leave this machine."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
            raise RuntimeError(f"a test reached for the network: {address}")
        connect(self, address)

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_here(host):
            raise RuntimeError(f"a test reached for the network: {host}")
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield
