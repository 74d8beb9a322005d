"""Readers of annotated images: each is a function that returns a `Dataset` of `Sample` values."""

from __future__ import annotations

from sppdet.datasets.class_folders import LabeledImages, load_class_folders
from sppdet.datasets.formats.coco import load_coco
from sppdet.datasets.formats.voc_devkit import VOC_CLASSES
from sppdet.datasets.load import load_dataset
from sppdet.datasets.object_crops import write_object_crops
from sppdet.datasets.synthetic import SYNTHETIC_CLASSES, make_synthetic_voc
from sppdet.datasets.voc_download import download_voc

__all__ = [
    "SYNTHETIC_CLASSES",
    "VOC_CLASSES",
    "LabeledImages",
    "download_voc",
    "load_class_folders",
    "load_coco",
    "load_dataset",
    "make_synthetic_voc",
    "write_object_crops",
]
