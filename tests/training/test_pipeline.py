"""Training in stages: killed anywhere it ends in the same bytes, and nothing is done twice."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from sppdet.core.errors import ConfigError, TrainingError
from sppdet.core.model_file import load_model
from sppdet.core.progress import Advance, NullProgress
from sppdet.core.settings import load
from sppdet.core.types import Dataset, Sample
from sppdet.datasets import load_dataset, make_synthetic_voc
from sppdet.detection.detector import Detector
from sppdet.detection.probabilities.calibrate import calibrate
from sppdet.detection.starting_model import StartingModel
from sppdet.reports.model_card import CARD_FILE
from sppdet.reports.training_curves import CURVES_FILE
from sppdet.training import train
from sppdet.training.config import TrainingConfig
from sppdet.training.region_pass import LABEL
from sppdet.training.validation.history import HISTORY_FILE
from tests.helpers.killed_training import HELD_OUT, IMAGES, KILLS, SETTINGS

ROOT = Path(__file__).resolve().parent.parent.parent
STAGES = ("finetune", "compression", "regions", "svm", "calibration")
# Written by every run, whether or not anything had to be done.
PREPARED = ["proposals", "feature maps", "validation proposals", "validation feature maps"]
ALWAYS = ("model.safetensors", "train.json")
# What people look at.
TOLD = (HISTORY_FILE, CURVES_FILE, CARD_FILE)

Files = dict[str, tuple[int, bytes]]


class Told(NullProgress):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.lines: list[str] = []

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """A stage that has work to do."""
        self.stages.append(label)
        yield lambda done: None

    def say(self, text: str) -> None:
        """A line for the user."""
        self.lines.append(text)


class Killed(NamedTuple):
    """What `tests.helpers.killed_training` left behind."""

    folder: Path
    writes: list[str]
    stages: list[list[object]]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic VOC data set, not to be changed."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    return make_synthetic_voc(root, train=IMAGES, val=HELD_OUT, test=0, width=120, height=90)


@pytest.fixture(scope="module")
def killed(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """One whole training and two that were killed again and again."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-m", "tests.helpers.killed_training", str(shapes), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return Killed(folder, told["writes"], told["stages"])


@pytest.fixture(scope="module")
def dataset(shapes: Path) -> Dataset:
    return load_dataset(shapes, "train")


@pytest.fixture(scope="module")
def held_out(shapes: Path) -> Dataset:
    return load_dataset(shapes, "val")


@pytest.fixture(scope="module")
def trained(dataset: Dataset, held_out: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    path = train(_config(), dataset, folder, progress=NullProgress(), validation=held_out)
    assert path == folder / "model.safetensors"
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def _config(*overrides: str) -> TrainingConfig:
    return load(TrainingConfig, None, [*SETTINGS, *overrides])


def _files(folder: Path) -> Files:
    """Times and contents of all files of a run but those that every run writes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ALWAYS
    }


def _contents(folder: Path) -> dict[str, bytes]:
    """Contents of a run's files, without what a killed process left unfinished."""
    return {k: data for k, (_, data) in _files(folder).items() if not k.endswith(".part")}


def _model(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_an_unbroken_run_leaves_its_stages_and_nothing_half_done(killed: Killed) -> None:
    whole = killed.folder / "whole"
    names = {re.sub(r"-[0-9a-f]{16}", "", path.name) for path in whole.iterdir()}
    assert names == {"cache", *ALWAYS, *TOLD, *(f"{stage}.safetensors" for stage in STAGES)}
    assert len(list(whole.rglob("*.boxes"))) == IMAGES + HELD_OUT
    # AP is measured on maps like those of the training, detections come from larger ones.
    assert len(list(whole.rglob("*.maps"))) == IMAGES + 2 * HELD_OUT


def test_killed_before_every_file_it_ends_in_the_same_bytes(killed: Killed) -> None:
    whole, writes = killed.folder / "whole", killed.folder / "writes"
    kinds = {re.sub(r"^[0-9a-f]{32}|-[0-9a-f]{16}", "", name) for name in killed.writes}
    partials = {"finetune.partial.safetensors", "svm.partial.safetensors"}
    stages = {f"{stage}.safetensors" for stage in STAGES}
    assert kinds == {".boxes", ".maps", *partials, *stages, *ALWAYS, *TOLD}
    assert killed.writes[-1] == "train.json"
    assert _model(writes) == _model(whole)
    assert _contents(writes) == _contents(whole)


def test_killed_in_the_middle_of_every_stage_it_ends_in_the_same_bytes(killed: Killed) -> None:
    whole, stages = killed.folder / "whole", killed.folder / "stages"
    assert killed.stages == [list(kill) for kill in KILLS]
    assert _model(stages) == _model(whole)
    assert _contents(stages) == _contents(whole)


def _command(shapes: Path, run: Path, start: str | Path, *more: str) -> list[str]:
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    words = ["train", str(shapes), "--run", str(run), "--threads", "1", *words, *more]
    code = "from sppdet.cli import main; main()"
    return [sys.executable, "-c", code, *words, "--from", str(start)]


def _kill_and_go_on(command: list[str], run: Path) -> None:
    """Kill a training once some of its steps are saved, and give the same command again."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as job:
        while not list(run.glob("finetune-*.partial.safetensors")) and job.poll() is None:
            time.sleep(0.005)
        job.kill()
        assert job.wait() == -signal.SIGKILL
    assert not (run / "model.safetensors").exists()
    last = subprocess.run(command, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert re.search(r"fine-tuning: going on from step (5|10)$", last.stderr, re.MULTILINE)


def test_a_killed_command_goes_on_to_the_same_bytes(
    killed: Killed, shapes: Path, tmp_path: Path
) -> None:
    _kill_and_go_on(_command(shapes, tmp_path, "none"), tmp_path)
    assert _model(tmp_path) == _model(killed.folder / "whole")


def test_a_killed_command_that_started_from_a_model_goes_on_to_the_same_bytes(
    killed: Killed, shapes: Path, tmp_path: Path
) -> None:
    start, cache = killed.folder / "whole" / "model.safetensors", killed.folder / "whole" / "cache"
    a, b = (_command(shapes, tmp_path / one, start, "--cache", str(cache)) for one in "ab")
    _kill_and_go_on(a, tmp_path / "a")
    subprocess.run(b, check=True)
    assert _model(tmp_path / "a") == _model(tmp_path / "b") != _model(killed.folder / "whole")


def test_a_model_that_training_starts_from_is_named_and_decides_the_result(
    trained: Path, dataset: Dataset, run: Path
) -> None:
    start, files = StartingModel.load(trained / "model.safetensors"), _files(run)
    train(_config(), dataset, run, progress=NullProgress(), start=start)
    new = _files(run).keys() - files.keys()
    assert {name.split("-")[0] for name in new} == {*STAGES} - {"calibration"}
    header, _ = load_model(run / "model.safetensors")
    assert header.provenance["started_from"] == start.provenance()
    assert start.datasets == (dataset.name,)
    with pytest.raises(ConfigError, match=r"head\.fc7 is 16.*--from none"):
        train(_config("head.fc7=16"), dataset, run, progress=NullProgress(), start=start)


def test_an_unchanged_run_does_nothing_again(
    run: Path, dataset: Dataset, held_out: Dataset
) -> None:
    files, model = _files(run), _model(run)
    told = Told()
    train(_config(), dataset, run, progress=told, validation=held_out)
    assert _files(run) == files
    assert _model(run) == model
    assert told.stages == PREPARED
    unchanged = [line for line in told.lines if "unchanged" in line]
    stages = ["fine-tuning", "compression", LABEL, "SVMs", "calibration"]
    assert [line.split(":")[0] for line in unchanged] == stages


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("detection.nms_iou=0.5", set()),
        ("detection.scale_factors=[1.5]", set()),
        ("svm.c=0.5", {"svm"}),
        ("svm.feature_norm=10.0", {"regions", "svm"}),
        ("regression.alpha=10.0", {"regions"}),
        ("context.c=0.1", {"regions"}),
        ("head.svm_layer=fc6", {"regions", "svm"}),
        ("head.regression_layer=pool", {"regions", "svm"}),
        ("head.fc6_rank=4", {"compression", "regions", "svm"}),
        ("finetune.steps=3", set(STAGES)),
        ("seed=1", set(STAGES)),
    ],
)
def test_a_change_runs_only_what_depends_on_it(
    run: Path, dataset: Dataset, held_out: Dataset, change: str, again: set[str]
) -> None:
    before, model = _files(run), _model(run)
    told = Told()
    train(_config(change), dataset, run, progress=told, validation=held_out)
    after = _files(run)
    new = {name: file for name, file in after.items() if name not in before}
    stages = {name.split("-")[0] for name in new if not name.startswith("cache")}
    # Whatever is trained or detected in another way is calibrated anew.
    assert stages == {*again, "calibration"}
    assert (after.pop(HISTORY_FILE) != before.pop(HISTORY_FILE)) == ("finetune" in again)
    for name in (CURVES_FILE, CARD_FILE):  # of the last one that was trained
        del before[name]
    work = {
        "fine-tuning": {"finetune"},
        "compression": {"compression"},
        LABEL: {"regions"},
        "hard negatives": {"svm"},
        "detecting": {"calibration"},
    }
    ran = [stage for stage in told.stages if stage in work]
    assert ran == [label for label, made in work.items() if made & stages]
    # What was there stays: the old settings find it again.
    assert {name: file for name, file in _files(run).items() if name in before} == before
    assert _model(run) != model
    train(_config(), dataset, run, progress=told, validation=held_out)
    assert _model(run) == model


def test_whether_boxes_are_learned_follows_from_fine_tuning(
    run: Path, dataset: Dataset, held_out: Dataset
) -> None:
    files, model = _files(run), _model(run)
    train(_config("head.learned_boxes=false"), dataset, run, progress=Told(), validation=held_out)
    assert _files(run) == files
    assert _model(run) == model
    assert Detector.load(run / "model.safetensors").config.head.learned_boxes
    path = train(_config("finetune.box_loss_weight=0"), dataset, run, progress=Told())
    assert not Detector.load(path).config.head.learned_boxes


def test_other_annotations_train_anew_on_the_same_maps(
    run: Path, dataset: Dataset, held_out: Dataset
) -> None:
    before = _files(run)
    first = dataset.samples[0]
    moved = replace(first, boxes=first.boxes + np.float32(2))
    moved_one = replace(dataset, samples=(moved, *dataset.samples[1:]))
    train(_config(), moved_one, run, progress=Told(), validation=held_out)
    new = [name for name in _files(run) if name not in before]
    assert sorted(name.split("-")[0] for name in new) == sorted(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_damaged_stage_is_trained_anew(
    run: Path, dataset: Dataset, held_out: Dataset, stage: str
) -> None:
    before, model = _contents(run), _model(run)
    (damaged,) = run.glob(f"{stage}-*.safetensors")
    data = damaged.read_bytes()
    damaged.write_bytes(data[: len(data) // 2])
    told = Told()
    train(_config(), dataset, run, progress=told, validation=held_out)
    assert _contents(run) == before
    assert _model(run) == model
    assert sum("unchanged" in line for line in told.lines) == len(STAGES) - 1


def test_a_damaged_cache_is_computed_anew(run: Path, dataset: Dataset, held_out: Dataset) -> None:
    before, model = _files(run), _model(run)
    damaged = [sorted((run / "cache").rglob(pattern))[1] for pattern in ("*.maps", "*.boxes")]
    maps, boxes = (path.read_bytes() for path in damaged)
    damaged[0].write_bytes(maps[:-9] + bytes([maps[-9] ^ 1]) + maps[-8:])
    damaged[1].write_bytes(boxes[:-1])
    train(_config(), dataset, run, progress=Told(), validation=held_out)
    after = _files(run)
    assert {k: data for k, (_, data) in after.items()} == {
        k: data for k, (_, data) in before.items()
    }
    touched = [name for name in after if after[name][0] != before[name][0]]
    assert touched == sorted(str(path.relative_to(run)) for path in damaged)
    assert _model(run) == model


def test_the_maps_of_another_run_give_the_same_model(
    trained: Path, dataset: Dataset, held_out: Dataset, tmp_path: Path
) -> None:
    cache = trained / "cache"
    before = _files(cache)
    train(
        _config(), dataset, tmp_path, progress=NullProgress(), validation=held_out, cache_dir=cache
    )
    assert _files(cache) == before
    assert not (tmp_path / "cache").exists()
    assert _model(tmp_path) == _model(trained)


def test_the_model_says_how_it_was_made(trained: Path, dataset: Dataset) -> None:
    header, _ = load_model(trained / "model.safetensors")
    assert header.classes == dataset.classes
    assert header.provenance["images"] == IMAGES
    assert header.provenance["objects"] == sum(len(sample.labels) for sample in dataset)
    assert header.provenance["seed"] == 0
    log = json.loads((trained / "train.json").read_text())
    stages = {"fine-tuning", "compression", LABEL, "hard negatives", "calibration"}
    assert set(log["seconds"]) == {"proposals and feature maps", *stages}
    assert min(log["seconds"].values()) >= 0


def test_scores_are_calibrated_on_the_held_out_images(
    run: Path, dataset: Dataset, held_out: Dataset
) -> None:
    header, tensors = load_model(run / "model.safetensors")
    detector = Detector.load(run / "model.safetensors")
    assert detector.is_calibrated
    assert header.provenance["calibration"]["images"] == HELD_OUT
    assert header.provenance["calibration"]["dataset"] == held_out.name
    assert 0 <= header.provenance["calibration"]["ap50"] <= 1
    expected = calibrate(detector, held_out, run / "cache", NullProgress()).calibration
    assert np.array_equal(tensors["calibration.slope"], expected.slope)
    assert np.array_equal(tensors["calibration.intercept"], expected.intercept)
    # Other annotations of the same images are another calibration, and nothing else.
    told = Told()
    bare = replace(held_out, samples=tuple(map(_without_objects, held_out)))
    train(_config(), dataset, run, progress=told, validation=bare)
    assert told.stages == [*PREPARED, "detecting"]
    changed = load_model(run / "model.safetensors")[1]
    assert changed.keys() == tensors.keys()
    assert {name for name in tensors if not np.array_equal(changed[name], tensors[name])} <= {
        "calibration.slope",
        "calibration.intercept",
    }
    # Nothing is right now: the same margins have lower probabilities.
    low, high = (
        one["calibration.intercept"] - one["calibration.slope"] for one in (changed, tensors)
    )
    assert (low < high).all()


def test_without_held_out_images_it_says_that_scores_are_not_calibrated(
    run: Path, dataset: Dataset
) -> None:
    told = Told()
    path = train(_config(), dataset, run, progress=told)
    (line,) = (line for line in told.lines if "not calibrated" in line)
    assert "sppdet calibrate" in line
    assert not Detector.load(path).is_calibrated


def test_a_held_out_image_that_cannot_be_read_is_told_before_the_work(
    tmp_path: Path, dataset: Dataset, held_out: Dataset
) -> None:
    unread = replace(held_out.samples[0], path=tmp_path / "absent.jpg")
    with pytest.raises(TrainingError, match="absent"):
        train(
            _config(),
            dataset,
            tmp_path / "run",
            progress=NullProgress(),
            validation=replace(held_out, samples=(unread,)),
        )
    assert not list((tmp_path / "run").glob("finetune*"))


def _without_objects(sample: Sample) -> Sample:
    return replace(
        sample,
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        difficult=np.zeros(0, np.bool_),
    )


def test_classes_and_images_without_objects(dataset: Dataset, run: Path) -> None:
    samples = (_without_objects(dataset.samples[0]), *dataset.samples[1:])
    odd = replace(dataset, classes=("unicorn", *dataset.classes), samples=tuple(
        replace(sample, labels=sample.labels + 1) for sample in samples
    ))  # fmt: skip
    config = _config("detection.margin_threshold=-1000.0", "detection.nms_iou=1.0")
    made = train(config, odd, run, progress=NullProgress(), overwrite=True)
    detector = Detector.load(made)
    seen = {int(label) for sample in odd for label in sample.labels}
    assert detector.regressors is not None
    for trained in (detector.svms.trained, detector.regressors.trained):
        assert {label for label in range(len(odd.classes)) if trained[label]} == seen
    found = detector.detect(dataset.samples[1].path)
    assert set(found.labels.tolist()) == seen
    assert "unicorn" not in {one.name for one in found}


def test_training_without_fine_tuning(dataset: Dataset, run: Path) -> None:
    path = train(_config("finetune.steps=0"), dataset, run, progress=NullProgress())
    assert Detector.load(path).svms.trained.any()


def test_a_data_set_without_objects_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    bare = replace(dataset, samples=tuple(map(_without_objects, dataset)))
    for nothing in (bare, replace(dataset, samples=())):
        with pytest.raises(TrainingError, match="has no objects; check the annotations"):
            train(_config(), nothing, tmp_path / "run", progress=NullProgress())
    assert not (tmp_path / "run").exists()


@pytest.fixture
def spoilt(shapes: Path, tmp_path: Path) -> Path:
    """A copy of the data set, to be spoilt."""
    return Path(shutil.copytree(shapes, tmp_path / "spoilt"))


@pytest.mark.parametrize("damage", ["missing", "truncated", "not an image"])
def test_images_that_cannot_be_read_are_all_named(
    spoilt: Path, tmp_path: Path, damage: str
) -> None:
    dataset = load_dataset(spoilt, "train")
    paths = [dataset.samples[1].path, dataset.samples[4].path]
    for path in paths:
        data = path.read_bytes()
        path.write_bytes(data[:40] if damage == "truncated" else b"GIF of a cat")
        if damage == "missing":
            path.unlink()
    with pytest.raises(TrainingError, match=r"2 of \d images cannot be used") as caught:
        train(_config(), dataset, tmp_path / "run", progress=NullProgress())
    assert all(str(path) in str(caught.value) for path in paths)
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_images_of_another_size_than_annotated_are_all_named(
    dataset: Dataset, tmp_path: Path
) -> None:
    wrong = [replace(sample, width=60) for sample in dataset.samples[1:3]]
    odd = replace(dataset, samples=(dataset.samples[0], *wrong))
    with pytest.raises(TrainingError, match=r"2 of \d images cannot be used") as caught:
        train(_config(), odd, tmp_path / "run", progress=NullProgress())
    assert all(str(sample.path) in str(caught.value) for sample in wrong)


def test_a_loss_that_is_not_finite_stops_with_the_state_saved(
    dataset: Dataset, held_out: Dataset, trained: Path, tmp_path: Path
) -> None:
    wild = _config("finetune.learning_rate=1e30", "finetune.checkpoint_every=1000")
    cache, told = trained / "cache", Told()
    with pytest.raises(TrainingError, match="is not finite") as first:
        train(wild, dataset, tmp_path, progress=told, cache_dir=cache)
    found = re.search(r"not finite at step (\d+)", str(first.value))
    assert found
    assert len(list(tmp_path.glob("finetune-*.partial.safetensors"))) == 1
    # The same command goes on from there, and fails at the same step.
    with pytest.raises(TrainingError, match=re.escape(str(first.value))):
        train(wild, dataset, tmp_path, progress=told, cache_dir=cache)
    assert told.lines[-1] == f"fine-tuning: going on from step {found[1]}"
    # A lower rate starts anew.
    path = train(_config(), dataset, tmp_path, progress=told, validation=held_out, cache_dir=cache)
    assert path.read_bytes() == _model(trained)
