"""What a user sees of errors and notes: one line each, more of them only where asked for."""

from __future__ import annotations

import errno
import logging
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sppdet.cli.main import _options_first
from sppdet.cli.terminal import notes
from sppdet.cli.terminal.failures import describe, tell
from sppdet.core.errors import DatasetError, printable
from tests.cli.conftest import Run, assert_one_line, training


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DatasetError("is empty", path="a.txt", hint="fill it"), "a.txt: is empty; fill it"),
        (OSError(errno.ENOSPC, "No space left on device", "run/a"), "run/a: No space left"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied; change"),
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory"),
        (KeyError("x"), "KeyError: 'x'; this is a bug of sppdet: report it"),
        (AssertionError(), "AssertionError; this is a bug"),
        (ValueError("two\nlines"), "ValueError: two lines; this is a bug"),
        (OSError("odd"), "OSError: odd; this is a bug"),
    ],
)
def test_an_error_is_one_line(error: Exception, words: str) -> None:
    assert describe(error).startswith(words)
    assert "\n" not in describe(error)


def test_only_debugging_shows_where_an_error_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise KeyError("x")

    shown = []
    for debug in (False, True):
        try:
            notes.show(debug=debug)
            fail()
        except KeyError as error:
            tell(error)
        finally:
            notes.hide()
        shown.append(capsys.readouterr().err)
    assert len(shown[0].splitlines()) == 1
    assert "Traceback" in shown[1]
    assert "in fail" in shown[1]
    assert shown[1].endswith(shown[0])


def test_notes_of_the_package_are_shown_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("sppdet.somewhere")
    shown = []
    for options in ({}, {"quiet": True}, {"debug": True}):
        notes.show(**options)
        try:
            log.debug("d")
            log.info("i")
            log.warning("w")
        finally:
            notes.hide()
        shown.append([line.rpartition(" ")[2] for line in capsys.readouterr().err.splitlines()])
    assert shown == [["i", "w"], ["w"], ["d", "i", "w"]]
    log.warning("for whom it may concern")
    assert capsys.readouterr().err == ""


def test_the_programs_own_options_may_stand_anywhere() -> None:
    words = ["detect", "a", "--quiet", "--", "--debug"]
    assert _options_first(words) == ["--quiet", "detect", "a", "--", "--debug"]


def test_quiet_leaves_the_results_alone(run: Run, photo: Path, model: Path) -> None:
    usual, quiet = (run("detect", photo, "--model", model, *more) for more in ((), ("--quiet",)))
    assert (usual.code, quiet.code) == (0, 0)
    assert "detecting" in usual.err
    assert "detecting" not in quiet.err
    assert quiet.out.splitlines()[-1] == usual.out.splitlines()[-1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_told_with_the_file_and_what_to_do(
    run: Run, photo: Path, shapes: Path, small_disk: Path
) -> None:
    with suppress(OSError):
        (small_disk / "filler").write_bytes(bytes(2**20))
    ran = run("propose", photo, "--json", small_disk / "boxes.json", "--quiet")
    assert_one_line(ran, f"{small_disk}: No space left on device", "free some space")
    (small_disk / "filler").unlink()
    # What the training leaves to the disk, before it begins.
    ran = run(*training(shapes, small_disk / "run"), "--quiet")
    assert ran.code == 1
    assert f"sppdet: {small_disk}/run: the training needs" in ran.err
    assert run("data", "synthetic", small_disk / "shapes").err.startswith(
        f"sppdet: {small_disk}/shapes"
    )
    assert not (small_disk / "shapes").exists()


@given(st.text())
def test_nothing_that_is_printed_steers_the_terminal(text: str) -> None:
    shown = printable(text)
    assert not [c for c in shown if unicodedata.category(c) == "Cc" and c not in "\n\t"]
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text


def test_a_class_name_cannot_write_the_terminals_title(capsys: pytest.CaptureFixture[str]) -> None:
    name = "cat\x1b]0;owned\x07\x9b31m\u202e"
    notes.say(f"{name} found")
    notes.warn(name)
    told = capsys.readouterr()
    assert told.out == "cat\\x1b]0;owned\\x07\\x9b31m\\u202e found\n"
    assert "\x1b" not in told.err
