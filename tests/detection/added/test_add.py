"""Classes that are added, renamed and removed: what the others detect stays, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppdet.core.errors import ConfigError, DatasetError, ImageError, ModelFormatError
from sppdet.core.model_file import load_model, save_model
from sppdet.core.types import Dataset, Detections
from sppdet.detection.added.correct import WrongImage
from sppdet.detection.detector import Detector
from sppdet.detection.ensemble import Ensemble
from sppdet.detection.modes.rcnn import RcnnDetector
from sppdet.detection.probabilities.calibration import Calibration
from tests.helpers.added_cases import NEW, loaded_detector, only, rows, shapes
from tests.helpers.made_detector import CLASSES, picture


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return shapes(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    fitted = Calibration(np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.0, -0.5]))
    return loaded_detector(tmp_path_factory.mktemp("model")).with_calibration(fitted)


@pytest.fixture(scope="module")
def bigger(base: Detector, data: Dataset) -> Detector:
    """The detector with five classes more."""
    return base.add_classes(data)


def save(detector: Detector, path: Path) -> Path:
    detector.save(path, description="made", provenance={"images": 0})
    return path


def reload(detector: Detector, folder: Path) -> Detector:
    return Detector.load(save(detector, folder / "saved.safetensors"))


def detections(detector: Detector) -> list[Detections]:
    return [detector.detect(picture(seed=seed)) for seed in range(3)]


def assert_same(one: Detector, other: Detector, *names: str) -> None:
    """Both find the same of some classes in the pictures, and do find some."""
    pairs = list(zip(detections(one), detections(other), strict=True))
    for found, expected in pairs:
        assert rows(found, names) == rows(expected, names)
    assert any(rows(found, names) for found, _ in pairs)


def one_by_one(detector: Detector, data: Dataset) -> Detector:
    for name in NEW:
        detector = detector.add_classes(only(data, name))
    return detector


def test_classes_added_at_once_leave_the_old_ones(base: Detector, bigger: Detector) -> None:
    assert bigger.classes == (*CLASSES, *NEW)
    assert base.classes == CLASSES
    assert_same(bigger, base, *CLASSES)
    assert any(rows(found, NEW) for found in detections(bigger))


def test_classes_added_one_by_one_leave_those_before(base: Detector, data: Dataset) -> None:
    more = one_by_one(base, data)
    assert more.classes == (*CLASSES, *NEW)
    assert_same(more, base, *CLASSES)
    # And each other: the first is what it was when it was the only one.
    assert_same(more, base.add_classes(only(data, NEW[0])), NEW[0])


CHANGES: dict[str, Callable[[Detector, Dataset, Path], Detector]] = {
    "saved and loaded": lambda one, data, folder: reload(one, folder),
    "corrected": lambda one, data, folder: one.correct_class(
        "star", [WrongImage(data.samples[0].path)]
    ),
    "removed": lambda one, data, folder: one.remove_class("star"),
    "renamed": lambda one, data, folder: one.rename_class("star", "sun"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_one_class_leaves_all_others(
    bigger: Detector, data: Dataset, tmp_path: Path, change: str
) -> None:
    changed = CHANGES[change](bigger, data, tmp_path)
    others = [name for name in bigger.classes if name != "star"]
    assert_same(changed, bigger, *others)


def test_a_trained_class_that_is_removed_leaves_all_others(
    bigger: Detector, tmp_path: Path
) -> None:
    less = reload(bigger.remove_class("ring"), tmp_path)
    others = [name for name in bigger.classes if name != "ring"]
    assert less.classes == tuple(others)
    assert_same(less, bigger, *others)


def test_a_renamed_class_is_found_as_before(bigger: Detector, tmp_path: Path) -> None:
    for old, new in (("ring", "loop"), ("circle", "ball")):
        renamed = reload(bigger.rename_class(old, new), tmp_path)
        for found, before in zip(detections(renamed), detections(bigger), strict=True):
            assert [(new, *row[1:]) for row in rows(before, [old])] == rows(found, [new])
            assert not rows(found, [old])


def test_the_file_holds_the_trained_arrays_byte_for_byte(
    base: Detector, bigger: Detector, tmp_path: Path
) -> None:
    _, before = load_model(save(base, tmp_path / "a.safetensors"))
    _, after = load_model(save(bigger, tmp_path / "b.safetensors"))
    for name, array in before.items():
        if not name.startswith("calibration."):
            assert array.dtype == after[name].dtype
            assert array.tobytes() == after[name].tobytes()
    assert {name.split(".")[0] for name in after.keys() - before.keys()} == {"added"}


def test_what_was_added_and_removed_again_leaves_no_trace(
    base: Detector, bigger: Detector, tmp_path: Path
) -> None:
    first, last = tmp_path / "first.safetensors", tmp_path / "last.safetensors"
    save(base, first)
    # With what a file with added classes says of itself.
    header, _ = load_model(save(bigger, last))
    for name in NEW:
        bigger = bigger.remove_class(name)
    bigger.save(last, description=header.description, provenance=header.provenance)
    assert last.read_bytes() == first.read_bytes()


def test_a_removed_class_may_be_added_anew(base: Detector, data: Dataset, tmp_path: Path) -> None:
    own = replace(only(data, "star"), classes=("disc",))
    detector = reload(base.remove_class("disc").add_classes(own), tmp_path)
    assert detector.classes == ("ring", "cross", "disc")
    assert_same(detector, base, "ring")
    named = reload(base.add_classes(only(data, "star")).rename_class("star", "sun"), tmp_path)
    pairs = zip(detections(detector), detections(named), strict=True)
    for found, expected in pairs:
        margins = [row[2:] for row in rows(found, ["disc"])]
        assert margins == [row[2:] for row in rows(expected, ["sun"])]
    assert detector.rename_class("disc", "plate").classes == ("ring", "cross", "plate")
    with pytest.raises(ConfigError, match="has a class 'disc' already"):
        detector.rename_class("ring", "disc")


def test_names_are_checked(base: Detector, data: Dataset) -> None:
    for name in ("ring", "Ring"):
        with pytest.raises(ConfigError, match="has a class 'ring' already"):
            base.add_classes(replace(only(data, "star"), classes=(name,)))
    with pytest.raises(ConfigError, match="no class 'star'; it has ring, disc, cross"):
        base.remove_class("star")
    with pytest.raises(ConfigError, match="no class 'star'"):
        base.rename_class("star", "sun")
    with pytest.raises(ConfigError, match="is no name"):
        base.rename_class("ring", " ")
    alone = base.remove_class("ring").remove_class("disc")
    with pytest.raises(ConfigError, match="only class"):
        alone.remove_class("cross")


def test_a_class_without_objects_is_refused(base: Detector, data: Dataset) -> None:
    nothing = only(data, "star")
    empty = [
        replace(one, boxes=one.boxes[:0], labels=one.labels[:0], difficult=one.difficult[:0])
        for one in nothing
    ]
    for samples in (tuple(empty), ()):
        with pytest.raises(DatasetError, match="no object of star"):
            base.add_classes(replace(nothing, samples=samples))


def test_one_image_is_enough_but_tells_no_figures(base: Detector, data: Dataset) -> None:
    (first, *_) = (one for one in only(data, "star") if len(one.labels))
    detector = base.add_classes(Dataset("one", ("star",), (first,)))
    (added,) = detector.parts.added
    assert added.info["images"] == 1
    assert added.info["ap50"] is None
    assert added.info["interval"] == [None, None]
    assert_same(detector, base, *CLASSES)
    assert rows(detector.detect(first.path), ["star"])


def test_figures_are_told_where_there_are_several(bigger: Detector, data: Dataset) -> None:
    for label, one in enumerate(bigger.parts.added):
        count = sum(int((sample.labels == label).sum()) for sample in data)
        assert one.info["objects"] == count
        if one.info["images"] > 1:
            low, high = one.info["interval"]
            assert 0 <= low <= high <= 1
            assert 0 <= one.info["ap50"] <= 1


def test_an_image_that_cannot_be_read_is_named(
    base: Detector, data: Dataset, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not an image")
    samples = (replace(data.samples[0], path=broken), *data.samples[1:])
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        base.add_classes(replace(data, samples=samples))


def test_a_file_without_an_added_array_is_damaged(bigger: Detector, tmp_path: Path) -> None:
    path = save(bigger, tmp_path / "model.safetensors")
    header, tensors = load_model(path)
    for name in ("added.0.fc6", "added.4.support"):
        kept = {key: array for key, array in tensors.items() if key != name}
        save_model(path, header, kept)
        with pytest.raises(ModelFormatError, match=f"the array '{name}' is missing"):
            Detector.load(path)
    # Or with one that does not fit.
    for name, array in (("fc7", np.zeros(5, np.float32)), ("bias", np.zeros(2, np.float32))):
        save_model(path, header, {**tensors, f"added.1.{name}": array})
        with pytest.raises(ModelFormatError, match="do not fit"):
            Detector.load(path)


def test_a_header_with_other_classes_is_damaged(bigger: Detector, tmp_path: Path) -> None:
    path = save(bigger, tmp_path / "model.safetensors")
    header, tensors = load_model(path)
    for entry in ({}, {"trained": list(CLASSES), "hidden": [], "added": []}, {"trained": 3}):
        save_model(path, replace(header, provenance={"classes": entry}), tensors)
        with pytest.raises(ModelFormatError, match=r"do not fit|as they should be"):
            Detector.load(path)


def test_models_with_added_classes_are_combined(
    base: Detector, bigger: Detector, data: Dataset
) -> None:
    for fusion in ("mean", "union"):
        both, alone = Ensemble([bigger, bigger], fusion), Ensemble([base, base], fusion)
        for seed in range(2):
            found, old = both.detect(picture(seed=seed)), alone.detect(picture(seed=seed))
            assert rows(found, CLASSES) == rows(old, CLASSES)
        assert rows(both.detect(picture()), NEW)
    twice = Ensemble([bigger, bigger]).detect(picture())
    for row, expected in zip(rows(twice, NEW), rows(bigger.detect(picture()), NEW), strict=True):
        assert row[0] == expected[0]
        np.testing.assert_allclose(row[1:], expected[1:], rtol=1e-4, atol=1e-3)
    # The same names, given in another way: each means something else by its groups.
    other = base.remove_class("disc").add_classes(replace(only(data, "star"), classes=("disc",)))
    plain = base.remove_class("disc")
    with pytest.raises(ConfigError, match="different classes"):
        Ensemble([other, plain])
    third = base.remove_class("cross").add_classes(replace(only(data, "star"), classes=("cross",)))
    with pytest.raises(ConfigError, match="cannot be averaged"):
        Ensemble([third, base])
    assert rows(Ensemble([third, base], "union").detect(picture()), ["ring"])


def test_the_rcnn_mode_finds_added_classes(base: Detector, data: Dataset) -> None:
    few = base.configure(None, ["proposals.max_proposals=8"])
    more = few.add_classes(only(data, "star"))
    found, old = (RcnnDetector(one).detect(picture()) for one in (more, few))
    assert rows(found, CLASSES) == rows(old, CLASSES)
    assert found.classes == (*CLASSES, "star")


def test_iterative_localization_can_be_off(bigger: Detector) -> None:
    once = bigger.configure(None, ["detection.refine_top=0", "detection.vote_iou=0"])
    image = picture()
    boxes = once.propose(image)
    maps = once.extract(image)
    found = once.detect_regions(maps, boxes)
    # The boxes that a class's regressor makes of the proposals, and no others.
    (view,), group = once.views(maps), once.groups[-1]
    regions = view.regions(boxes)
    moved = group.refiner.refine(regions, np.arange(len(boxes)), np.zeros(len(boxes), np.int64))
    height, width = image.shape[:2]
    known = {tuple(np.clip(box, 0, [width, height, width, height]).tolist()) for box in moved}
    for row in rows(found, [once.classes[-1]]):
        assert tuple(np.array(row[3:], np.float32).tolist()) in known


def test_boxes_stay_where_the_proposals_are_without_box_regression(bigger: Detector) -> None:
    still = bigger.configure(None, ["detection.box_regression=none", "detection.vote_iou=0"])
    image = picture()
    known = {tuple(box) for box in still.propose(image).tolist()}
    found = rows(still.detect(image), still.classes[-1:])
    assert found
    assert {tuple(np.array(row[3:], np.float32).tolist()) for row in found} <= known


def test_images_turned_by_their_exif_are_learned_as_shown(
    base: Detector, data: Dataset, tmp_path: Path
) -> None:
    first = next(one for one in only(data, "star") if len(one.labels))
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(first.path) as image:
        image.rotate(180).save(turned, exif=exif)
    with Image.open(first.path) as image:
        plain = tmp_path / "plain.png"
        image.save(plain)
    one, other = (
        base.add_classes(Dataset("d", ("star",), (replace(first, path=path),))).parts.added[0]
        for path in (turned, plain)
    )
    assert one.model.bias == other.model.bias
