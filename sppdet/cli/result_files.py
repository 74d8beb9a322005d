"""Result files of `sppdet evaluate`: which kind they are, and where they go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sppdet.cli.common import warn
from sppdet.core.errors import AnnotationError, EvaluationError

if TYPE_CHECKING:
    from sppdet.cli.dataset import OpenData
    from sppdet.core.types import Dataset, Detections

COCO_FILE = "detections.json"
_VOC_START = "comp4_det_"


def read_results(results: Path, opened: OpenData, dataset: Dataset) -> Mapping[str, Detections]:
    """Read detections that some tool wrote; the kind is found out.

    Raises:
        EvaluationError: as the readers do, or not results of a known kind.
    """
    from sppdet.evaluation.result_files.coco_results import read_coco_detections
    from sppdet.evaluation.result_files.other_results import (
        read_csv_detections,
        read_yolo_detections,
    )
    from sppdet.evaluation.result_files.voc_results import read_voc_detections

    suffix = results.suffix.lower()
    if results.is_dir():
        folder = _yolo_folder(results)
        if folder is None:
            split = _voc_split(results, opened.file_split, dataset.classes)
            _check_voc_files(results, split, dataset.classes)
            return read_voc_detections(results, dataset, split=split)
        own_list = (folder / "classes.txt").is_file()
        # The numbers in YOLO's files are places in the data's own list of names.
        return read_yolo_detections(folder, dataset, classes=None if own_list else _listed(opened))
    if suffix == ".json":
        return read_coco_detections(results, dataset, category_ids=category_ids(opened, dataset))
    if suffix == ".csv":
        return read_csv_detections(results, dataset)
    raise EvaluationError(
        "no results of a known kind" if results.exists() else "no such file or folder",
        path=results,
        hint="give a folder of comp4 or YOLO files, a COCO .json, or a .csv",
    )


class Kinds(NamedTuple):
    """Which result files are written: VOC's, one per class, and COCO's."""

    voc: bool
    coco: bool


def result_kinds(opened: OpenData, dataset: Dataset) -> Kinds:
    """Choose VOC's, and COCO's for COCO data, or where VOC's cannot hold the names; tells that."""
    from sppdet.evaluation.result_files.voc_results import check_voc_names

    is_coco = opened.format == "coco"
    try:
        check_voc_names(dataset, split=opened.file_split)
    except EvaluationError as error:
        instead = "" if is_coco else f"; {COCO_FILE} is written instead"
        warn(f"no VOC result files: {error.message}{instead}")
        return Kinds(voc=False, coco=True)
    return Kinds(voc=True, coco=is_coco)


def write_detections(
    out: Path,
    opened: OpenData,
    dataset: Dataset,
    detections: Mapping[str, Detections],
    kinds: Kinds,
) -> None:
    """Write result files of these kinds."""
    from sppdet.evaluation.result_files.coco_results import write_coco_detections
    from sppdet.evaluation.result_files.voc_results import write_voc_detections

    if kinds.voc:
        write_voc_detections(out, dataset, detections, split=opened.file_split)
    if kinds.coco:
        ids = category_ids(opened, dataset)
        write_coco_detections(out / COCO_FILE, dataset, detections, category_ids=ids)


def category_ids(opened: OpenData, dataset: Dataset) -> list[int] | None:
    """List the COCO file's own category ids, in the order of the classes; None for 1, 2, .."""
    from sppdet.datasets.formats import coco

    if opened.format != "coco":
        return None
    own = {new: old for old, new in opened.renamed.items()}
    try:
        return coco.category_ids(opened.folder, [own.get(name, name) for name in dataset.classes])
    except AnnotationError as error:
        warn(f"categories are numbered 1, 2, ..: {error.message}")
        return None


def _listed(opened: OpenData) -> list[str] | None:
    from sppdet.datasets.class_names import trim

    return None if opened.raw.classes is None else [trim(name) for name in opened.raw.classes]


def _voc_split(folder: Path, split: str, classes: tuple[str, ...]) -> str:
    """Name the split in the names of comp4 files: the data's, or the only one that is there."""
    end = f"_{classes[0]}.txt"
    names = [path.name for path in folder.glob(f"{_VOC_START}*")]
    found = {
        name.removeprefix(_VOC_START).removesuffix(end) for name in names if name.endswith(end)
    }
    return found.pop() if split not in found and len(found) == 1 else split


def _check_voc_files(folder: Path, split: str, classes: tuple[str, ...]) -> None:
    """Raise EvaluationError if some classes have a file and others have none."""
    from sppdet.evaluation.result_files.voc_results import voc_file_name

    paths = {name: folder / voc_file_name(name, split=split) for name in classes}
    there = [name for name, path in paths.items() if path.is_file()]
    if there and len(there) < len(classes):
        missing = next(path for name, path in paths.items() if name not in there)
        raise EvaluationError(
            f"{len(classes) - len(there)} of {len(classes)} result files are missing",
            path=missing,
            hint="every class needs one, empty if nothing was found; or evaluate on those that"
            f" have one: --classes {','.join(there)}",
        )


def _yolo_folder(folder: Path) -> Path | None:
    """Return the folder of YOLO's text files: itself or its `labels`; None for comp4 files."""
    for one in (folder, folder / "labels"):
        if any(path.name.startswith(_VOC_START) for path in one.glob("*.txt")):
            return None
        if any(True for path in one.glob("*.txt")):
            return one
    return None
