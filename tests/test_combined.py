"""Several models as one: what it finds is what they find, over the same regions and maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sppdet import modelnames
from sppdet.boxes import iou_matrix
from sppdet.config import load_config
from sppdet.detector import Detector
from sppdet.errors import ConfigError
from sppdet.rcnn import RcnnDetector
from sppdet.types import Detections, FloatArray
from tests.made_detector import CLASSES, make_detector, picture

# Every region that passes the threshold is kept.
ALL = ("detection.soft_nms=0", "detection.nms_iou=1.0", "detection.vote_iou=0")
KEEP = (*ALL, "detection.max_per_class=100000", "detection.max_candidates=100000")
GREEDY = ("detection.soft_nms=0", "detection.nms_iou=0.4", "detection.vote_iou=0")


def rows(found: Detections) -> set[tuple[float, ...]]:
    """Every detection as numbers."""
    table = np.concatenate([found.boxes, found.scores[:, None], found.labels[:, None]], axis=1)
    return {tuple(row) for row in table.tolist()}


def as_boxes(found: list[tuple[float, ...]]) -> FloatArray:
    """The boxes `(N, 4)` of such rows."""
    return np.array([row[:4] for row in found], np.float32).reshape(-1, 4)


def test_a_combination_finds_what_its_members_find() -> None:
    one, other = make_detector(*KEEP), make_detector(*KEEP, seed=1)
    image = picture(seed=3)
    apart = rows(one.detect(image)), rows(other.detect(image))
    assert apart[0]
    assert apart[1]
    assert not apart[0] & apart[1]
    for both in (one.combined(other), other.combined(one)):
        assert rows(both.detect(image)) == apart[0] | apart[1]


def test_nms_judges_all_members_boxes_together() -> None:
    image = picture(seed=4)
    every: set[tuple[float, ...]] = set()
    for seed in range(2):
        every |= rows(make_detector(*KEEP, seed=seed).detect(image))
    one, other = make_detector(*GREEDY), make_detector(*GREEDY, seed=1)
    both = rows(one.combined(other).detect(image))
    assert both <= every
    for row in every:
        # Regions of the same cells have the same score: either may be the one that is kept.
        rivals = [one for one in both - {row} if one[5] == row[5] and one[4] >= row[4]]
        overlap = iou_matrix(as_boxes([row]), as_boxes(rivals)).max(initial=0.0)
        assert (overlap <= 0.4) == (row in both)
    assert both & rows(one.detect(image))
    assert both & rows(other.detect(image))


def test_a_model_twice_finds_what_it_finds_once() -> None:
    one = make_detector(*GREEDY)
    for seed in range(3):
        image = picture(seed=seed)
        assert rows(one.combined(one).detect(image)) == rows(one.detect(image))


def test_a_combination_of_combinations_holds_all() -> None:
    one, other, third = (make_detector(*KEEP, seed=seed) for seed in range(3))
    image = picture()
    every = rows(one.combined(other, third).detect(image))
    assert rows(one.combined(other.combined(third)).detect(image)) == every
    assert rows(one.combined(other).combined(third).detect(image)) == every


def test_settings_hold_for_all_members() -> None:
    one, other = make_detector(*KEEP), make_detector(*KEEP, seed=1)
    both = one.combined(other)
    config = load_config(
        None, ["detection.score_threshold=-0.5", "features.scales=[128]"], base=both.config
    )
    changed = both.with_settings(config)
    image = picture(seed=5)
    expected = rows(one.with_settings(config).detect(image))
    settings = replace(other.config, detection=config.detection, features=config.features)
    expected |= rows(other.with_settings(settings).detect(image))
    assert rows(changed.detect(image)) == expected
    assert rows(changed.detect(image)) != rows(both.detect(image))


def test_names_with_a_plus_are_combined(tmp_path: Path) -> None:
    paths = [tmp_path / "a.safetensors", tmp_path / "b+c.safetensors"]
    for seed, path in enumerate(paths):
        make_detector(*KEEP, seed=seed).save(path, description="", provenance={})
    second = tmp_path / "second.safetensors"
    second.write_bytes(paths[1].read_bytes())
    # A file's own name may hold a plus.
    assert not Detector.load(paths[1]).partners
    both = Detector.load(f"{paths[0]}+{second}")
    image = picture()
    expected = Detector.load(paths[0]).combined(Detector.load(second))
    assert rows(both.detect(image)) == rows(expected.detect(image))


def test_a_preset_may_be_of_several_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelnames, "SHIPPED", tmp_path)
    for seed, name in enumerate(("first", "second")):
        made = make_detector(*KEEP, seed=seed)
        made.save(
            tmp_path / f"{name}.safetensors", description="", provenance={"dataset": f"{name} set"}
        )
    (tmp_path / "both.first+second.toml").write_text("[detection]\nscore_threshold = -0.5\n")
    both = Detector.load("both")
    assert both.config.detection.score_threshold == -0.5
    image = picture()
    members = Detector.load("first").combined(Detector.load("second"))
    assert rows(both.detect(image)) == rows(members.with_settings(both.config).detect(image))
    assert modelnames.training_sets("both") == ["first set", "second set"]
    assert modelnames.training_sets("both+first") == ["first set", "second set", "first set"]


def test_members_must_fit_together() -> None:
    one = make_detector()
    deeper = make_detector("features.max_elongation=2.5")
    other = Detector(("a", "b", "c"), one.config, one.extractor, one.head, one.svms, one.regressors)
    with pytest.raises(ConfigError, match="different classes"):
        one.combined(other)
    with pytest.raises(ConfigError, match="different maps"):
        one.combined(deeper)
    assert one.classes == CLASSES


def test_what_a_combination_cannot_do(tmp_path: Path) -> None:
    both = make_detector().combined(make_detector(seed=1))
    with pytest.raises(ConfigError, match="have no file"):
        both.save(tmp_path / "both.safetensors", description="", provenance={})
    with pytest.raises(ConfigError, match="R-CNN"):
        RcnnDetector(both)
