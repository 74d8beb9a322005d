"""How torch's threads wait, by what OpenMP itself says when it is loaded."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

VARIABLE = "OMP_WAIT_POLICY"
# How often GNU's OpenMP looks again before a thread goes to sleep.
SPINS = re.compile(r"GOMP_SPINCOUNT = '(\d+)'")


@pytest.mark.parametrize(
    ("code", "before", "asleep"),
    [
        ("import sppdet, torch", None, True),
        ("from sppdet import Detector; Detector", None, True),
        ("import sppdet, torch", "ACTIVE", False),
        ("import torch, sppdet", None, False),
    ],
)
def test_threads_wait_asleep_unless_told_otherwise(
    code: str, before: str | None, asleep: bool
) -> None:
    environment = {
        key: value for key, value in os.environ.items() if key not in (VARIABLE, "GOMP_SPINCOUNT")
    }
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE"} | ({VARIABLE: before} if before else {})
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    spins = [int(count) for count in SPINS.findall(done.stderr)]
    if not spins:
        pytest.skip("this torch's OpenMP is not GNU's")
    assert [count == 0 for count in spins] == [asleep] * len(spins)
