"""Files of tensors: what was saved comes back bit for bit, and nothing else ever does."""

from __future__ import annotations

import json
import random
import struct
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from sppdet.core.tensor_files import (
    Arrays,
    TensorCache,
    TensorFileError,
    load_tensors,
    read_metadata,
    save_tensors,
)

TENSORS: Arrays = {
    "half": np.arange(6, dtype=np.float16).reshape(2, 3) / 3,
    "flags": np.array([True, False]),
    "tiny": np.array([-0.0, 1e-40, np.nan], np.float32),
    "step": np.array(7, np.int64),
    "nothing": np.zeros((0, 4), np.float32),
}
METADATA: dict[str, Any] = {"size": [111, 70], "factor": 0.1 + 0.2, "who": 'a "dög"\n', "x": None}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
tables = st.dictionaries(st.text().filter(lambda key: key != "digest"), json_values, max_size=3)
arrays = hnp.arrays(
    dtype=st.sampled_from(["<f2", "<f4", ">f4", "<f8", "<i8", ">i4", "u1", "?"]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
names = st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda n: n != "__metadata__")


def same(a: Mapping[str, NDArray[Any]], b: Mapping[str, NDArray[Any]]) -> bool:
    """Whether two sets of tensors agree in names, dtypes, shapes and bits."""
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype.newbyteorder("<")
        and a[k].shape == b[k].shape
        and a[k].tobytes() == b[k].astype(a[k].dtype).tobytes()
        for k in a
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tensors"
    save_tensors(path, TENSORS, METADATA)
    return path


@pytest.fixture(scope="session")
def undamaged(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("undamaged") / "tensors"
    save_tensors(path, TENSORS, METADATA)
    return path.read_bytes()


def test_a_file_of_nothing(tmp_path: Path) -> None:
    save_tensors(tmp_path / "t", {})
    assert load_tensors(tmp_path / "t") == ({}, {})


@settings(max_examples=60, deadline=None)
@given(metadata=tables, tensors=st.dictionaries(names, arrays, max_size=4))
def test_what_is_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any], tensors: Arrays
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.safetensors"
    save_tensors(path, tensors, metadata)
    for verify in (True, False):
        loaded, found = load_tensors(path, verify=verify)
        assert found == metadata
        assert same(loaded, tensors)
    assert read_metadata(path) == metadata


def test_loaded_tensors_can_be_written_to(file: Path) -> None:
    loaded, _ = load_tensors(file)
    loaded["half"][:] = 0
    torch.from_numpy(loaded["tiny"])[:] = 0


@pytest.mark.parametrize(
    "view",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4).T,
        np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
        np.arange(12, dtype=np.float32)[::-2],
        np.arange(24, dtype=np.float16).reshape(2, 3, 4)[:, 1:, ::2],
        torch.arange(12.0).reshape(3, 4).T,
        torch.arange(12.0).reshape(3, 4)[:, ::2].half(),
        torch.nn.Parameter(torch.arange(12.0).reshape(3, 4)[:, 1:]),
        torch.arange(3).expand(2, 3),
        np.float32(1.5),
    ],
)
def test_views_scalars_and_torch_tensors_are_stored_by_their_values(
    tmp_path: Path, view: Any
) -> None:
    save_tensors(tmp_path / "t", {"view": view})
    wanted = view.detach().numpy() if isinstance(view, torch.Tensor) else np.asarray(view)
    assert same(load_tensors(tmp_path / "t")[0], {"view": wanted})


def test_equal_input_gives_equal_bytes(file: Path, undamaged: bytes) -> None:
    assert file.read_bytes() == undamaged
    save_tensors(file, dict(reversed(TENSORS.items())), dict(reversed(METADATA.items())))
    assert file.read_bytes() == undamaged


def test_any_safetensors_reader_can_open_it(file: Path) -> None:
    assert same(safetensors.numpy.load_file(file), TENSORS)
    assert file.stat().st_mode & 0o777 == 0o644


def test_metadata_that_json_cannot_hold_is_refused(file: Path, undamaged: bytes) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save_tensors(file, TENSORS, {"loss": float("nan")})
    with pytest.raises(TypeError):
        save_tensors(file, TENSORS, {"path": Path("x")})
    assert file.read_bytes() == undamaged


def loads_only_what_was_saved(path: Path) -> bool:
    """False for a TensorFileError; anything but equal content or that error fails the test."""
    try:
        tensors, metadata = load_tensors(path)
    except TensorFileError as error:
        if str(path) not in str(error):
            pytest.fail(f"{error} does not say which file")
        return False
    assert metadata == METADATA
    assert same(tensors, TENSORS)
    return True


def test_every_truncation_is_noticed(undamaged: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(undamaged + b"\0")
    truncated = 0
    assert not loads_only_what_was_saved(path)
    for length in reversed(range(len(undamaged))):
        with path.open("r+b") as stream:
            stream.truncate(length)
        assert not loads_only_what_was_saved(path)
        try:
            assert read_metadata(path) is None
        except TensorFileError as error:
            truncated += f"is truncated: {length} of {len(undamaged)} bytes" in str(error)
    assert truncated == sum(array.nbytes for array in TENSORS.values())


def test_every_flipped_bit_is_noticed_or_harmless(file: Path, undamaged: bytes) -> None:
    harmless = 0
    with file.open("r+b", buffering=0) as stream:
        for position, byte in enumerate(undamaged):
            bit = 1 << random.Random(position).randrange(8)
            stream.seek(position)
            stream.write(bytes([byte ^ bit]))
            harmless += loads_only_what_was_saved(file)
            stream.seek(position)
            stream.write(bytes([byte]))
    assert file.read_bytes() == undamaged
    assert harmless < len(undamaged) // 20


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_of_any_kind_is_noticed_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, undamaged: bytes, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    content = bytearray(undamaged)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 30)))
        content[start:end] = data.draw(st.binary(max_size=12))
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    loads_only_what_was_saved(path)


def test_without_verification_values_are_taken_as_they_are(file: Path, undamaged: bytes) -> None:
    file.write_bytes(undamaged[:-1] + bytes([undamaged[-1] ^ 1]))
    assert load_tensors(file, verify=False).metadata == METADATA
    with pytest.raises(TensorFileError, match="does not match its digest"):
        load_tensors(file)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40, 100_000_001, 99_999_999, 600])
def test_a_claimed_length_allocates_nothing(tmp_path: Path, length: int) -> None:
    path = tmp_path / "claims"
    path.write_bytes(struct.pack("<Q", length) + b'{"a":1}' + b" " * 100)
    tracemalloc.start()
    try:
        assert read_metadata(path) is None
        with pytest.raises(TensorFileError):
            load_tensors(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "text", ["[" * 50_000, '{"a":' * 50_000, "1" * 50_000, "null", "[]", "{", '{"digest": 1}']
)
def test_hostile_json_is_refused(tmp_path: Path, text: str) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    outer.write_bytes(struct.pack("<Q", len(text)) + text.encode())
    inner.write_bytes(safetensors.numpy.save(TENSORS, metadata={"sppdet": text}))
    for path in (outer, inner):
        with pytest.raises(TensorFileError):
            load_tensors(path)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"sppdet": "{}"}])
def test_other_safetensors_files_are_not_ours(
    tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    path = tmp_path / "pt"
    path.write_bytes(safetensors.numpy.save(TENSORS, metadata=metadata))
    with pytest.raises(TensorFileError):
        load_tensors(path)
    assert not read_metadata(path)


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2", "C64", "NONSENSE"])
def test_dtypes_that_we_never_write_are_refused(file: Path, undamaged: bytes, dtype: str) -> None:
    (length,) = struct.unpack("<Q", undamaged[:8])
    text = undamaged[8 : 8 + length].replace(b'"F16"', f'"{dtype}"'.encode())
    file.write_bytes(struct.pack("<Q", len(text)) + text + undamaged[8 + length :])
    with pytest.raises(TensorFileError):
        load_tensors(file)


def test_an_infinite_number_in_metadata_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    text = json.dumps({"a": 1, "digest": ""}).replace("1", "1e999")
    path.write_bytes(safetensors.numpy.save({}, metadata={"sppdet": text}))
    with pytest.raises(TensorFileError, match="damaged"):
        load_tensors(path)


def test_a_cache_has_what_was_saved_and_nothing_else(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path / "c", "key", ".maps")
    assert cache.load("a") is None
    assert not (tmp_path / "c").exists()
    cache.save("a", TENSORS, METADATA)
    found = cache.load("a")
    assert found is not None
    assert same(found.tensors, TENSORS)
    assert found.metadata == METADATA
    assert cache.path("a").suffix == ".maps"
    assert cache.load("b") is None
    assert TensorCache(tmp_path / "c", "other", ".maps").load("a") is None
    assert TensorCache(tmp_path / "c", "key", ".maps").load("a") is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data + b"\0",
        lambda data: data[:-3] + b"\x7f" + data[-2:],
    ],
    ids=["one byte less", "half", "empty", "longer", "changed byte"],
)
def test_a_damaged_file_counts_as_absent(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    cache = TensorCache(tmp_path, "key")
    cache.save("a", TENSORS)
    whole = cache.path("a").read_bytes()
    cache.path("a").write_bytes(change(whole))
    assert cache.load("a") is None
    cache.save("a", TENSORS)
    assert cache.path("a").read_bytes() == whole
