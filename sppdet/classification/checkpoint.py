"""The state of a training on disk: tensors, and what they belong to, in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_bytes
from torch import Tensor

from sppdet.errors import TrainingError
from sppdet.files import atomic_write_bytes

# A single entry: safetensors writes several in an order that changes from call to call.
_ENTRY = "sppdet"


class Checkpoint(NamedTuple):
    """Tensors by name, and JSON-able facts about them."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes a state, atomically; numbers come back exactly."""
    ready = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    atomic_write_bytes(path, save_bytes(ready, metadata={_ENTRY: text}))


def load_checkpoint(path: Path) -> Checkpoint | None:
    """The state that was saved; None if there is none.

    Raises TrainingError when the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as stream:
            facts = json.loads(stream.metadata()[_ENTRY])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise TrainingError(
            f"the training state is damaged ({error})",
            where=path,
            mend="delete it to train from the start, or restore it",
        ) from error
    return Checkpoint(tensors, facts)
