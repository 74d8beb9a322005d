"""Sources of annotated images: each reader gives a `Dataset` of `Sample` values."""

from __future__ import annotations

from sppdet.datasets.coco import load_coco
from sppdet.datasets.crops import CropCounts, write_object_crops
from sppdet.datasets.download import ARCHIVES, download_voc
from sppdet.datasets.folders import LabelledImages, load_class_folders
from sppdet.datasets.shapes import SYNTHETIC_CLASSES
from sppdet.datasets.synthetic import make_synthetic_voc
from sppdet.datasets.voc import VOC_CLASSES, load_voc, read_split, voc_folder, voc_splits

__all__ = [
    "ARCHIVES",
    "SYNTHETIC_CLASSES",
    "VOC_CLASSES",
    "CropCounts",
    "LabelledImages",
    "download_voc",
    "load_class_folders",
    "load_coco",
    "load_voc",
    "make_synthetic_voc",
    "read_split",
    "voc_folder",
    "voc_splits",
    "write_object_crops",
]
