"""The scripts that measure: on a data set of shapes, they say what they did and go on from it."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sppdet.core.errors import SppdetError
from sppdet.core.model_file import load_model
from sppdet.core.progress import NullProgress
from sppdet.core.types import Dataset, FloatArray, ImageArray, Sample
from sppdet.datasets import load_dataset, make_synthetic_voc
from sppdet.detection import model_zoo
from sppdet.detection.dataset_inference import detect_dataset
from sppdet.detection.detector import Detector
from sppdet.detection.ensemble import Ensemble
from sppdet.detection.probabilities.calibrate import fit_detections
from sppdet.evaluation.detection_report import voc_dict
from sppdet.evaluation.voc_ap import evaluate_voc
from sppdet.training.config import TrainingConfig
from tests.helpers.made_detector import CLASSES, make_detector, picture

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("features.scales=[120]", "head.fc6=32", "head.fc7=32", "finetune.steps=10")


@pytest.fixture(scope="module", autouse=True)
def _scripts() -> None:
    for folder in (ROOT / "scripts", ROOT / "scripts" / "benchmarks"):
        sys.path.insert(0, str(folder))


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A devkit that holds a small VOC2007 of shapes."""
    root = tmp_path_factory.mktemp("data")
    return make_synthetic_voc(root / "VOC2007", train=3, val=2, test=0, width=120, height=90)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where shipped models go in a test."""
    monkeypatch.setattr(model_zoo, "SHIPPED", tmp_path / "shelf")
    monkeypatch.setattr(model_zoo, "PRESETS", tmp_path / "shelf" / "presets")
    monkeypatch.setattr(script("reproduce_voc07"), "SHIPPED", tmp_path / "shelf")
    return tmp_path / "shelf"


def test_everything_is_reproduced_once(
    shapes: Path, tmp_path: Path, shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    config = ROOT / "configs" / "tiny.toml"
    words = [str(shapes), "--run", str(run), "--config", str(config), "--seed", "1"]
    words += [word for change in SMALL for word in ("--set", change)]
    main = script("reproduce_voc07").main
    assert main(words) == 0
    first = json.loads((run / "reproduce.json").read_text())
    table = capsys.readouterr().out
    assert "| SPP-net, ZF-5, five scales (paper) | trainval -> test | 59.2 | |" in table
    score = first["results"]["sppdet"]["map11"]
    assert f"| sppdet | VOC2007 train -> VOC2007 val | {100 * score:.1f} |" in table
    assert {"proposals", "feature maps", "fine-tuning", "other"} <= first["seconds"]["train"].keys()
    assert first["seed"] == 1
    assert first["images"] == {"train": 3, "val": 2}
    assert first["peak_memory_gb"] > 0
    assert "head.fc6" in first["changed_settings"]

    assert main([*words, "--ship", "mine"]) == 0
    out, err = capsys.readouterr()
    assert "fine-tuning" in err
    assert str(shelf / "mine.safetensors") in err
    second = json.loads((run / "reproduce.json").read_text())
    assert second["results"] == first["results"]
    assert second["seconds"]["train"] == first["seconds"]["train"]
    header = load_model(shelf / "mine.safetensors")[0]
    assert header.provenance["images"] == 5
    training = header.provenance["training"]
    assert training["finetune"]["steps"] == header.provenance["steps"] == 10
    assert f"{100 * score:.1f} mAP" in header.description
    # Scores are calibrated on `val`, which this model has seen: by the one that has not.
    shipped, honest = (
        Detector.load(p) for p in (shelf / "mine.safetensors", run / "model.safetensors")
    )
    assert shipped.is_calibrated
    assert np.array_equal(shipped.calibration.slope, honest.calibration.slope)
    assert header.provenance["calibration"]["images"] == 2

    assert main([*words, "--ship", "mine"]) == 0
    again, err = capsys.readouterr()
    assert "fine-tuning" not in err
    assert again == out

    assert main([*words, "--set", "svm.c=0.5"]) == 0
    other = json.loads((run / "reproduce.json").read_text())
    assert other["key"] != first["key"]
    assert "trainval" not in other["seconds"]


def test_presets_are_reproduced_from_the_models_that_they_are_made_of(
    shapes: Path, tmp_path: Path, shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shelf / "presets").mkdir(parents=True)
    default, lite0 = ('[[members]]\nmodel = "default"\n', '[[members]]\nmodel = "lite0"\n')
    (shelf / "presets" / "few.toml").write_text(f"{default}[proposals]\nmax_proposals = 3\n")
    flipped = "[detection]\nflipped_scale_factors = [1.0]\n"
    (shelf / "presets" / "both.toml").write_text(default + lite0 + flipped)
    run = tmp_path / "run"
    words = [str(shapes), "--run", str(run), "--config", str(ROOT / "configs" / "tiny.toml")]
    words += [word for change in SMALL for word in ("--set", change)]
    main = script("reproduce_voc07").main
    assert main([*words, "--presets", "few"]) == 0
    assert "| sppdet, few | VOC2007 train -> VOC2007 val |" in capsys.readouterr().out
    assert not (run / "lite0").exists()
    assert main(words) == 0
    found = json.loads((run / "reproduce.json").read_text())["results"]
    rows = [found[f"sppdet{name}"] for name in ("", ", few", ", both", ", lite0")]
    assert all(rows.count(row) == 1 for row in rows)
    paths = (run / "model.safetensors", run / "lite0" / "model.safetensors")
    both = Ensemble([Detector.load(path) for path in paths])
    both = both.configure(overrides=["detection.flipped_scale_factors=[1.0]"])
    dataset = load_dataset(shapes, "val", classes=both.classes, allow_missing=True)
    # From maps as they were stored, in half precision: of a few boxes' AP every bit counts.
    found_again = detect_dataset(both, dataset, run / "cache", NullProgress())
    fitted = fit_detections(both.classes, dataset, found_again)
    assert found["sppdet, both"].pop("calibration")["table"] == fitted.calibration.toml()
    assert found["sppdet, both"] == voc_dict(evaluate_voc(dataset, found_again))


def test_a_missing_data_set_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("reproduce_voc07").main([str(tmp_path / "gone"), "--run", str(tmp_path)]) == 1
    assert "gone" in capsys.readouterr().err


def test_time_is_kept_when_a_run_is_stopped(tmp_path: Path) -> None:
    module = script("run_record")
    facts = {"key": "a"}
    record = module.Record(tmp_path / "r.json", facts)

    def stopped(watch: NullProgress) -> None:
        with watch.task("stage", 2) as advance:
            advance(1)
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            module.phase(record, NullProgress(), "train", stopped)
    kept = module.Record(tmp_path / "r.json", facts).values
    assert kept["seconds"]["train"].keys() == {"stage", "other"}
    assert module.Record(tmp_path / "r.json", {"key": "b"}).values["seconds"] == {}


def test_both_modes_are_compared_and_kept(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare = script("rcnn_map").compare
    dataset = load_dataset(shapes, "val", classes=CLASSES[:2], allow_missing=True)
    model = tmp_path / "m.safetensors"
    detector = make_detector()
    detector.classes = ("ring", "disc", "cross")
    detector.save(model, description="", provenance={})
    with pytest.raises(script("rcnn_map").SppdetError, match="other classes"):
        compare(str(model), dataset, 4, tmp_path / "kept", NullProgress())
    same = load_dataset(shapes, "val", classes=detector.classes, allow_missing=True)
    first = compare(str(model), same, 4, tmp_path / "kept", NullProgress())
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.json")}
    assert len(files) == len(same)
    out = capsys.readouterr().out
    assert "spp " in out
    assert "rcnn " in out
    assert compare(str(model), same, 4, tmp_path / "kept", NullProgress()) == first
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_synthetic_regions_and_classes_stand_for_real_ones() -> None:
    module, detector, image = script("detection_scaling"), make_detector(), picture()
    own = detector.propose(image)
    assert np.array_equal(module.regions(own, 7, image, 0), own[:7])
    many = module.regions(own, 1000, image, 0)
    assert many.shape == (1000, 4)
    assert np.array_equal(many[: len(own)], own)
    assert (many >= 0).all()
    assert (many[:, 2:] <= (120, 90)).all()
    grown = module.with_classes(detector, 9, 0)
    assert len(set(grown.classes)) == 9
    found, counts = detector.detect(image), np.bincount(grown.detect(image).labels, minlength=9)
    before = np.bincount(found.labels, minlength=3)
    assert counts[2] == counts[5] == counts[8] == before[2] == 0
    assert (counts[[0, 1]] > before[[0, 1]] / 2).all()


def test_stages_are_timed_and_reported() -> None:
    module, detector, image = script("detection_speed"), make_detector(), picture()
    found = module.stage_seconds(detector, image)
    assert set(found) <= set(module.STAGES)
    assert {"proposals", "resize, conv", "pool, fc6", "SVMs"} <= set(found)
    assert all(seconds >= 0 for seconds in found.values())
    one = module.Contender("ours", 1, detector.detect, 2, detector)
    other = module.Contender("theirs", 1, lambda image: None, 1)
    for _ in range(3):
        one.time_image(image)
        other.time_image(image)
    assert (len(one.seconds), len(other.seconds)) == (2, 1)
    assert len(module.table([one, other]).splitlines()) == 3
    assert [row["name"] for row in module.rows([one, other])] == ["ours", "theirs"]


def test_the_pooling_benchmark_sees_a_difference() -> None:
    module = script("spp_pooling")
    windows = module.random_windows(20, 12, 15, seed=0)
    assert (windows[:, 2:] > windows[:, :2]).all()
    torch = module.torch
    cells = torch.randn(12, 15, 4, generator=torch.Generator().manual_seed(0)).permute(2, 0, 1)
    ours = module.spatial_pyramid_pool(cells, windows)
    theirs = module.pool_by_roi_pool(cells.contiguous(), windows)
    loop = module.pool_by_loop(cells.contiguous(), windows)
    assert module.same_bits(ours, theirs)
    assert module.same_bits(ours, loop)
    changed = ours.clone()
    changed[3, 5] = torch.nextafter(changed[3, 5], torch.tensor(9.0))
    assert not module.same_bits(ours, changed)
    assert not module.same_bits(torch.zeros(2), -torch.zeros(2))


def test_photos_are_enlarged_to_the_megapixels_asked_for(tmp_path: Path) -> None:
    module, seen = script("proposals"), []
    Image.fromarray(picture()).save(tmp_path / "one.png")
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    sample = Sample("one", tmp_path / "one.png", 120, 90, *none, np.zeros(0, np.bool_))

    def source(image: ImageArray) -> FloatArray:
        seen.append(image.shape[0] * image.shape[1] / 1e6)
        return np.zeros((0, 4), np.float32)

    grown = module.growth(source, [sample], [0.1, 2.0])
    assert list(grown) == ["own", "0.1", "2.0"]
    assert seen[::3] == pytest.approx([120 * 90 / 1e6, 0.1, 2.0], rel=0.01)
    assert all(line.endswith("x") for line in module.growth_table(grown).splitlines())


def test_own_data_are_trained_on_in_turns_and_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, run, module = tmp_path / "sets", tmp_path / "run", script("own_data")
    for name in ("broken", "done"):
        make_synthetic_voc(root / name, train=4, val=1, test=0, width=120, height=90)
    row = {"images": 4, "evaluated_on": 1, "ap50": 0.5, "ap": 0.25, "seconds": 60, "peak_gb": 1}
    run.mkdir()
    (run / "own_data.json").write_text(json.dumps({"rows": {"done": {"from-made": row}}}))
    made = tmp_path / "made.safetensors"
    make_detector().save(made, description="", provenance={})
    monkeypatch.setitem(module.METHODS, "from-made", ("train", "--from", str(made)))
    words = [str(root), "--run", str(run), "--methods", "from-made", "--hold-out", "broken"]
    assert module.main([*words, "--set", "finetune.steps=2", "--threads", "1"]) == 0
    out, rows = capsys.readouterr().out, json.loads((run / "own_data.json").read_text())["rows"]
    assert [line.split(",")[0] for line in out.splitlines() if line.endswith("...")] == ["broken"]
    assert rows["done"] == {"from-made": row}
    found = rows["broken"]["from-made"]
    assert (found["images"], found["evaluated_on"]) == (3, 1)
    assert found["peak_gb"] > 0.1
    assert 0 <= found["ap"] <= found["ap50"] <= 1
    assert "| done | 4, 1 to evaluate on | from-made | 50.0 | 25.0 | 60 | 1.0 |" in out
    assert out.splitlines()[-1] == module.processor()


def test_new_classes_are_added_from_few_shots_and_the_old_ones_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("ring", "star", "square")
    make_synthetic_voc(
        tmp_path / "VOC2007", train=8, val=3, test=0, width=120, height=90, classes=names
    )
    base = tmp_path / "base.safetensors"
    make_detector().save(base, description="", provenance={})
    words = [str(tmp_path), "--run", str(tmp_path / "run"), "--base", str(base), "--seeds", "2"]
    words += ["--shots", "1", "2", "--novel", "star", "square", "--base-classes", "ring"]
    module = script("fewshot_voc")
    assert module.main(words) == 0
    out = capsys.readouterr().out
    assert "3 photos compared bit for bit: equal" in out
    assert "| DeFRCN | 40.2 | 53.6 |" in out
    found = (tmp_path / "run" / "fewshot.json").read_bytes()
    report = json.loads(found)
    assert report["base_before"] == report["base_after"]
    assert {*report["novel"]} == {"1", "2"}
    assert all(0 <= mean <= 1 for mean, _ in report["novel"].values())
    # What was detected is read back.
    assert module.main(words) == 0
    again = json.loads((tmp_path / "run" / "fewshot.json").read_bytes())
    assert again["novel"] == report["novel"]


@settings(deadline=None, max_examples=30)
@given(shots=st.integers(1, 6), seed=st.integers(0, 999))
def test_shots_are_as_many_objects_as_were_asked_for(shots: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(30):
        labels = rng.integers(0, 3, rng.integers(0, 4))
        boxes = np.tile(np.array([[1, 2, 30, 40]], np.float32), (len(labels), 1))
        name, difficult = str(number), rng.random(len(labels)) < 0.2
        samples.append(Sample(name, Path(name), 60, 50, boxes, labels, difficult))
    dataset = Dataset("made", ("a", "b", "c"), tuple(samples))
    drawn = script("fewshot_voc").draw_shots(dataset, "b", shots, seed)
    assert sum(len(one.labels) for one in drawn) == shots
    assert len({one.image_id for one in drawn}) == len(drawn)
    for one in drawn:
        whole = dataset.samples[int(one.image_id)]
        assert len(one.labels) == (whole.labels == 1).sum()
        assert not whole.difficult[whole.labels == 1].any()


def test_a_command_that_fails_is_told_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(SppdetError, match=r"`sppdet data` failed .*absent: no such"):
        script("own_data").run_command(["data", "check", "absent"], tmp_path / "log")


def test_grid_places_every_image() -> None:
    images = [
        np.full((h, w, 3), k, np.uint8) for k, (w, h) in enumerate([(50, 100), (80, 40), (9, 9)])
    ]
    sheet = script("demo").grid(images, 2, cell=64, gap=4)
    assert sheet.shape == (4 + 64 + 4 + 64 + 4, 4 + 64 + 4 + 64 + 4, 3)
    assert [(sheet == k).all(axis=2).sum() for k in range(3)] == [32 * 64, 64 * 32, 64 * 64]


def test_grid_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs an image"):
        script("demo").grid([], 3)


def test_the_rungs_of_the_ladder_share_what_they_can(
    shapes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["paper_ladder.py", str(shapes), "--run", str(tmp_path)]
    words += ["--config", str(ROOT / "configs" / "tiny.toml")]
    words += [word for change in SMALL for word in ("--set", change)]
    monkeypatch.setattr(sys, "argv", words)
    module = script("paper_ladder")
    assert module.main() == 0
    figures = json.loads((tmp_path / "ladder.json").read_text())
    names = [name for name, _, _ in module.rungs(TrainingConfig())]
    assert list(figures) == sorted(names)
    out = capsys.readouterr().out
    assert all(f"| {name} |" in out for name in names)
    kinds = [path.name.split("-")[0] for path in tmp_path.glob("*-*.safetensors")]
    assert kinds.count("finetune") == 1
    assert kinds.count("svm") == 3
    # The last of the models is the one on fc7: its last rung is what a detection with it finds.
    rules = "detection.scale_factors=[1.0]"
    detector = Detector.load(tmp_path / "model.safetensors").configure(None, [rules])
    dataset = load_dataset(shapes, "val", classes=detector.classes, allow_missing=True)
    seen = detect_dataset(detector, dataset, tmp_path / "cache", NullProgress())
    assert figures[names[-1]]["map11"] == pytest.approx(evaluate_voc(dataset, seen).map11, abs=0.02)
