"""Compiling ahead: announced once, done once, and kept for the next process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from sppdet.core import jit as jit_module
from sppdet.core.jit import warm_up
from sppdet.spp.roi_pooling import Mode, spatial_pyramid_pool


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


# One kernel of pooling, rather than all of them, to keep tests short.
PROGRAM = """
import logging, sys
logging.basicConfig(level="INFO", format="%(message)s")
import numpy as np
from sppdet.core import jit
from sppdet.spp import kernels
before = sum(kernels.maximum.stats.cache_hits.values())
row = np.ones(3, np.float32)
kernels.maximum(row, row, row)
kernels.maximum(row, row, row)
print(before, sum(kernels.maximum.stats.cache_hits.values()), jit.machine_code_folder())
"""


def _run(**variables: str) -> tuple[list[str], list[str]]:
    """Words that the program prints, and lines that it logs, under these variables alone."""
    usual = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, env={**usual, **variables})
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr.splitlines()


def _compiled_in_package() -> set[Path]:
    return set(Path(jit_module.__file__).parent.parent.rglob("*.nbi"))


def test_machine_code_is_kept_for_the_next_process(tmp_path: Path) -> None:
    in_package = _compiled_in_package()
    (before, hits, folder), told = _run(XDG_CACHE_HOME=str(tmp_path))
    assert (before, hits, folder) == ("0", "0", str(tmp_path / "sppdet" / "loops"))
    assert [line[:21] for line in told] == ["compiling inner loops"]
    assert list(Path(folder).rglob("*.nbi"))
    assert _run(XDG_CACHE_HOME=str(tmp_path)) == (["0", "1", folder], [])
    assert _compiled_in_package() == in_package


def test_the_folder_may_be_named(tmp_path: Path) -> None:
    (_, _, folder), _ = _run(NUMBA_CACHE_DIR=str(tmp_path))
    assert folder == str(tmp_path)
    assert list(tmp_path.rglob("*.nbi"))


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    in_package = _compiled_in_package()
    (_, hits, folder), _ = _run(XDG_CACHE_HOME=str(tmp_path / "file"))
    assert hits == "0"
    assert not Path(folder).exists()  # of that process alone, and gone with it
    assert _compiled_in_package() == in_package


def test_a_folder_that_can_only_be_read_is_read() -> None:
    with tempfile.TemporaryDirectory() as parent:  # pytest's own are for its user alone
        folder = Path(parent) / "loops"
        (folder / "spp").mkdir(parents=True)
        (folder / "spp" / "one.nbi").write_bytes(b"1")
        Path(parent).chmod(0o755)
        folder.chmod(0o555)
        with _unprivileged():
            copy = jit_module._writable(folder)
            assert copy is not None
            assert copy != folder
            assert (copy / "spp" / "one.nbi").read_bytes() == b"1"
            (copy / "spp" / "two.nbi").write_bytes(b"2")
        folder.chmod(0o755)


@contextmanager
def _unprivileged() -> Iterator[None]:
    """Be nobody for a while where the tests are run by root, who may write everywhere."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
