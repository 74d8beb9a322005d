"""Find objects in images: `python scripts/detect.py photos/ --out found/`.

Thin: the same as `sppdet detect`, for a checkout that is not installed.
"""

from __future__ import annotations

import sys

from sppdet.cli import main

if __name__ == "__main__":
    main(["detect", *sys.argv[1:]])
