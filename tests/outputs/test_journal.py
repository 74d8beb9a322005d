"""The file of lines: broken off at any byte and gone on with, it is that of an unbroken run."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.errors import OutputError
from sppdet.outputs.journal import Journal, Run
from sppdet.outputs.records import Record, Source, stamp
from tests.helpers.sources import source

RUN = Run.of({"model": "m", "threshold": 0.5}, "weights")


def write(path: Path, records: Sequence[tuple[Source, Record]], run: Run = RUN) -> None:
    """What a run does: images that are there are skipped, errors are tried again."""
    journal = Journal(path, run)
    try:
        for one, record in records:
            known = journal.find(one)
            if known is None or "error" in known:
                journal.write(one, record, stamp(one))
    finally:
        journal.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    folder = tmp_path_factory.mktemp("images")
    names = ("a.jpg", "кот.png", 'quote".jpg', "new\nline.jpg", os.fsdecode(b"\xe9.jpg"), "b.jpg")
    return [source(folder / name) for name in names]


values = st.one_of(
    st.fixed_dictionaries({"error": st.text(max_size=9)}),
    st.fixed_dictionaries(
        {"width": st.integers(1, 9), "detections": st.lists(st.floats(-9, 9), max_size=3)}
    ),
)


def test_no_images_make_an_empty_file(tmp_path: Path) -> None:
    write(tmp_path / "new" / "lines", [])
    assert (tmp_path / "new" / "lines").read_bytes() == b""


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_broken_off_anywhere_and_gone_on_with(
    data: st.DataObject, images: list[Source], tmp_path_factory: pytest.TempPathFactory
) -> None:
    records = [(one, data.draw(values)) for one in images]
    folder = tmp_path_factory.mktemp("runs")
    write(folder / "whole", records)
    whole = (folder / "whole").read_bytes()
    assert [line["file"] for line in lines(folder / "whole")] == [one.name for one in images]
    for _ in range(3):
        path = folder / "killed"
        left = path.read_bytes() if path.exists() else b""
        # The process wrote somewhat more before it was killed, and the machine lost its power.
        end = data.draw(st.integers(len(left), len(whole)))
        path.write_bytes(whole[:end] + data.draw(st.sampled_from((b"", b"\0\0"))) * (end > 0))
        write(path, records[: data.draw(st.integers(0, len(records)))])
        assert whole.startswith(path.read_bytes())
    write(path, records)
    assert path.read_bytes() == whole
    write(path, records)
    assert path.read_bytes() == whole


def test_records_come_back_and_names_of_any_bytes(tmp_path: Path, images: list[Source]) -> None:
    records = [(one, {"width": n, "detections": []}) for n, one in enumerate(images)]
    write(tmp_path / "lines", records)
    journal = Journal(tmp_path / "lines", RUN)
    assert [journal.find(one) for one, _ in records] == [record for _, record in records]
    assert list(journal.found(images[::-1])) == records[::-1]
    journal.close()
    assert lines(tmp_path / "lines")[1]["model"] == "m"
    assert lines(tmp_path / "lines")[1]["threshold"] == 0.5


def test_an_image_that_changed_is_done_again_in_its_place(tmp_path: Path) -> None:
    a, b = source(tmp_path / "a"), source(tmp_path / "b")
    write(tmp_path / "lines", [(a, {"n": 1}), (b, {"n": 2})])
    (tmp_path / "a").write_bytes(b"another one")
    write(tmp_path / "lines", [(a, {"n": 3}), (b, {"n": 4})])
    assert [line["n"] for line in lines(tmp_path / "lines")] == [3, 2]


def test_an_image_that_was_missing_is_done_when_it_is_there(tmp_path: Path) -> None:
    from tests.helpers.sources import Source as Plain

    missing = Plain(str(tmp_path / "a"), tmp_path / "a")
    write(tmp_path / "lines", [(missing, {"error": "no such file"})])
    assert lines(tmp_path / "lines")[0]["size"] is None
    write(tmp_path / "lines", [(source(tmp_path / "a"), {"n": 1})])
    assert [line.get("error") for line in lines(tmp_path / "lines")] == [None]


@pytest.mark.parametrize(
    ("run", "parts"),
    [
        (Run.of({"model": "m", "threshold": 0.9}, "weights"), ("threshold 0.5", "threshold 0.9")),
        (Run.of({"model": "n", "threshold": 0.5}, "weights 2"), ("model m", "model n")),
        (Run.of({"model": "m", "threshold": 0.5}, "weights 2"), ("other settings or weights",)),
    ],
)
def test_lines_of_another_run_are_refused(tmp_path: Path, run: Run, parts: tuple[str, ...]) -> None:
    path = tmp_path / "lines"
    write(path, [(source(tmp_path / "a"), {"n": 1})])
    before = path.read_bytes()
    with pytest.raises(OutputError) as caught:
        Journal(path, run)
    for part in (*parts, str(path), "name another file"):
        assert part in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"some notes", b"some\nnotes\n", b'{"a": 1}\n', b"[1]\n", b"\x89PNG\r\n\x1a\n\0\0", b"null\n"],
)
def test_files_of_others_are_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    with pytest.raises(OutputError, match="none of a run"):
        Journal(path, RUN)
    assert path.read_bytes() == content


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "lines", RUN)
    with pytest.raises(OutputError, match="another run writes it"):
        Journal(tmp_path / "lines", RUN)
    journal.close()
    Journal(tmp_path / "lines", RUN).close(discard=True)
    assert not (tmp_path / "lines").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_loses_the_line_on_its_way_only(small_disk: Path, tmp_path: Path) -> None:
    records = [(source(tmp_path / f"{n}"), {"text": "x" * 5000}) for n in range(20)]
    write(tmp_path / "whole", records)
    whole, path = (tmp_path / "whole").read_bytes(), small_disk / "lines"
    with pytest.raises(OutputError) as caught:
        write(path, records)
    assert caught.value.is_full
    assert str(caught.value).startswith(f"{path}: No space left on device; free some space")
    left = path.read_bytes()
    assert whole.startswith(left)
    assert left.endswith(b"\n")
    assert len(left) > 50_000
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    write(path, records)
    assert path.read_bytes() == whole
