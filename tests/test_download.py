"""Fetching archives: from a server on the loopback, resumed, verified, and safely unpacked."""

from __future__ import annotations

import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from torchvision.datasets.voc import DATASET_YEAR_DICT

from sppdet.datasets import ARCHIVES, download_voc
from sppdet.datasets.download import Archive, fetch, install, unpack
from sppdet.errors import DatasetError

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
ARCHIVE = Archive("voc.tar", len(DATA), hashlib.sha256(DATA).hexdigest())


@dataclass
class Server:
    """What the loopback server does next, and the `Range` headers that it got."""

    url: str = ""
    data: bytes = DATA
    break_after: int | None = None
    ranges: bool = True
    status: int = 200
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            start = int(wanted[len("bytes=") : -1]) if wanted and state.ranges else 0
            if state.status != 200:
                self.send_error(state.status)
                return
            body = state.data[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.break_after])

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
    for key, archive in ARCHIVES.items():
        source = DATASET_YEAR_DICT[key]
        assert source["filename"] == archive.name
        assert source["url"].startswith("https://")
        assert source["md5"] == md5[key]
        assert source["base_dir"] == f"VOCdevkit/VOC{key[:4]}"
        assert len(archive.sha256) == 64


def test_without_a_network_the_error_says_so(tmp_path: Path, no_network: None) -> None:
    small = Archive("voc.tar", 10, "0" * 64)
    with pytest.raises(
        DatasetError, match=r"the download stopped .*; check the network and run it"
    ):
        install(small, "https://voc.invalid/voc.tar", tmp_path / "new")
    with pytest.raises(DatasetError, match=r"the download stopped|GB are free"):
        download_voc(tmp_path, "2007")


def test_install_fetches_unpacks_and_cleans_up(tmp_path: Path, server: Server) -> None:
    seen: list[tuple[int, int]] = []
    install(ARCHIVE, server.url, tmp_path / "a", progress=lambda *at: seen.append(at))
    assert_installed(tmp_path / "a")
    assert seen[-1] == (len(DATA), len(DATA))
    assert server.asked == [None]


def test_a_second_install_touches_no_network(tmp_path: Path, server: Server) -> None:
    install(ARCHIVE, server.url, tmp_path)
    install(ARCHIVE, server.url, tmp_path)
    assert len(server.asked) == 1


def test_an_interrupted_fetch_goes_on_where_it_stopped(tmp_path: Path, server: Server) -> None:
    server.break_after = 3000
    with pytest.raises(DatasetError, match="goes on from where it stopped"):
        install(ARCHIVE, server.url, tmp_path)
    assert (tmp_path / "voc.tar.part").read_bytes() == DATA[:3000]
    server.break_after = None
    install(ARCHIVE, server.url, tmp_path)
    assert server.asked == [None, "bytes=3000-"]
    assert_installed(tmp_path)


def test_a_server_without_ranges_starts_over(tmp_path: Path, server: Server) -> None:
    (tmp_path / "voc.tar.part").write_bytes(DATA[:100])
    server.ranges = False
    install(ARCHIVE, server.url, tmp_path)
    assert_installed(tmp_path)


def test_a_whole_part_needs_no_network(tmp_path: Path, no_network: None) -> None:
    (tmp_path / "voc.tar.part").write_bytes(DATA)
    install(ARCHIVE, "https://voc.invalid/voc.tar", tmp_path)
    assert_installed(tmp_path)


def test_an_archive_fetched_by_hand_is_used(tmp_path: Path, no_network: None) -> None:
    (tmp_path / "voc.tar").write_bytes(DATA)
    install(ARCHIVE, "https://voc.invalid/voc.tar", tmp_path)
    assert_installed(tmp_path)


@pytest.mark.parametrize("part", [b"", b"x" * 100, b"x" * len(DATA), b"x" * (len(DATA) + 1)])
def test_wrong_bytes_are_deleted_and_the_next_call_succeeds(
    tmp_path: Path, server: Server, part: bytes
) -> None:
    (tmp_path / "voc.tar.part").write_bytes(part)
    if part and len(part) <= len(DATA):
        with pytest.raises(DatasetError, match="not the pinned file"):
            install(ARCHIVE, server.url, tmp_path)
        assert list(tmp_path.iterdir()) == []
    install(ARCHIVE, server.url, tmp_path)
    assert_installed(tmp_path)


def test_a_longer_file_is_cut_off_and_a_flipped_one_refused(tmp_path: Path, server: Server) -> None:
    server.data = DATA + b"more" * 1000
    fetch(ARCHIVE, server.url, tmp_path / "voc.tar")
    assert (tmp_path / "voc.tar").read_bytes() == DATA
    server.data = b"X" + DATA[1:]
    with pytest.raises(DatasetError, match="not the pinned file"):
        fetch(ARCHIVE, server.url, tmp_path / "other.tar")


@pytest.mark.parametrize("status", [404, 416, 500])
def test_http_errors_are_told(tmp_path: Path, server: Server, status: int) -> None:
    server.status = status
    (tmp_path / "voc.tar.part").write_bytes(DATA[:100])
    with pytest.raises(DatasetError, match=f"the download stopped .HTTP {status}"):
        install(ARCHIVE, server.url, tmp_path)
    server.status = 200
    install(ARCHIVE, server.url, tmp_path)
    assert_installed(tmp_path)


def test_too_little_space_is_told_before_the_fetch(tmp_path: Path, no_network: None) -> None:
    huge = Archive("voc.tar", 10**18, "0" * 64)
    with pytest.raises(DatasetError, match="GB are free; free some space"):
        install(huge, "https://voc.invalid/voc.tar", tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path, no_network: None) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="cannot write there"):
        install(ARCHIVE, "https://voc.invalid/voc.tar", tmp_path / "file" / "sub")


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
