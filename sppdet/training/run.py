"""The whole training, stage after stage, each skipped when its inputs have not changed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from sppdet.backbones.base import any_size
from sppdet.config import Config, to_dict
from sppdet.detector import Detector
from sppdet.errors import SppdetError, TrainingError
from sppdet.features import FeatureExtractor
from sppdet.files import atomic_write_json, config_digest, sha256
from sppdet.head import RegionHead
from sppdet.images import read_image, read_sample
from sppdet.mapstore import MapStore
from sppdet.progress import Progress
from sppdet.proposals import make_proposer
from sppdet.proposals.cache import attempt_all
from sppdet.svm import SvmConfig
from sppdet.training.data import TrainingData, refuse
from sppdet.training.fitted import RegressorStage, SceneStage
from sppdet.training.job import Job
from sppdet.training.overview import look_over
from sppdet.training.stages import compressed_head, fine_tuned_head
from sppdet.training.statistics import rounding_error
from sppdet.training.store import StageStore
from sppdet.training.svm_stage import SvmStage
from sppdet.types import Dataset, Sample
from sppdet.versions import versions
from sppdet.warmup import warm_up

MODEL_FILE = "model.safetensors"
LOG_FILE = "train.json"
# By this share of their norm 8-bit integers may change maps without a word: twice what is usual.
MUCH_ROUNDING = 0.2


def train(
    config: Config,
    dataset: Dataset,
    run_dir: Path,
    *,
    progress: Progress,
    device: str = "cpu",
    cache_dir: Path | None = None,
    description: str = "",
    svm_variants: Sequence[SvmConfig] = (),
    workers: int = 0,
) -> Path:
    """The path of the trained model file, `run_dir / "model.safetensors"`.

    Stages whose inputs are unchanged are not run again, and an interrupted one goes on where it
    was last saved; either way the model is the same, byte for byte, as from one unbroken run on
    the same machine (on a GPU: up to rounding).

    Args:
        config: all settings.
        dataset: the training images.
        run_dir: the stages' results; made if missing.
        progress: is told how far each stage is.
        device: where the backbone runs and fine-tuning takes place.
        cache_dir: proposals and conv maps, which runs may share; `run_dir / "cache"` by default.
        description: one line about the model, kept in its file.
        svm_variants: SVM settings that a later run of the same folder will ask for; mined in the
            same pass over the images.
        workers: threads that compute proposals; 0 for one a core. No result depends on it.

    Raises TrainingError when images cannot be read, no class has an object, or the loss is not
    finite.
    """
    if not any(len(sample.labels) for sample in dataset):
        raise TrainingError(f"{dataset.name} has no objects", mend="check the annotations")
    cache = cache_dir if cache_dir is not None else run_dir / "cache"
    tuning = config.finetune.suited(len(dataset))
    extractor = FeatureExtractor(config.features, seed=config.seed, device=device)
    clock = _Clock()
    with any_size():
        data = prepare(config, dataset, cache, extractor, progress, clock, workers=workers)
        job = Job(replace(config, finetune=tuning), data, StageStore(run_dir), progress)
        key = sha256(data.key(), extractor.digest(), config_digest(to_dict(config.head)))
        key = sha256(key, config_digest(to_dict(tuning)), str(config.seed))
        head = fine_tuned_head(job, key)
    clock.mark("fine-tuning")
    tuned = key
    head = compressed_head(job, head, key).freeze()
    key = sha256(key, config_digest(to_dict(config.compression)))
    _warn_of_rounding(job, head)
    clock.mark("compression")
    stage = SvmStage(job, head, key, svm_variants)
    regressors = RegressorStage(job, head, key)
    scene = SceneStage(job, head, tuned)
    look_over(job, head, (stage, regressors, scene))
    clock.mark("positives, box regressors, scenes")
    svms = stage.mined()
    clock.mark("hard negatives")
    detector = Detector(
        dataset.classes, config, extractor, head, svms, regressors.result(), scene.result()
    )
    path = run_dir / MODEL_FILE
    detector.save(path, description=description, provenance=_provenance(job))
    atomic_write_json(run_dir / LOG_FILE, {"seconds": clock.seconds, "config": to_dict(config)})
    return path


def prepare(
    config: Config,
    dataset: Dataset,
    cache: Path,
    extractor: FeatureExtractor,
    progress: Progress,
    clock: _Clock | None = None,
    *,
    workers: int = 0,
) -> TrainingData:
    """The data set with its proposals and conv maps, computed or found in the cache.

    Proposals are computed on `workers` threads (0: one a core).

    Raises TrainingError naming the images that cannot be read or are of another size than stated.
    """
    clock = clock or _Clock()
    samples = list(dataset)
    digests, errors = _digests(samples)
    refuse(errors)
    proposals = []
    warm_up(announce=progress.say)
    paths = [sample.path for sample in samples]
    sources = attempt_all(
        paths, read_image, make_proposer(config.proposals), cache / "proposals", workers=workers
    )
    with progress.task("proposals", len(samples)) as advance:
        for _, found in sources:
            if isinstance(found, SppdetError):
                errors.append(found)
            else:
                proposals.append(found)
            advance(1)
    refuse(errors)
    clock.mark("proposals")
    maps = MapStore(cache / "maps", extractor)
    with progress.task("conv maps", len(samples)) as advance:
        for sample, digest in zip(samples, digests, strict=True):
            try:
                if not maps.has(digest):
                    maps.compute(digest, read_sample(sample))
            except SppdetError as error:
                errors.append(error)
            advance(1)
    refuse(errors)
    clock.mark("conv maps")
    return TrainingData(dataset, tuple(digests), tuple(proposals), maps)


def _digests(samples: list[Sample]) -> tuple[list[str], list[SppdetError]]:
    def digest(sample: Sample) -> str | SppdetError:
        try:
            return sha256(sample.path.read_bytes())
        except OSError as error:
            return SppdetError(f"cannot be read: {error.strerror}", where=sample.path)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(digest, samples))
    return [d for d in found if isinstance(d, str)], [d for d in found if not isinstance(d, str)]


def _warn_of_rounding(job: Job, head: RegionHead) -> None:
    error = rounding_error(head, job.data)
    if error > MUCH_ROUNDING:
        job.progress.say(
            f"the fine-tuned stages' maps change by {100 * error:.0f} % in 8-bit integers, "
            "which may cost accuracy: --set features.eight_bits=false computes them in floats"
        )


def _provenance(job: Job) -> dict[str, object]:
    dataset = job.data.dataset
    return {
        "dataset": dataset.name,
        "images": len(dataset),
        "objects": sum(len(sample.labels) for sample in dataset),
        "steps": job.config.finetune.steps,
        "seed": job.config.seed,
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
