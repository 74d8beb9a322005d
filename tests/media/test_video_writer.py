"""Videos are written so that each frame is shown at its time, and are whole in any case."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest

from sppdet.core.errors import VideoError
from sppdet.media.video_writer import MOST_SECONDS, VideoWriter
from tests.helpers.made_videos import number_of, numbered_frames, read_clip


def shown_at(path: Path, seconds: float) -> int:
    """The number of the frame that a video shows at a time."""
    return number_of([image for time, image in read_clip(path) if time <= seconds + 1e-6][-1])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_frames_that_come_evenly_are_written_once_each(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"clip{suffix}"
    with VideoWriter(path, 25) as writer:
        for n, image in enumerate(numbered_frames(30)):
            writer.write(image, 7 + n / 25)
        assert not path.exists()
    found = read_clip(path)
    assert [number_of(image) for _, image in found] == list(range(30))
    np.testing.assert_allclose([time for time, _ in found], np.arange(30) / 25, atol=2e-3)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_uneven_frames_are_shown_until_the_next(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    times = [0.0, 0.1, 0.9, 1.5]
    with VideoWriter(path, 10) as writer:
        for image, seconds in zip(numbered_frames(4), times, strict=True):
            writer.write(image, seconds)
    assert len(read_clip(path)) == 16
    for seconds, number in ((0, 0), (0.1, 1), (0.5, 1), (0.8, 1), (0.9, 2), (1.4, 2), (1.5, 3)):
        assert shown_at(path, seconds) == number


def test_of_frames_at_one_time_the_last_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 10) as writer:
        for n, image in enumerate(numbered_frames(10)):
            writer.write(image, n / 30)
    assert len(read_clip(path)) == 4


def test_a_jump_of_the_timestamps_does_not_fill_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 2) as writer:
        for image, seconds in zip(numbered_frames(3), (0.0, 1e9, 1e9 + 0.5), strict=True):
            writer.write(image, seconds)
    assert len(read_clip(path)) == 2 * MOST_SECONDS + 2


def test_an_interrupt_leaves_the_frames_so_far_and_none_leave_no_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"

    def interrupted() -> None:
        with VideoWriter(path, 10) as writer:
            for n, image in enumerate(numbered_frames(5)):
                writer.write(image, n / 10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(read_clip(path)) == 5
    before = path.read_bytes()
    with VideoWriter(path, 10):
        pass
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_odd_sides_lose_a_pixel(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 10) as writer:
        writer.write(numbered_frames(1, 65, 49)[0], 0)
    assert read_clip(path)[0][1].shape == (48, 64, 3)


def test_what_cannot_be_written_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    for name in ("clip.gif", "clip", "folder.mp4", "file/clip.mp4"):
        with pytest.raises(VideoError):
            VideoWriter(tmp_path / name, 10)
    with pytest.raises(VideoError, match="1x1"), VideoWriter(tmp_path / "one.mp4", 10) as writer:
        writer.write(np.zeros((1, 1, 3), np.uint8), 0)
    with VideoWriter(tmp_path / "a.mp4", 10) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8), 0)
        with pytest.raises(ValueError, match="frame"):
            writer.write(np.zeros((32, 30, 3), np.uint8), 1)
    assert capfd.readouterr() == ("", "")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.mp4", "file", "folder.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_full_disk_is_told(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    # The kernel refuses bytes beyond the limit, as it does where there is no space.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    rng = np.random.default_rng(0)
    writer = VideoWriter(tmp_path / f"clip{suffix}", 10)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
        for n in range(60):
            writer.write(rng.integers(0, 256, (120, 160, 3), np.uint8), n / 10)
        with pytest.raises(VideoError, match="disk full"):
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capfd.readouterr() == ("", "")
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")]
