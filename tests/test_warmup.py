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

from sppdet import compiled, proposals, spp, warmup
from sppdet.compiled import kernel
from sppdet.spp import Mode, spatial_pyramid_pool


def test_nothing_is_announced_once_compiled() -> None:
    warmup.warm_up()
    said: list[str] = []
    warmup.warm_up(said.append)
    assert warmup.is_compiled()
    assert proposals.is_compiled()
    assert spp.is_compiled()
    assert said == []


@pytest.mark.parametrize("threads", [1, 2])
def test_after_warming_up_pooling_compiles_nothing_more(threads: int) -> None:
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        spp.warm_up()
        kernels = [k for k in compiled._kernels if k.__module__ == "sppdet.spp_kernels"]
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
        spp.warm_up()
    with torch.no_grad():
        spp.warm_up()


def test_kernels_of_one_package_say_nothing_about_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Else the next run of this test would load what this one leaves, under a module's name that
    # nothing can import.
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))

    def one(x: int) -> int:
        return x + 1

    one.__module__ = "elsewhere.kernels"
    built = kernel(one)
    try:
        assert not compiled.all_ready("elsewhere")
        assert not compiled.all_ready("elsewhere.kernels")
        assert compiled.all_ready("else")
        assert built(1) == 2
        assert compiled.all_ready("elsewhere")
    finally:
        compiled._kernels.remove(built)


def test_machine_code_is_kept_for_the_next_process(tmp_path: Path) -> None:
    # One kernel of pooling, rather than all of them, to keep the test short.
    program = (
        "import numpy as np; from sppdet import spp, spp_kernels as k;"
        "ready, hits = spp.is_compiled(), k.larger.stats.cache_hits;"
        "before = sum(hits.values());"
        "row = np.ones(3, np.float32); k.larger(row, row, row);"
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
