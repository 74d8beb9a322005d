"""`sppdet data` and `sppdet propose`: what is made, checked, cut, proposed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sppdet.datasets import load_dataset, make_synthetic_voc
from tests.cli.conftest import Run, assert_one_line


def test_synthetic_and_check(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "shapes"
    made = run("data", "synthetic", root, "--train", "3", "--val", "2", "--test", "0")
    assert made.code == 0
    again = run("data", "synthetic", root)
    assert_one_line(again, str(root), "already there")
    checked = run("data", "check", root)
    assert checked.code == 0
    dataset = load_dataset(root, "train")
    assert "VOC XML, 5 images" in checked.out
    assert "train: 3 images, 0 of them without objects" in checked.out
    assert "val: 2 images" in checked.out
    present = {dataset.classes[label] for sample in dataset for label in sample.labels}
    assert all(f"  {name}: " in checked.out for name in present)
    one = run("data", "check", root, "--split", "val")
    assert "val: 2 images" in one.out
    assert "train: 3" not in one.out


def test_check_names_every_broken_file(run: Run, tmp_path: Path) -> None:
    root = make_synthetic_voc(tmp_path / "shapes", train=4, val=0, test=0, width=64, height=64)
    (root / "Annotations" / "000001.xml").write_text("<annotation>")
    (root / "Annotations" / "000002.xml").unlink()
    image = root / "JPEGImages" / "000003.jpg"
    image.write_bytes(image.read_bytes()[:200])
    ran = run("data", "check", root)
    assert ran.code == 1
    assert not ran.err
    for name in ("000001.xml", "000002", "000003.jpg"):
        assert any(name in line for line in ran.out.splitlines() if line.startswith("  "))
    assert "train: 1 image," in ran.out
    assert "cannot be used as it is" in ran.out


def test_an_unknown_download_is_named(run: Run, tmp_path: Path) -> None:
    ran = run("data", "download", "1066", "--to", tmp_path)
    assert ran.code == 1
    assert "choose one of 2007, 2007-test, 2012" in ran.err


def test_propose_on_images_and_on_a_data_set(run: Run, shapes: Path, tmp_path: Path) -> None:
    found = tmp_path / "boxes.json"
    images = run("propose", shapes / "JPEGImages", tmp_path / "absent.jpg", "--json", found)
    assert images.code == 1
    assert "1 of 8 images could not be read" in images.err
    records = json.loads(found.read_text())["images"]
    boxes = [np.array(record["boxes"]) for record in records if "boxes" in record]
    assert len(boxes) == 7
    assert all(one.shape[1] == 4 and one.min() >= 0 and one[:, 2].max() <= 120 for one in boxes)
    dataset = run("propose", shapes, "--split", "val", "--cache", tmp_path / "cache")
    assert dataset.code == 0
    assert "MABO" in dataset.out
    assert len(list((tmp_path / "cache").rglob("*.boxes"))) == 3
