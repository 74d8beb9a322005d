"""Atomic files, also when the disk or the process fails, and digests that do not collide."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sppdet.core.errors import OutputError
from sppdet.core.files import (
    LockedError,
    array_digest,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    config_digest,
    exclusive,
    new_folder,
    sha256,
    user_cache_folder,
)

# Writes the same two files in turn until it is killed; says when it has begun.
WRITER = """
import sys
from pathlib import Path
from sppdet.core.files import atomic_write_bytes
target = Path(sys.argv[1])
atomic_write_bytes(target, b"a" * 3_000_000)
print("begun", flush=True)
while True:
    atomic_write_bytes(target, b"b" * 2_000_000)
    atomic_write_bytes(target, b"a" * 3_000_000)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_empty_file(tmp_path: Path) -> None:
    atomic_write_bytes(tmp_path / "empty", b"")
    assert (tmp_path / "empty").read_bytes() == b""


def test_bytes_come_back_and_nothing_is_left_over(tmp_path: Path) -> None:
    target = tmp_path / "a" / "new" / "folder" / "file.bin"
    atomic_write_bytes(target, b"one")
    atomic_write_bytes(target, b"two\r\n\0")
    assert target.read_bytes() == b"two\r\n\0"
    assert names(target.parent) == ["file.bin"]


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no file modes")
def test_everyone_may_read_the_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    atomic_write_bytes(target, b"new")
    assert target.stat().st_mode & 0o777 == 0o644
    target.chmod(0o600)
    atomic_write_bytes(target, b"newer")
    assert target.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("step", ["fsync", "fchmod", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    target = tmp_path / "file"
    atomic_write_bytes(target, b"old")

    def fail(*_: object, **__: object) -> None:
        raise error

    owner: Any = Path if step == "replace" else os
    monkeypatch.setattr(owner, step, fail)
    with pytest.raises(type(error)):
        atomic_write_bytes(target, b"new and longer")
    monkeypatch.undo()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no file size limits")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from sppdet.core.files import atomic_write_bytes\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "atomic_write_bytes(Path(sys.argv[1]), b'x' * 100_000)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, target], capture_output=True, text=True)
    assert done.returncode != 0
    assert "OSError" in done.stderr
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no SIGKILL")
def test_killed_at_any_moment_the_file_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "file"
    rng = np.random.default_rng(0)
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, target], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begun\n"
        time.sleep(rng.uniform(0, 0.1))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        assert target.read_bytes() in (b"a" * 3_000_000, b"b" * 2_000_000)
    # Only between two calls of the system can a kill leave a name that is hidden.
    assert all(name == "file" or name.startswith(".file.") for name in names(tmp_path))


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no unnamed files")
def test_a_file_has_no_name_before_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[list[str]] = []

    def look(handle: int) -> None:
        there.append(names(tmp_path))

    monkeypatch.setattr(os, "fsync", look)
    atomic_write_bytes(tmp_path / "file", b"new")
    assert there == [[]]


def test_a_system_without_unnamed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "link")
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    atomic_write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_names_as_long_as_the_system_has_them(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    atomic_write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_folder_is_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    code = (
        "import sys; from pathlib import Path; from sppdet.core.files import exclusive\n"
        "with exclusive(Path(sys.argv[1])):\n    print('in', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        message = f"in use by process {other.pid} on .* since 20"
        with pytest.raises(LockedError, match=message), exclusive(folder):
            pytest.fail("two processes are in it")
        other.kill()
    # Whoever is killed has it no longer.
    with exclusive(folder):
        pass


def test_what_a_killed_process_left_of_a_folder_is_taken_away(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from sppdet.core.files import new_folder\n"
        "with new_folder(Path(sys.argv[1])) as part:\n"
        "    (part / 'half').mkdir(); (part / 'half' / 'done').write_text('x'); os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "data"])
    assert names(tmp_path) == [".data.part"]
    with new_folder(tmp_path / "data") as part:
        (part / "all").write_text("x")
    assert names(tmp_path) == ["data"]
    assert names(tmp_path / "data") == ["all"]


def test_text_is_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "text", "dög\r\ncat\n")
    assert (tmp_path / "text").read_bytes() == b"d\xc3\xb6g\r\ncat\n"


def test_json_is_sorted_and_ends_its_last_line(tmp_path: Path) -> None:
    atomic_write_json(tmp_path / "json", {"b": [1, None], "a": 0.1})
    text = (tmp_path / "json").read_text()
    assert json.loads(text) == {"a": 0.1, "b": [1, None]}
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("}\n")


def test_json_that_is_not_json_leaves_the_old_file(tmp_path: Path) -> None:
    atomic_write_json(tmp_path / "json", {})
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            atomic_write_json(tmp_path / "json", {"loss": value})
    assert (tmp_path / "json").read_text() == "{}\n"


@settings(deadline=None)
@given(
    a=st.lists(st.binary(max_size=10), max_size=4), b=st.lists(st.binary(max_size=10), max_size=4)
)
def test_equal_digests_mean_equal_parts(a: list[bytes], b: list[bytes]) -> None:
    assert (sha256(*a) == sha256(*b)) == (a == b)


def test_digests_are_hex_sha256() -> None:
    # The digest of nothing at all is the standard's.
    assert sha256() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256("dög") == sha256("dög".encode())


def test_array_digests_see_dtype_shape_and_values() -> None:
    plain = np.arange(6, dtype=np.int32)
    others: list[NDArray[Any]] = [
        plain[:5],
        plain.reshape(2, 3),
        plain.reshape(3, 2),
        plain.reshape(1, 6),
        plain.astype(np.int64),
        plain.astype(np.float32),
        plain.view(np.uint32),
        plain + np.int32(1),
        np.zeros((0, 4), np.int32),
        np.zeros((0, 5), np.int32),
        np.array(3, np.int32),
        np.array([3], np.int32),
    ]
    assert len({array_digest(array) for array in (plain, *others)}) == 1 + len(others)
    assert array_digest(plain) == array_digest(np.arange(6, dtype=np.int32))


def test_array_digests_do_not_see_memory_order() -> None:
    plain = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert array_digest(plain) == array_digest(np.asfortranarray(plain))
    assert array_digest(plain[:, ::2]) == array_digest(plain[:, ::2].copy())


def test_config_digests_do_not_see_the_order_of_keys() -> None:
    assert config_digest({"a": 1, "b": [1, 2]}) == config_digest({"b": [1, 2], "a": 1})
    assert config_digest({"a": [1, 2]}) != config_digest({"a": [2, 1]})
    assert config_digest({"a": 1}) != config_digest({"a": 1.5})
    with pytest.raises(ValueError, match="JSON"):
        config_digest(float("nan"))


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        atomic_write_bytes(tmp_path, b"1")
    assert caught.value.filename == str(tmp_path)


@pytest.mark.parametrize("name", ["x" * 255, "猫" * 85], ids=["ascii", "3 bytes each"])
def test_the_longest_name_that_there_is_can_be_written(tmp_path: Path, name: str) -> None:
    atomic_write_bytes(tmp_path / name, b"1")
    with new_folder(tmp_path / "in" / name) as folder:
        (folder / "a").touch()
    assert names(tmp_path) == sorted(["in", name])
    assert names(tmp_path / "in") == [name]


def test_an_error_names_the_file_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        atomic_write_bytes(target, b"new")
    error = OutputError.of(caught.value)
    assert error.is_full
    assert str(error) == (
        f"{target}: No space left on device; free some space, then give the same command again"
    )


def test_a_file_where_a_folder_has_to_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "a", tmp_path / "file" / "b" / "a"):
        with pytest.raises(OSError, match="file") as caught:
            atomic_write_bytes(place, b"1")
        assert str(OutputError.of(caught.value)).startswith(str(tmp_path / "file"))


@pytest.mark.parametrize("size", [2**20, 3 * 2**20])
def test_a_full_disk_is_told_with_the_files_own_name(tmp_path: Path, size: int) -> None:
    """Where a file may be no larger than a limit, writing fails as on a full disk."""
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from sppdet.core.files import atomic_write_bytes\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: atomic_write_bytes(Path(sys.argv[1]), bytes(int(sys.argv[2])))\n"
        "except OSError as error: print(error.filename)\n"
    )
    path = tmp_path / "model.safetensors"
    command = [sys.executable, "-c", program, str(path), str(size)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == str(path), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_with_the_files_own_name() -> None:
    with pytest.raises(OSError, match=r"permitted|denied|Read-only|No such file") as caught:
        atomic_write_bytes(Path("/proc/self/task/a.json"), b"1")
    assert caught.value.filename == "/proc/self/task/a.json"


def test_the_cache_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    monkeypatch.setenv(variable, str(tmp_path))
    assert user_cache_folder("loops") == tmp_path / "sppdet" / "loops"
    assert not (tmp_path / "sppdet").exists()
    monkeypatch.setenv(variable, "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    found = user_cache_folder("loops")
    assert found is not None
    assert found.is_relative_to(Path.home())


def test_what_fails_in_a_new_folder_is_told_with_the_folders_own_name(tmp_path: Path) -> None:
    made = tmp_path / "made"

    def fill(name: str | None) -> None:
        with new_folder(made) as part:
            inner = name and name.replace("PART", str(part))
            raise OSError(errno.ENOSPC, "No space left on device", inner)

    for name, told in ((None, str(made)), ("PART/a", str(made / "a")), ("/b.jpg", "/b.jpg")):
        with pytest.raises(OSError, match="No space left") as caught:
            fill(name)
        assert caught.value.filename == told
        assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
