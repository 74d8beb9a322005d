"""Each training stage's result on disk, by all that it depends on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from sppdet.files import atomic_write_bytes


class StageStore:
    """Results of training stages, and states on the way to them, named by all they depend on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, stage: str, key: str, partial: bool) -> Path:
        return self.folder / f"{stage}-{key[:16]}{'.partial' if partial else ''}.safetensors"

    def load(self, stage: str, key: str, *, partial: bool = False) -> dict[str, Tensor] | None:
        """What was saved for these inputs; None if nothing was, or if the file is damaged."""
        path = self._path(stage, key, partial)
        if not path.is_file():
            return None
        try:
            return dict(load_bytes(path.read_bytes()))
        except SafetensorError:
            return None

    def save(
        self, stage: str, key: str, tensors: Mapping[str, Tensor], *, partial: bool = False
    ) -> None:
        """Saves a stage's result, or its state on the way; a result makes the state needless."""
        ready = {name: value.detach().contiguous() for name, value in tensors.items()}
        atomic_write_bytes(self._path(stage, key, partial), save_bytes(ready))
        if not partial:
            self._path(stage, key, True).unlink(missing_ok=True)


def as_tensors(arrays: Mapping[str, object]) -> dict[str, Tensor]:
    """Arrays as tensors that own their memory."""
    return {name: torch.tensor(value) for name, value in arrays.items()}
