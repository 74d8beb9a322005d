"""Images at addresses: https only, bounded, and whatever goes wrong is one line."""

from __future__ import annotations

import io
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppdet.core.errors import ImageError
from sppdet.media import as_image, find_sources, web_image
from sppdet.media.web_image import fetch, fetch_image, is_address, is_web_address

PIXELS = np.random.RandomState(0).randint(0, 256, (5, 7, 3)).astype(np.uint8)


def as_png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG")
    return stream.getvalue()


class Answers(BaseHTTPRequestHandler):
    """Answers by the path that is asked for."""

    asked: tuple[str, ...] = ()

    def do_GET(self) -> None:
        """One answer per kind of trouble."""
        type(self).asked += (self.path,)
        kind, _, rest = self.path[1:].partition("/")
        if kind == "to":
            self.send_response(302)
            self.send_header("Location", "/" + rest if rest.startswith(("to/", "a")) else rest)
            self.end_headers()
        elif kind == "round":
            self.send_response(301)
            self.send_header("Location", f"/round/{rest}x")
            self.end_headers()
        elif kind in ("404", "500"):
            self.send_error(int(kind))
        else:
            self.send_response(200)
            data = b"" if kind == "empty" else b"<html>" if kind == "page" else as_png()
            if kind == "announced":
                self.send_header("Content-Length", str(web_image.MAX_BYTES + 1))
            elif kind != "unannounced":
                self.send_header("Content-Length", str(len(data) + 9 * (kind == "cut")))
            self.end_headers()
            self.wfile.write(data)
            if kind == "unannounced":
                self.wfile.write(bytes(4096))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of an https server on this machine, and its certificate."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=localhost", "-addext"]
    names = ["subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([openssl, *words, *names], cwd=folder, check=True, capture_output=True)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    httpd.socket = own.wrap_socket(httpd.socket, server_side=True)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"https://localhost:{httpd.server_address[1]}", folder / "cert.pem"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def server(certified: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the server, whose certificate is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certified[1]))
    return certified[0]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("path", ["a.png", "a%20b.png?size=1", "a b.png", "ä.png", "to/a.png"])
def test_an_image_comes_as_from_a_file(server: str, path: str) -> None:
    address = f"{server}/{path}"
    np.testing.assert_array_equal(as_image(address), PIXELS)
    (source,) = find_sources([address]).images
    np.testing.assert_array_equal(source.read(), PIXELS)


def test_the_cap_on_pixels_holds(server: str) -> None:
    with pytest.raises(ImageError, match=r"a\.png: 7x5 pixels exceeds the cap of 34"):
        fetch_image(f"{server}/a.png", max_pixels=34)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("404", "the server answers 404 Not Found; check the address"),
        ("500", "the server answers 500"),
        ("empty", "gives 0 bytes"),
        ("page", "not an image of an accepted format"),
        ("cut", "was cut off after"),
        ("announced", "has more than 64 MB"),
        ("round/", "the server answers 301"),
        ("to/http://localhost/a.png", r"sends on to what is not https:// \(http://localhost/"),
        ("to/ftp://localhost/a.png", r"sends on to what is not https:// \(ftp://localhost/"),
        ("to/file:///etc/passwd", "answers 302.*not allowed"),
        ("to/to/http://localhost/a.png", r"sends on to what is not https://"),
    ],
)
def test_what_goes_wrong_is_one_line(server: str, path: str, message: str) -> None:
    address = f"{server}/{path}"
    with pytest.raises(ImageError, match=message) as caught:
        fetch_image(address)
    assert str(caught.value).startswith(server)
    assert "\n" not in str(caught.value)


def test_a_body_without_a_length_is_read_to_the_cap(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{server}/unannounced"
    assert len(fetch(address)) == len(as_png()) + 4096
    monkeypatch.setattr(web_image, "MAX_BYTES", 4096)
    with pytest.raises(ImageError, match="has more than 0 MB; download and shrink it"):
        fetch(address)


def test_too_slow_a_server_is_left(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_image, "TOTAL_SECONDS", -1.0)
    with pytest.raises(ImageError, match="took more than -1 seconds"):
        fetch(f"{server}/a.png")


def test_an_unknown_certificate_is_refused(certified: tuple[str, Path]) -> None:
    Answers.asked = ()
    with pytest.raises(ImageError, match=r"cannot be fetched .*CERTIFICATE_VERIFY_FAILED"):
        as_image(f"{certified[0]}/a.png")
    assert Answers.asked == ()


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(
        ImageError, match=r"https://localhost:1/a\.png: cannot be fetched \(.*refus"
    ):
        fetch_image("https://localhost:1/a.png")


@pytest.mark.parametrize("address", ["https://", "https://[", "https://u:secret@localhost/a.png"])
def test_addresses_that_cannot_be(address: str) -> None:
    with pytest.raises(ImageError, match="cannot be fetched"):
        fetch_image(address)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("https://a/b.png", "web"),
        ("HTTPS://a/b.png", "web"),
        ("http://a/b.png", "other"),
        ("s3://a/b.png", "other"),
        ("https:/a/b.png", "file"),
        ("./https://a", "file"),
        (" https://a", "file"),
        ("C://photos/a.png", "file"),
        ("a.png", "file"),
    ],
)
def test_what_is_an_address(name: str, kind: str) -> None:
    assert is_address(name) == (kind != "file")
    assert is_web_address(name) == (kind == "web")


def test_only_reading_reaches_an_address(tmp_path: Path) -> None:
    (source,) = find_sources(["https://example.invalid/a.png"]).images  # would raise in this suite
    assert source.error is None
