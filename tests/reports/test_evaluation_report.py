"""The page of an evaluation: self-contained, escaped, the same bytes, whatever the input."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from sppdet.core.types import Dataset, Detections
from sppdet.evaluation.coco_ap import evaluate_coco
from sppdet.reports.error_pictures import SUSPECTS, WORST_IMAGES
from sppdet.reports.evaluation_report import Evaluation, write_evaluation_report
from tests.helpers.evaluation_cases import CLASSES, sparse_case

MAX_BYTES = 5_000_000
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }} & '")
# Elements that HTML closes by itself.
VOID = {"meta", "br"}


class _Page(HTMLParser):
    """What a page consists of; fails where an element is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        links = ("href", "src", "xlink:href", "action", "data", "srcset", "poster")
        self.links += [value or "" for name, value in attrs if name in links]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _with_images(dataset: Dataset, folder: Path, side: int = 500) -> Dataset:
    """The data set with an image of noise, the worst to compress, for each sample."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    samples = []
    for sample in dataset:
        path = folder / f"{sample.image_id}.png"
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(path)
        samples.append(replace(sample, path=path))
    return replace(dataset, samples=tuple(samples))


def _write(path: Path, dataset: Dataset, detections: dict[str, Detections]) -> str:
    coco = evaluate_coco(dataset, detections)
    made = [("command", "sppdet evaluate <data>"), ("data", '"quoted"')]
    evaluation = Evaluation.of(dataset, detections)
    write_evaluation_report(path, evaluation, coco=coco, left_out=["a & b"], made=made)
    return path.read_text(encoding="utf-8")


def test_the_page_needs_nothing_beside_it_and_is_the_same_again(tmp_path: Path) -> None:
    dataset, detections = sparse_case(3)
    dataset = _with_images(dataset, tmp_path / "images")
    page = _write(tmp_path / "a.html", dataset, detections)
    parsed = _Page(page)
    assert "http" not in page
    assert not re.search(r"@import|url\((?!#)", page)
    assert {link[:1] for link in parsed.links} == {"#", "d"}
    assert all(
        link.startswith("data:image/jpeg;base64,") for link in parsed.links if link[0] != "#"
    )
    assert not {"script", "iframe", "link", "object", "embed", "img"} & {*parsed.tags}
    worst = page[page.index('id="images"') : page.index('id="annotations"')]
    assert 0 < worst.count("<figure") == worst.count("<image")
    assert worst.count('<rect class="mark missed"') > 0
    assert page == _write(tmp_path / "b.html", dataset, detections)
    for name in CLASSES:
        assert name in parsed.text


def test_hostile_names_are_text(tmp_path: Path) -> None:
    dataset, detections = sparse_case(3)
    ids = {sample.image_id: f"{sample.image_id}{HOSTILE[0]}\udcff" for sample in dataset}
    samples = tuple(replace(one, image_id=ids[one.image_id]) for one in dataset)
    dataset = Dataset(HOSTILE[1], HOSTILE, samples)
    found = {ids[name]: replace(one, classes=HOSTILE) for name, one in detections.items()}
    parsed = _Page(_write(tmp_path / "a.html", dataset, found))
    assert not {"script", "img"} & {*parsed.tags}
    text = "".join(parsed.text)
    assert text.count(HOSTILE[0]) > len(samples)
    assert f"Evaluation on {HOSTILE[1]}" in text
    assert "{{ 7 * 7 }} & '" in text
    assert "sppdet evaluate <data>" in text
    assert "\\udcff" in text


def test_images_that_are_not_there_are_left_out_and_counted(tmp_path: Path) -> None:
    dataset, detections = sparse_case(3)
    page = _write(tmp_path / "a.html", dataset, detections)
    assert "<image" not in page
    shown = page.count("<figure")
    assert f"{shown} pictures are left out" in page
    assert page.count('<rect class="mark') > shown / 2
    small = _with_images(dataset, tmp_path / "images", side=300)
    assert "<image" not in _write(tmp_path / "b.html", small, detections)


def test_many_noisy_images_stay_below_5_mb(tmp_path: Path) -> None:
    samples, found = [], {}
    for seed in range(30):
        dataset, detections = sparse_case(seed)
        for sample in dataset:
            name = f"{seed} {sample.image_id}"
            samples.append(replace(sample, image_id=name))
            found[name] = detections[sample.image_id]
    whole = Dataset("many", CLASSES, tuple(samples[:60]))
    whole = _with_images(whole, tmp_path / "images")
    kept = {sample.image_id: found[sample.image_id] for sample in whole}
    page = _write(tmp_path / "a.html", whole, kept)
    assert len(page.encode()) < MAX_BYTES
    assert "pictures are left out" not in page
    shown = page.count("<figure")
    assert WORST_IMAGES < shown <= WORST_IMAGES + 3 * SUSPECTS
    assert page.count("<image") == shown


def test_nothing_at_all(tmp_path: Path) -> None:
    page = _write(tmp_path / "a.html", Dataset("empty", CLASSES, ()), {})
    assert "No image has an error." in _Page(page).text
    dataset, _ = sparse_case(3)
    page = _write(tmp_path / "b.html", dataset, {})
    n_objects = sum(len(sample.labels) for sample in dataset)
    assert f"fits ({min(SUSPECTS, n_objects)} of {n_objects})" in page
    _Page(page)


def test_scores_that_are_no_probabilities(tmp_path: Path) -> None:
    dataset, detections = sparse_case(3)
    scores = {
        name: Detections(one.boxes, one.scores * 100, one.labels, one.classes)
        for name, one in detections.items()
    }
    page = _write(tmp_path / "a.html", dataset, scores)
    assert "are no probabilities" in page
    _Page(page)
