"""Videos are read frame by frame: each at its time, upright, and an error where they break off."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from sppdet.core.errors import VideoError
from sppdet.media.video_reader import Frame, VideoReader
from tests.helpers.made_videos import number_of, numbered_frames, turn_by_90, write_clip

TIMES = [0, 40, 80, 500, 520, 1000, 1500, 1540, 1580, 3000]


def read(path: Path, **how: float) -> list[Frame]:
    with VideoReader(path, **how) as reader:  # type: ignore[arg-type]
        return list(reader)


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds at 25 frames a second."""
    path = tmp_path_factory.mktemp("video") / "steady.mp4"
    return write_clip(path, numbered_frames(50), range(0, 2000, 40))


def test_every_frame_comes_with_its_number_and_time(steady: Path) -> None:
    with VideoReader(steady) as reader:
        assert reader.size == (64, 48)
        assert reader.fps == pytest.approx(25, rel=0.02)
        frames = list(reader)
    assert [frame.number for frame in frames] == list(range(50))
    assert [number_of(frame.image) for frame in frames] == list(range(50))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(50) / 25, atol=1e-3)
    assert frames[0].image.dtype == np.uint8
    assert frames[0].image.shape == (48, 64, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_times_are_the_frames_own_where_they_are_uneven(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"uneven{suffix}", numbered_frames(len(TIMES)), TIMES)
    frames = read(path)
    assert [number_of(frame.image) for frame in frames] == list(range(len(TIMES)))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.array(TIMES) / 1000)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"every": 20}, [0, 20, 40]),
        ({"start": 1.0, "end": 1.2}, [25, 26, 27, 28, 29]),
        ({"start": 1.0, "every": 10}, [25, 35, 45]),
        ({"start": 5.0}, []),
        ({"end": 0.0}, []),
    ],
)
def test_a_part_and_every_nth_frame_are_chosen(
    steady: Path, how: dict[str, float], expected: list[int]
) -> None:
    frames = read(steady, **how)
    assert [frame.number for frame in frames] == expected
    assert [number_of(frame.image) for frame in frames] == expected


def test_a_turned_video_comes_upright(tmp_path: Path) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32] = (250, 0, 0)
    path = write_clip(tmp_path / "turned.mp4", [image] * 3, [0, 40, 80])
    frame = read(turn_by_90(path))[0].image
    assert frame.shape == (64, 48, 3)
    # What was left above is right above; red comes first.
    assert frame[8, 40, 0] > 200
    assert frame[8, 40, 2] < 50
    assert frame[8, 8].max() < 50


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_truncated_file_gives_what_it_holds_and_then_an_error(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(60)]
    path = write_clip(tmp_path / f"whole{suffix}", noise, range(0, 2400, 40))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames: list[int] = []
    with VideoReader(path) as reader, pytest.raises(VideoError, match="truncated") as caught:
        frames.extend(frame.number for frame in reader)
    assert frames == list(range(len(frames)))
    assert 20 < len(frames) < 50
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    # Who stops before the damage never meets it.
    with VideoReader(path) as reader:
        assert len(list(islice(reader, 10))) == 10
    assert len(read(path, end=0.4)) == 10


def test_what_is_no_video_is_named(
    tmp_path: Path, steady: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text, empty, cut = tmp_path / "text.mp4", tmp_path / "empty.mp4", tmp_path / "cut.mp4"
    text.write_text("no video at all")
    empty.touch()
    cut.write_bytes(steady.read_bytes()[:-200])
    (tmp_path / "a_001.png").touch()
    cases: list[tuple[str | Path, str]] = [
        (text, "not a video"),
        (empty, "empty"),
        (cut, "not a video"),
        (tmp_path, "is a folder"),
        (tmp_path / "none.mp4", "no such video"),
        (tmp_path / "a_%03d.png", "no such video"),
        (Path("/dev/zero"), "no such video"),
        ("camera:97", "no such camera"),
        ("x\0y", "no such video"),
    ]
    for source, problem in cases:
        with pytest.raises(VideoError, match=problem):
            VideoReader(source)
    assert capfd.readouterr() == ("", "")
