from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sppdet.core.errors import ConfigError
from sppdet.proposals import ProposalConfig, make_proposer


def test_every_setting_is_part_of_the_key() -> None:
    other: dict[str, Any] = {
        "engine": "selective-search-quality",
        "max_proposals": 7,
        "min_size": 3,
        "seed": 5,
    }
    assert set(other) == set(ProposalConfig.model_fields)
    default = ProposalConfig()
    changed = [default.replace(**{name: value}) for name, value in other.items()]
    assert len({make_proposer(c).key for c in [default, *changed]}) == len(other) + 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"engine": "edge-boxes"}, "edge-boxes.*selective-search"),
        ({"max_proposals": -1}, "max_proposals"),
        ({"min_size": -2}, "min_size"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
    ],
)
def test_settings_out_of_range_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ProposalConfig(**values)


def test_a_fresh_cache_folder_is_announced_and_filled(tmp_path: Path) -> None:
    # Compiles one kernel anew, rather than all of them, to keep the test short.
    program = (
        "from sppdet.core.jit import is_compiled; from sppdet.proposals import ranking;"
        "before = is_compiled(); ranking.random_integers(1, 0, 0); print(before)"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "False", done.stderr
    assert list(tmp_path.rglob("*.nbi"))
