"""The model file: what was saved comes back, and nothing else ever does."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from sppdet.core import model_file
from sppdet.core.errors import ModelFormatError
from sppdet.core.model_file import (
    CLASSIFIER,
    FORMAT_VERSION,
    ModelHeader,
    check_arrays,
    check_backbone,
    load_model,
    save_model,
)
from sppdet.core.tensor_files import Arrays, load_tensors, save_tensors

HEADER = ModelHeader(
    classes=("cat", "dög", 'a "quoted"\nname'),
    config={"svm": {"c": 0.001, "layer": "fc7"}, "features": {"scales": [600]}, "none": None},
    backbone="efficientnet_lite0",
    backbone_digest="0" * 64,
    description="a small one",
    provenance={"images": 3, "mAP": 0.5, "data": ["VOC2007 train"]},
)
TENSORS: Arrays = {
    "head.fc6": np.arange(6, dtype=np.float16).reshape(2, 3) / 3,
    "svm.trained": np.array([True, False]),
    "svm.bias": np.array([-0.0, 1e-40], np.float32),
    "step": np.array(7, np.int64),
    "nothing": np.zeros((0, 4), np.float32),
}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=3)
headers = st.builds(
    ModelHeader,
    classes=st.lists(st.text(), max_size=4).map(tuple),
    config=json_objects,
    backbone=st.text(),
    backbone_digest=st.text(),
    description=st.text(),
    provenance=json_objects,
)
arrays = hnp.arrays(
    dtype=st.sampled_from(["<f2", "<f4", ">f4", "<f8", "<i8", ">i4", "u1", "?"]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    elements=None,
).filter(lambda a: a.dtype.kind != "f" or bool(np.isfinite(a).all()))
names = st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda n: n != "__metadata__")


def same(a: Mapping[str, NDArray[Any]], b: Mapping[str, NDArray[Any]]) -> bool:
    """Whether two sets of tensors agree in names, dtypes, shapes and bits."""
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype.newbyteorder("<")
        and a[k].shape == b[k].shape
        and a[k].tobytes() == b[k].astype(a[k].dtype).tobytes()
        for k in a
    )


def written(path: Path, metadata: dict[str, str] | None, tensors: Arrays = TENSORS) -> Path:
    """A file as another program might write it: well-formed safetensors, any metadata."""
    path.write_bytes(safetensors.numpy.save(tensors, metadata=metadata))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(path, HEADER, TENSORS)
    return path


def test_a_model_without_tensors_or_classes(tmp_path: Path) -> None:
    header = ModelHeader((), {}, "", "", "", {})
    save_model(tmp_path / "m", header, {})
    assert load_model(tmp_path / "m") == (header, {})


@settings(max_examples=60, deadline=None)
@given(header=headers, tensors=st.dictionaries(names, arrays, max_size=4))
def test_what_is_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, header: ModelHeader, tensors: Arrays
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.safetensors"
    save_model(path, header, tensors)
    found, loaded = load_model(path)
    assert found == header
    assert same(loaded, tensors)


def test_stored_dtypes_come_back(model: Path) -> None:
    _, loaded = load_model(model)
    assert same(loaded, TENSORS)
    assert loaded["head.fc6"].dtype == np.float16
    assert np.signbit(loaded["svm.bias"][0])
    loaded["head.fc6"][:] = 0  # torch.from_numpy wants it writable


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    backwards = dict(reversed(TENSORS.items()))
    header = replace(HEADER, config=dict(reversed(HEADER.config.items())))
    digests = set()
    for tensors, head in ((TENSORS, HEADER), (backwards, header), (TENSORS, HEADER)):
        save_model(tmp_path / "m", head, tensors)
        digests.add(hashlib.sha256((tmp_path / "m").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_any_safetensors_reader_can_open_it(model: Path) -> None:
    assert same(safetensors.numpy.load_file(model), TENSORS)


def test_a_saved_model_is_readable_by_all(model: Path) -> None:
    assert model.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_that_are_not_finite_are_neither_saved_nor_loaded(
    tmp_path: Path, model: Path, value: float, dtype: type
) -> None:
    before = model.read_bytes()
    bad: Arrays = {"fine": np.zeros(2), "svm.weights": np.array([0, value], dtype)}
    with pytest.raises(ModelFormatError, match=r"'svm\.weights'.*not finite"):
        save_model(model, HEADER, bad)
    assert model.read_bytes() == before
    # As a writer with a right digest, but without our check, would leave it.
    path = tmp_path / "bad"
    save_tensors(path, bad, load_tensors(model).metadata)
    with pytest.raises(ModelFormatError, match=r"'svm\.weights'.*not finite"):
        load_model(path)


def test_a_header_that_json_cannot_hold_is_refused(model: Path) -> None:
    before = model.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        save_model(model, replace(HEADER, provenance={"loss": float("nan")}), TENSORS)
    with pytest.raises(TypeError):
        save_model(model, replace(HEADER, provenance={"path": Path("x")}), TENSORS)
    assert model.read_bytes() == before


def test_tuples_and_numbered_keys_load_as_json_has_them(tmp_path: Path) -> None:
    header = replace(HEADER, provenance={"t": (1, 2), "ap": {10: 0.1, 9: 0.2}})
    save_model(tmp_path / "m", header, TENSORS)
    found, _ = load_model(tmp_path / "m")
    assert found.provenance == {"t": [1, 2], "ap": {"10": 0.1, "9": 0.2}}


def test_a_truncated_file_is_noticed(model: Path) -> None:
    for length in reversed(range(0, model.stat().st_size, 7)):
        os.truncate(model, length)
        with pytest.raises(ModelFormatError, match="copy") as caught:
            load_model(model)
        assert str(model) in str(caught.value)


def loads_only_what_was_saved(path: Path) -> bool:
    """False for a ModelFormatError; anything but equal content or that error fails the test."""
    try:
        header, tensors = load_model(path)
    except ModelFormatError as error:
        if str(path) not in str(error) or not error.hint:
            pytest.fail(f"{error} does not say which file or how to fix it")
        return False
    assert header == HEADER
    assert same(tensors, TENSORS)
    return True


def test_every_flipped_bit_is_noticed_or_harmless(model: Path) -> None:
    data = model.read_bytes()
    harmless = 0
    with model.open("r+b", buffering=0) as stream:
        for position, byte in enumerate(data):
            bit = 1 << random.Random(position).randrange(8)
            stream.seek(position)
            stream.write(bytes([byte ^ bit]))
            harmless += loads_only_what_was_saved(model)
            stream.seek(position)
            stream.write(bytes([byte]))
    assert model.read_bytes() == data
    assert harmless < len(data) // 20


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200))
def test_other_files_are_not_models(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "other"
    for prefix in (b"", struct.pack("<Q", len(content))):
        path.unlink(missing_ok=True)
        path.write_bytes(prefix + content)
        with pytest.raises(ModelFormatError):
            load_model(path)


def test_a_claimed_shape_allocates_nothing(model: Path) -> None:
    data = model.read_bytes().replace(b'"shape":[2,3]', b'"shape":[2,9]')
    model.write_bytes(data)
    with pytest.raises(ModelFormatError, match="damaged"):
        load_model(model)


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 50_000, "1" * 50_000, "null", "[]"])
def test_hostile_json_is_not_a_model(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hostile"
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode())
    with pytest.raises(ModelFormatError, match="not an sppdet model"):
        load_model(path)
    inner = written(tmp_path / "inner", {"sppdet": text})
    with pytest.raises(ModelFormatError, match="not an sppdet model"):
        load_model(inner)


@pytest.mark.parametrize(
    "data",
    [
        b"PK\3\4" + bytes(1000),  # what torch.save writes
        b"\x80\2}q\0." * 50,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 34\n",
        b"<!DOCTYPE html><html>not found</html>",
    ],
    ids=["zip", "pickle", "pointer", "page"],
)
def test_files_of_other_programs_are_not_models(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelFormatError) as caught:
        load_model(path)
    assert str(caught.value) == (
        f"{path}: is not an sppdet model, or only the beginning of one; "
        "give a file that sppdet train or sppdet classify wrote, or copy it again"
    )


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"sppdet": "{}"}])
def test_other_safetensors_files_are_not_models(
    tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    path = written(tmp_path / "pt", metadata)
    with pytest.raises(ModelFormatError, match="not an sppdet model"):
        load_model(path)


@pytest.mark.parametrize(
    ("version", "problem", "hint"),
    [
        (FORMAT_VERSION + 1, "version 3, and this sppdet reads version 2", "newer sppdet"),
        (10**30, "version 1000", "newer sppdet"),
        (0, "not an sppdet model", "sppdet train"),
        (-1, "not an sppdet model", "sppdet train"),
        (True, "not an sppdet model", "sppdet train"),
        (1.0, "not an sppdet model", "sppdet train"),
        ("1", "not an sppdet model", "sppdet train"),
    ],
)
def test_other_versions_are_told_apart(
    tmp_path: Path, version: object, problem: str, hint: str
) -> None:
    path = written(tmp_path / "m", {"sppdet": json.dumps({"format_version": version})})
    with pytest.raises(ModelFormatError, match=problem) as caught:
        load_model(path)
    assert hint in caught.value.hint


def test_an_older_format_asks_for_training(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "FORMAT_VERSION", FORMAT_VERSION + 1)
    with pytest.raises(ModelFormatError, match=r"version 2.*train the model again"):
        load_model(model)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("classes", "cat"),
        ("classes", ["cat", 3]),
        ("classes", None),
        ("config", []),
        ("backbone", 3),
        ("provenance", "by hand"),
    ],
)
def test_a_header_of_other_types_is_refused(model: Path, field: str, value: object) -> None:
    save_tensors(model, TENSORS, {**load_tensors(model).metadata, field: value})
    with pytest.raises(ModelFormatError, match=f"no valid '{field}'"):
        load_model(model)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"gone: no such model file; check the path"):
        load_model(tmp_path / "gone")


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="is a directory"):
        load_model(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFormatError, match="not a regular file"):
        load_model(tmp_path / "pipe")


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="permissions do not bind this user"
)
def test_a_file_without_permission(model: Path) -> None:
    model.chmod(0)
    with pytest.raises(ModelFormatError, match="Permission denied"):
        load_model(model)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelFormatError):
        load_model(tmp_path / name)


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, replace(HEADER, kind=CLASSIFIER), TENSORS)
    assert load_model(path, CLASSIFIER)[0].kind == CLASSIFIER
    with pytest.raises(ModelFormatError, match="is a classifier, not a detector; give a file"):
        load_model(path)
    save_model(path, HEADER, TENSORS)
    with pytest.raises(ModelFormatError, match="is a detector, not a classifier"):
        load_model(path, CLASSIFIER)


def test_other_weights_of_the_backbone_are_refused(tmp_path: Path) -> None:
    check_backbone(HEADER, HEADER.backbone_digest, tmp_path / "m")
    with pytest.raises(ModelFormatError, match="m: was trained on other weights of efficientnet_"):
        check_backbone(HEADER, "1" * 64, tmp_path / "m")


@pytest.mark.parametrize("error", [RuntimeError, TypeError, ValueError])
def test_arrays_that_do_not_fit_name_the_file(tmp_path: Path, error: type[Exception]) -> None:
    match = "m: its arrays do not fit its config: too wide"
    with pytest.raises(ModelFormatError, match=match), check_arrays(tmp_path / "m"):
        raise error("too wide")
