from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sppdet.errors import ConfigError
from sppdet.proposals import ENGINES, ProposalConfig, is_compiled, make_proposer, warm_up
from tests.test_proposals_selective import check, scene


@pytest.mark.parametrize("engine", ENGINES)
def test_each_engine_gives_valid_boxes_within_the_limits(engine: str) -> None:
    image = scene(100, 140)
    boxes = make_proposer(ProposalConfig(engine=engine, max_proposals=15, min_side=10))(image)
    check(boxes, image)
    assert len(boxes) <= 15
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= 10


def test_the_executor_does_not_change_boxes_or_key() -> None:
    image, config = scene(100, 140), ProposalConfig()
    with ThreadPoolExecutor(2) as pool:
        spread = make_proposer(config, pool)
        np.testing.assert_array_equal(spread(image), make_proposer(config)(image))
        assert spread.key == make_proposer(config).key


def test_every_setting_is_part_of_the_key() -> None:
    other: dict[str, Any] = {
        "engine": "selective-search-quality",
        "max_proposals": 7,
        "min_side": 3,
        "texture": True,
        "seed": 5,
    }
    assert set(other) == {f.name for f in dataclasses.fields(ProposalConfig)}
    default = ProposalConfig()
    changed = [dataclasses.replace(default, **{name: value}) for name, value in other.items()]
    assert len({make_proposer(c).key for c in [default, *changed]}) == len(other) + 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"engine": "edge-boxes"}, "edge-boxes.*selective-search"),
        ({"max_proposals": -1}, "max_proposals"),
        ({"min_side": -2}, "min_side"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"engine": "opencv-fast", "texture": True}, "texture"),
    ],
)
def test_settings_out_of_range_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ProposalConfig(**values)


def test_warm_up_announces_nothing_once_compiled() -> None:
    warm_up()
    said: list[str] = []
    warm_up(said.append)
    assert is_compiled()
    assert said == []


def test_a_fresh_cache_folder_is_announced_and_filled(tmp_path: Path) -> None:
    # Compiles one kernel anew, rather than all of them, to keep the test short.
    program = (
        "from sppdet.proposals import is_compiled, ranking;"
        "before = is_compiled(); ranking.draws(1, 0, 0); print(before)"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "False", done.stderr
    assert list(tmp_path.rglob("*.nbi"))
