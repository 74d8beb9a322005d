"""VOC and COCO metrics, error analysis, proposal recall, and their reports."""
