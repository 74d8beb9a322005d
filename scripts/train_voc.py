"""Train on Pascal VOC2007 `train`: `python scripts/train_voc.py VOCdevkit`.

Thin: `sppdet train` with the year, the split and the run's folder filled in, from random layers, as
the shipped models have seen all of these images. Whatever is given here goes on to it, and wins:
`python scripts/train_voc.py VOCdevkit --split trainval --seed 1`.
"""

from __future__ import annotations

import sys

from sppdet.cli import main

if __name__ == "__main__":
    defaults = ["--year", "2007", "--split", "train", "--from", "none", "--run", "runs/voc07"]
    main(["train", *defaults, *sys.argv[1:]])
