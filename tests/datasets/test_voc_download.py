"""Downloading archives: from a server on the loopback, verified, and safely unpacked."""

from __future__ import annotations

import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from torchvision.datasets.voc import DATASET_YEAR_DICT

from sppdet.core.errors import DatasetError
from sppdet.datasets import download_voc, voc_download
from sppdet.datasets.voc_download import ARCHIVES, install, unpack

CONTENT = {
    "VOCdevkit/VOC2007/Annotations/000001.xml": b"<annotation/>",
    "VOCdevkit/VOC2007/JPEGImages/000001.jpg": bytes(range(256)) * 40,
}


def tar_bytes(members: dict[str, bytes], special: tarfile.TarInfo | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        if special is not None:
            tar.addfile(special)
    return stream.getvalue()


DATA = tar_bytes(CONTENT)
SHA256 = hashlib.sha256(DATA).hexdigest()
URL = "https://voc.invalid/voc.tar"


@dataclass
class Server:
    """What the loopback server does next, and how often it was asked."""

    url: str = ""
    data: bytes = DATA
    break_after: int | None = None
    status: int = 200
    asked: int = 0


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked += 1
            if state.status != 200:
                self.send_error(state.status)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(state.data)))
            self.end_headers()
            self.wfile.write(state.data[: state.break_after])

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_address[1]}/voc.tar"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("the network is blocked in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def assert_installed(root: Path) -> None:
    for name, data in CONTENT.items():
        assert (root / name).read_bytes() == data
    names = {path.name for path in root.iterdir()}
    assert names == {"VOCdevkit", ".voc.tar.unpacked"}


def test_nothing_is_fetched_for_an_unknown_name(tmp_path: Path, no_network: None) -> None:
    with pytest.raises(
        DatasetError, match="no download '2013'; choose one of 2007, 2007-test, 2012"
    ):
        download_voc(tmp_path, "2013")


def test_pins_belong_to_torchvisions_archives() -> None:
    md5 = {
        "2007": "c52e279531787c972589f7e41ab4ae64",
        "2007-test": "b6e924de25625d8de591ea690078ad9f",
        "2012": "6cd6e144f989b92b3379bac3b3de84fd",
    }
    assert ARCHIVES.keys() == md5.keys()
    for key, sha256 in ARCHIVES.items():
        source = DATASET_YEAR_DICT[key]
        assert source["url"].startswith("https://")
        assert source["md5"] == md5[key]
        assert source["base_dir"] == f"VOCdevkit/VOC{key[:4]}"
        assert len(sha256) == 64


def test_an_address_without_https_is_refused(
    tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASET_YEAR_DICT, "2007", {"url": "http://voc.invalid/voc.tar"})
    with pytest.raises(DatasetError, match=r"http://voc\.invalid/voc\.tar is not https"):
        download_voc(tmp_path, "2007")
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_error_says_so(tmp_path: Path, no_network: None) -> None:
    stopped = r"the download stopped \(the network is blocked in this test\); check the network"
    with pytest.raises(DatasetError, match=stopped):
        install(URL, SHA256, tmp_path / "new")
    with pytest.raises(DatasetError, match=stopped):
        download_voc(tmp_path / "new", "2007")
    assert list((tmp_path / "new").iterdir()) == []


def test_install_downloads_unpacks_and_cleans_up(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    install(server.url, SHA256, tmp_path / "quiet")
    assert capsys.readouterr().err == ""
    install(server.url, SHA256, tmp_path / "shown", progress=True)
    assert "100" in capsys.readouterr().err
    assert_installed(tmp_path / "quiet")
    assert_installed(tmp_path / "shown")
    assert server.asked == 2


def test_a_second_install_touches_no_network(tmp_path: Path, server: Server) -> None:
    install(server.url, SHA256, tmp_path)
    install(server.url, SHA256, tmp_path)
    assert server.asked == 1


def test_an_archive_fetched_by_hand_is_used(tmp_path: Path, no_network: None) -> None:
    (tmp_path / "voc.tar").write_bytes(DATA)
    install(URL, SHA256, tmp_path)
    assert_installed(tmp_path)


def test_wrong_bytes_by_hand_are_replaced(tmp_path: Path, server: Server) -> None:
    (tmp_path / "voc.tar").write_bytes(b"x" * len(DATA))
    install(server.url, SHA256, tmp_path)
    assert_installed(tmp_path)


@pytest.mark.parametrize(
    ("data", "break_after"),
    [(DATA, 0), (DATA, 3000), (b"", None), (b"X" + DATA[1:], None), (DATA + b"more", None)],
)
def test_other_bytes_are_deleted_and_the_next_call_succeeds(
    tmp_path: Path, server: Server, data: bytes, break_after: int | None
) -> None:
    server.data, server.break_after = data, break_after
    with pytest.raises(DatasetError, match="cut off or not the pinned file"):
        install(server.url, SHA256, tmp_path)
    assert list(tmp_path.iterdir()) == []
    server.data, server.break_after = DATA, None
    install(server.url, SHA256, tmp_path)
    assert_installed(tmp_path)


@pytest.mark.parametrize("status", [404, 500])
def test_http_errors_are_told(tmp_path: Path, server: Server, status: int) -> None:
    server.status = status
    with pytest.raises(DatasetError, match=f"the download stopped .HTTP Error {status}"):
        install(server.url, SHA256, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_archive_is_not_marked_as_unpacked(tmp_path: Path, server: Server) -> None:
    server.data = tar_bytes({"../escaped": b"x"})
    for _ in range(2):
        with pytest.raises(DatasetError, match="cannot be unpacked safely"):
            install(server.url, hashlib.sha256(server.data).hexdigest(), tmp_path / "root")
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["voc.tar"]
    assert not (tmp_path / "escaped").exists()


def test_a_server_that_says_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voc_download, "TIMEOUT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/voc.tar"
        with pytest.raises(DatasetError, match=r"the download stopped .*timed out"):
            install(url, SHA256, tmp_path)
    assert socket.getdefaulttimeout() is None


def test_a_folder_that_cannot_be_made(tmp_path: Path, no_network: None) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="cannot write there"):
        install(URL, SHA256, tmp_path / "file" / "sub")


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


@pytest.mark.parametrize(
    ("members", "special"),
    [
        ({"../escaped": b"x"}, None),
        ({"a/../../escaped": b"x"}, None),
        ({"a": b"x"}, link("b", tarfile.SYMTYPE, "/etc/passwd")),
        ({"a": b"x"}, link("b", tarfile.LNKTYPE, "a")),
        ({"a": b"x"}, link("b", tarfile.FIFOTYPE, "")),
    ],
)
def test_members_that_escape_or_link_are_refused(
    tmp_path: Path, members: dict[str, bytes], special: tarfile.TarInfo | None
) -> None:
    path = tmp_path / "bad.tar"
    path.write_bytes(tar_bytes(members, special))
    root = tmp_path / "deep" / "root"
    root.mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"bad\.tar: cannot be unpacked safely"):
        unpack(path, root)
    assert not list(tmp_path.rglob("escaped"))
    assert not (root / "b").exists()


def test_what_is_no_tar_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.tar"
    path.write_bytes(b"hello" * 500)
    with pytest.raises(DatasetError, match="cannot be unpacked safely"):
        unpack(path, tmp_path)
