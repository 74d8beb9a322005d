"""Compiling ahead: announced once, done once, and kept for the next process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from sppdet.core import jit as jit_module
from sppdet.core.jit import is_compiled, jit, warm_up
from sppdet.spp.roi_pooling import Mode, spatial_pyramid_pool


def test_nothing_is_announced_once_compiled() -> None:
    warm_up()
    said: list[str] = []
    warm_up(said.append)
    assert is_compiled()
    assert said == []


@pytest.mark.parametrize("threads", [1, 2])
def test_after_warming_up_pooling_compiles_nothing_more(threads: int) -> None:
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        warm_up()
        kernels = [k for k in jit_module._compiled if k.__module__ == "sppdet.spp.kernels"]
        before = [len(k.signatures) for k in kernels]  # type: ignore[attr-defined]
        # Those that are called by others alone have none of their own where all came from the disk.
        assert sum(map(bool, before)) >= 6
        feature_map = torch.randn(9, 11, 7).permute(2, 0, 1)
        windows = np.array([[0, 0, 11, 9], [2, 3, 9, 4], [0, 0, 1, 1]] * 20, np.int64)
        modes: tuple[Mode, ...] = ("max", "mean")
        for mode in modes:
            spatial_pyramid_pool(feature_map, windows, mode=mode)
            leaf = feature_map.clone().requires_grad_(True)
            pooled = spatial_pyramid_pool(leaf, windows, (6, 4, 1), mode)
            pooled.sum().backward()  # type: ignore[no-untyped-call]
        assert [len(k.signatures) for k in kernels] == before  # type: ignore[attr-defined]
    finally:
        torch.set_num_threads(usual)


def test_warming_up_works_where_gradients_are_off() -> None:
    with torch.inference_mode():
        warm_up()
    with torch.no_grad():
        warm_up()


def test_a_new_loop_is_compiled_once_called(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Else the next run of this test would load what this one leaves, under a module's name that
    # nothing can import.
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(jit_module, "_compiled", [])
    monkeypatch.setattr(jit_module, "_warm_ups", [])
    assert is_compiled()

    def one(x: int) -> int:
        return x + 1

    one.__module__ = "elsewhere.kernels"
    built = jit(warm_up=lambda: built(1))(one)
    assert not is_compiled()
    said: list[str] = []
    warm_up(said.append)
    assert is_compiled()
    assert built(1) == 2
    assert len(said) == 1
    warm_up(said.append)
    assert len(said) == 1


def test_machine_code_is_kept_for_the_next_process(tmp_path: Path) -> None:
    # One kernel of pooling, rather than all of them, to keep the test short.
    program = (
        "import numpy as np; from sppdet.core import jit; from sppdet.spp import kernels as k;"
        "ready, hits = jit.is_compiled(), k.maximum.stats.cache_hits;"
        "before = sum(hits.values());"
        "row = np.ones(3, np.float32); k.maximum(row, row, row);"
        "print(ready, before, sum(hits.values()))"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    lines = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment
        ).stdout.strip()
        for _ in range(2)
    ]
    assert lines == ["False 0 0", "False 0 1"]
    assert list(tmp_path.rglob("*.nbi"))
