"""Detections in files: VOC's, COCO's, and those of other tools."""
