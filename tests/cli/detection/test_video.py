"""`sppdet video`: a clip's frames, boxes and times come out right, and nothing done is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer

from sppdet.cli.detection.video import parse_time
from sppdet.core.boxes import box_iou
from sppdet.core.images import read_image
from sppdet.core.types import ImageArray
from tests.cli.conftest import Run, assert_one_line
from tests.helpers.made_detector import make_detector, picture
from tests.helpers.made_videos import read_clip, write_clip

ROOT = Path(__file__).resolve().parents[3]
SECONDS, FPS = 10, 25
# Of two people on the demo's picture, at the size of the clip.
PEOPLE = np.array([[12, 363, 207, 640], [674, 39, 902, 332]], np.float32) / 3


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model file that finds plenty."""
    path = tmp_path_factory.mktemp("model") / "made.safetensors"
    make_detector("proposals.max_proposals=20").save(path, description="", provenance={})
    return path


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of one picture."""
    path = tmp_path_factory.mktemp("clips") / "short.mp4"
    return write_clip(path, [picture()] * 20, range(0, 2000, 100))


def shift(seconds: float) -> int:
    """Pixels by which the demo's picture has moved to the right."""
    return round(10 * seconds)


def panned() -> list[ImageArray]:
    """Ten seconds of the demo's picture that moves across a gray frame."""
    photo = cv2.resize(
        read_image(ROOT / "docs" / "demo.jpg"), (328, 219), interpolation=cv2.INTER_AREA
    )
    frames = []
    for n in range(SECONDS * FPS):
        frame = np.full((220, 432, 3), 128, np.uint8)
        left = shift(n / FPS)
        frame[:219, left : left + 328] = photo
        frames.append(frame)
    return frames


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_clip_of_ten_seconds_gives_its_frames_boxes_and_times(run: Run, tmp_path: Path) -> None:
    clip, out, found = tmp_path / "clip.mp4", tmp_path / "out.mp4", tmp_path / "found.jsonl"
    write_clip(clip, panned(), range(0, 1000 * SECONDS, 1000 // FPS))
    ran = run("video", clip, "--out", out, "--jsonl", found, "--every", FPS, "--model", "fast")
    assert ran.code == 0
    assert f"in {SECONDS} frames; written to {out} and {found}" in ran.out
    records = lines(found)
    assert [one["frame"] for one in records] == list(range(0, SECONDS * FPS, FPS))
    tracks = []
    for second, record in enumerate(records):
        assert record["seconds"] == pytest.approx(second, abs=1e-3)
        assert (record["width"], record["height"]) == (432, 220)
        people = [one for one in record["detections"] if one["class"] == "person"]
        boxes = np.array([one["box"] for one in people], np.float32)
        moved = (PEOPLE + np.array([shift(second), 0, shift(second), 0])).astype(np.float32)
        overlaps = box_iou(moved, boxes)
        assert (overlaps.max(axis=1) > 0.5).all()
        tracks.append([people[n]["track"] for n in overlaps.argmax(axis=1)])
    # Each keeps its number, though it moves by ten pixels from one frame to the next.
    assert all(one == tracks[0] for one in tracks)
    shown = read_clip(out)
    assert len(shown) == SECONDS
    np.testing.assert_allclose([when for when, _ in shown], range(SECONDS), atol=0.05)
    assert shown[0][1].shape == (220, 432, 3)
    assert np.abs(shown[5][1].astype(int) - panned()[5 * FPS]).mean() > 3


def test_a_part_is_printed_where_nothing_is_to_be_written(
    run: Run, quick: Path, short: Path
) -> None:
    ran = run("video", short, "--model", quick, "--from", "0:01", "--to", "1.5", "--threshold", 0.1)
    assert ran.code == 0
    *frames, last = ran.out.splitlines()
    assert [float(line.split()[0]) for line in frames if line[0] == " "] == [1, 1.1, 1.2, 1.3, 1.4]
    assert "in 5 frames" in ran.out
    assert last


def test_a_truncated_video_keeps_what_was_read(run: Run, quick: Path, tmp_path: Path) -> None:
    clip, found, out = tmp_path / "clip.mkv", tmp_path / "found.jsonl", tmp_path / "out.avi"
    write_clip(clip, [picture(seed=n) for n in range(30)], range(0, 3000, 100))
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 3 // 4])
    ran = run("video", clip, "--model", quick, "--jsonl", found, "--out", out)
    assert_one_line(ran, str(clip), "truncated")
    count = len(lines(found))
    assert 1 < count < 29
    # The length of its frames, at the usual rate where the source states none.
    assert len(read_clip(out)) / 30 == pytest.approx((count - 1) / 10, abs=0.04)


def test_ctrl_c_keeps_what_was_done(quick: Path, tmp_path: Path) -> None:
    clip, found, out = tmp_path / "clip.mp4", tmp_path / "found.jsonl", tmp_path / "out.mp4"
    write_clip(clip, [picture()] * 2000, range(0, 200_000, 100))
    code = "import sys; from sppdet.cli import main; main(sys.argv[1:])"
    words = ["video", clip, "--model", quick, "--jsonl", found, "--out", out]
    command = [sys.executable, "-c", code, *map(str, words)]
    # What runs in the background of a script inherits that interrupts are ignored.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        signal.signal(signal.SIGINT, usual)
        while job.poll() is None and not (found.exists() and found.read_bytes().count(b"\n") > 2):
            time.sleep(0.05)
        job.send_signal(signal.SIGINT)
        told, errors = job.communicate(timeout=120)
    assert job.returncode == 130, errors
    assert "Traceback" not in errors
    records = lines(found)
    assert [one["frame"] for one in records] == list(range(len(records)))
    assert 2 < len(records) < 2000
    # The line of a frame is written before its picture.
    assert len(records) - len(read_clip(out)) in (0, 1)
    assert f"written to {out}" in told


def test_what_cannot_be_done_is_told_before_the_first_frame(
    run: Run, short: Path, quick: Path, tmp_path: Path
) -> None:
    before = short.read_bytes()
    words = ("video", short, "--model", quick)
    assert_one_line(run(*words, "--out", short), str(short), "written over")
    same = tmp_path / "same.mp4"
    assert_one_line(run(*words, "--out", same, "--jsonl", same), "written over")
    assert_one_line(run(*words, "--out", tmp_path / "clip.gif"), "kind of video", ".mp4")
    assert_one_line(run(*words, "--jsonl", tmp_path), str(tmp_path))
    assert_one_line(run("video", tmp_path / "none.mp4", "--model", quick), "no such video")
    assert short.read_bytes() == before
    assert list(tmp_path.iterdir()) == []
    for wrong in (("--from", "2", "--to", "1"), ("--from", "1:75"), ("--every", "0")):
        assert run(*words, *wrong).code == 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("1:30", 90), ("0:01:30.5", 90.5), ("75:00", 4500), ("2:00:00", 7200)],
)
def test_times_are_seconds_or_clock_times(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:60", "1:60:00", "1:2:3:4", "a", "nan", "1e3", ":5"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_time(text)
