"""The mAP of a model on Pascal VOC2007 `val`: `python scripts/evaluate_map.py VOCdevkit`.

Thin: `sppdet evaluate` with the year, the split and the output folder filled in. Whatever is given
here goes on to it, and wins: `python scripts/evaluate_map.py VOCdevkit --model mine.safetensors`.
"""

from __future__ import annotations

import sys

from sppdet.cli import main

if __name__ == "__main__":
    defaults = ["--year", "2007", "--split", "val", "--out", "runs/voc07-val"]
    main(["evaluate", *defaults, *sys.argv[1:]])
