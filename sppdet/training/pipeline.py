"""The whole training, stage after stage, each skipped when its inputs have not changed."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from sppdet.backbones.base import without_cudnn
from sppdet.backbones.feature_maps import FeatureExtractor
from sppdet.core.errors import ModelFormatError, TrainingError
from sppdet.core.files import atomic_write_json, exclusive, sha256
from sppdet.core.model_file import MODEL_FILE, read_header
from sppdet.core.progress import Progress
from sppdet.core.settings import to_dict
from sppdet.core.types import Dataset
from sppdet.core.versions import versions
from sppdet.detection.detector import Detector
from sppdet.detection.probabilities.calibrate import FittedCalibration, calibrate
from sppdet.detection.starting_model import StartingModel
from sppdet.heads.head import RegionHead
from sppdet.reports.model_card import write_card
from sppdet.training.checkpoints import StageStore, TrainingContext
from sppdet.training.compression import compress_head
from sppdet.training.config import TrainingConfig
from sppdet.training.data import dataset_key, prepare_data
from sppdet.training.finetune_stage import finetune_head
from sppdet.training.region_pass import LABEL, collect_regions
from sppdet.training.statistics import quantization_error
from sppdet.training.svm_stage import train_svms
from sppdet.training.validation.average_precision import prepare_validation

LOG_FILE = "train.json"
# By this share of their norm 8-bit integers may change maps without a word: twice what is usual.
MUCH_ERROR = 0.2


def train(
    config: TrainingConfig,
    dataset: Dataset,
    run_dir: Path,
    *,
    progress: Progress,
    start: StartingModel | None = None,
    device: str = "cpu",
    cache_dir: Path | None = None,
    description: str = "",
    workers: int = 0,
    validation: Dataset | None = None,
    overwrite: bool = False,
) -> Path:
    """Train a detector; the path of its model file, `run_dir / "model.safetensors"`.

    Stages whose inputs are unchanged are not run again, and an interrupted one goes on where it
    was last saved; either way the model is the same, byte for byte, as from one unbroken run on
    the same machine (on a GPU: up to rounding). A model card is written beside it.

    Args:
        config: all settings.
        dataset: the training images.
        run_dir: the stages' results; made if missing.
        progress: shows how far each stage is.
        start: the model whose layers fine-tuning starts from; None for random ones.
        device: where the backbone runs and fine-tuning takes place.
        cache_dir: proposals and feature maps, which runs may share; `run_dir / "cache"` by default.
        description: one line about the model, kept in its file.
        workers: threads that compute proposals; 0 for one per core. No result depends on it.
        validation: labeled images of the same classes that are not among the training images.
            Scores become probabilities by them. AP is measured on some of them while fine-tuning;
            it is told, written to `run_dir / "history.csv"` and drawn in `curves.svg`, and changes
            nothing.
        overwrite: train into a folder that holds a model of other data.

    Raises TrainingError when images cannot be read, no class has an object, the loss is not finite,
    or the folder holds a model of other data; ConfigError for settings that the starting model's
    layers do not fit; LockedError where another process trains into the folder.
    """
    if not any(len(sample.labels) for sample in dataset):
        raise TrainingError(f"{dataset.name} has no objects", hint="check the annotations")
    if start is not None:
        start.check(config)
    with exclusive(run_dir):
        check_run_folder(run_dir, dataset, overwrite=overwrite)
        config = config.settled(len(dataset), None if start is None else start.config.head)
        cache = cache_dir if cache_dir is not None else run_dir / "cache"
        extractor = FeatureExtractor(config.features, seed=config.seed, device=device)
        clock = _Clock()
        with without_cudnn():
            data = prepare_data(config, dataset, cache, extractor, progress, workers=workers)
            watched = prepare_validation(
                config, validation, cache, extractor, progress, workers=workers
            )
            clock.mark("proposals and feature maps")
            digest = None if start is None else start.digest
            store = StageStore(run_dir, config, data.key(), digest)
            context = TrainingContext(config, data, store, progress, start)
            tuned = finetune_head(context, watched)
        clock.mark("fine-tuning")
        head = compress_head(context, tuned).freeze(quantize=config.features.quantize)
        _warn_of_quantization(context, head)
        clock.mark("compression")
        regions = collect_regions(context, head)
        clock.mark(LABEL)
        svms, bank = train_svms(context, head, regions.miner)
        clock.mark("hard negatives")
        stages = (extractor, head, svms, regions.regressors, regions.context)
        detector = Detector(dataset.classes, config.detector(), *stages, bank=bank)
        path = run_dir / MODEL_FILE
        provenance = _provenance(context)
        fitted = _calibrate(context, detector, validation, cache, workers)
        if validation is not None and fitted is not None:
            detector = detector.with_calibration(fitted.calibration)
            provenance["calibration"] = fitted.provenance(validation)
        clock.mark("calibration")
        detector.save(path, description=description, provenance=provenance)
        write_card(path)
        atomic_write_json(run_dir / LOG_FILE, {"seconds": clock.seconds, "config": to_dict(config)})
        return path


def check_run_folder(run_dir: Path, dataset: Dataset, *, overwrite: bool = False) -> None:
    """Raise TrainingError where a folder holds a model of other images or classes."""
    path = run_dir / MODEL_FILE
    if overwrite or not path.exists():
        return
    try:
        header = read_header(path)
    except ModelFormatError:
        return
    known = header.provenance.get("dataset"), header.provenance.get("images"), header.classes
    if known != (dataset.name, len(dataset), dataset.classes):
        raise TrainingError(
            f"holds a model of {known[0]} ({known[1]} images; {', '.join(known[2])})",
            path=run_dir,
            hint="name another folder (--run), or let it be replaced (--overwrite)",
        )


def _warn_of_quantization(context: TrainingContext, head: RegionHead) -> None:
    error = quantization_error(head, context.data)
    if error > MUCH_ERROR:
        context.progress.say(
            f"the fine-tuned stages' maps change by {100 * error:.0f} % in 8-bit integers, "
            "which may cost accuracy: --set features.quantize=false computes them in floats"
        )


def _calibrate(
    context: TrainingContext,
    detector: Detector,
    held_out: Dataset | None,
    cache: Path,
    workers: int,
) -> FittedCalibration | None:
    """Fit the calibration on held-out images, or take it from the run's folder; None without."""
    before, progress = context.store, context.progress
    if held_out is None or not len(held_out):
        progress.say(
            "scores are not calibrated, for no images were held out: sppdet calibrate DATA --model "
            f"{before.folder / MODEL_FILE} --out FILE does it on others"
        )
        return None
    fields = FittedCalibration._fields
    key = sha256(before.key("svm"), before.key("regions"), dataset_key(held_out), *fields)
    store = StageStore(before.folder, context.config, key)
    done = replace(context, store=store).find_result("calibration", "calibration")
    if done is not None:
        fitted = FittedCalibration.from_arrays({k: v.numpy() for k, v in done.items()})
    else:
        # As users load it: the file's layers are rounded, which margins show.
        path, device = before.folder / MODEL_FILE, str(detector.extractor.device)
        detector.save(path, description="", provenance=_provenance(context))
        loaded = Detector.load_file(path, device=device)
        fitted = calibrate(loaded, held_out, cache, progress, workers=workers)
        store.save("calibration", fitted.arrays())
    progress.say(fitted.describe())
    return fitted


def _provenance(context: TrainingContext) -> dict[str, object]:
    dataset, config, start = context.data.dataset, context.config, context.start
    return {
        "dataset": dataset.name,
        "images": len(dataset),
        "objects": sum(len(sample.labels) for sample in dataset),
        "steps": config.finetune.steps,
        "seed": config.seed,
        **({} if start is None else {"started_from": start.provenance()}),
        "training": config.training_settings(),
        **versions(),
    }


class _Clock:
    """Wall-clock seconds of each stage, for the log beside the model (never in it)."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def mark(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 1)
        self._last = now
