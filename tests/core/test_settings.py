"""Settings: round trips, types held to their annotations, and errors that name the hint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import NonNegativeInt

from sppdet.core import settings
from sppdet.core.errors import ConfigError


class Solver(settings.Settings):
    """A leaf with every kind of value."""

    steps: NonNegativeInt = 10
    rate: float = 0.1
    nesterov: bool = False
    name: str = "sgd"
    layer: Literal["fc6", "fc7"] = "fc7"
    decay: tuple[float, ...] = (0.5, 0.75)
    size: tuple[int, str] = (3, "px")
    limit: int | None = None


class Stage(settings.Settings):
    """A branch."""

    solver: Solver = Solver()
    first: Solver = Solver(steps=99, name="first")
    levels: tuple[tuple[int, ...], ...] = ((6, 3),)


class Root(settings.Settings):
    """The root."""

    stage: Stage = Stage()
    seed: int = 0


finite = st.floats(allow_nan=False, allow_infinity=False)
solvers = st.builds(
    Solver,
    steps=st.integers(0, 2**70),
    rate=finite,
    nesterov=st.booleans(),
    name=st.text(max_size=6) | st.just("none"),
    layer=st.sampled_from(["fc6", "fc7"]),
    decay=st.lists(finite, max_size=3).map(tuple),
    size=st.tuples(st.integers(), st.text(max_size=3)),
    limit=st.none() | st.integers(),
)
levels = st.lists(st.lists(st.integers(), max_size=3).map(tuple), max_size=3).map(tuple)
roots = st.builds(
    Root,
    stage=st.builds(Stage, solver=solvers, first=solvers, levels=levels),
    seed=st.integers(),
)


def test_an_empty_source_gives_the_defaults(tmp_path: Path) -> None:
    empty = tmp_path / "empty.toml"
    empty.touch()
    assert settings.load(Root) == Root()
    assert settings.load(Root, empty) == Root()
    assert settings.from_dict(Root, {}) == Root()


@given(roots)
def test_json_round_trip(root: Root) -> None:
    text = json.dumps(settings.to_dict(root), allow_nan=False)
    assert settings.from_dict(Root, json.loads(text)) == root


@given(roots, roots)
def test_digest_and_differences_tell_settings_apart(a: Root, b: Root) -> None:
    again = settings.from_dict(Root, settings.to_dict(a))
    assert settings.digest(again) == settings.digest(a)
    assert settings.differences(a, again) == []
    assert (settings.digest(a) == settings.digest(b)) == (
        settings.to_dict(a) == settings.to_dict(b)
    )
    for name in settings.differences(a, b):
        assert settings.flatten(a)[name] != settings.flatten(b)[name]


def test_keys_are_the_flat_names() -> None:
    assert list(settings.keys(Root)) == list(settings.flatten(Root()))
    assert next(settings.keys(Root)) == "stage.solver.steps"


def test_a_file_holds_differences_and_overrides_come_after_it(tmp_path: Path) -> None:
    path = tmp_path / "fast.toml"
    path.write_text("seed = 3\n[stage.solver]\nsteps = 5\nrate = 2\ndecay = [1, 0.5]\n")
    got = settings.load(
        Root,
        path,
        ["stage.solver.steps=7", "stage.solver.name=adam w", 'stage.solver.size=[1, "cm"]'],
    )
    want = Solver(steps=7, rate=2.0, decay=(1.0, 0.5), name="adam w", size=(1, "cm"))
    assert got == Root(stage=Stage(solver=want), seed=3)
    assert type(got.stage.solver.rate) is float


def test_a_byte_order_mark_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "marked.toml"
    path.write_text("seed = 3\n", encoding="utf-8-sig")
    assert settings.load(Root, path).seed == 3


def test_changes_start_from_the_base() -> None:
    base = Root(stage=Stage(solver=Solver(steps=1, name="b")), seed=9)
    got = settings.load(Root, None, ["stage.solver.steps=2"], base)
    assert got == Root(stage=Stage(solver=Solver(steps=2, name="b")), seed=9)


def test_a_nested_table_starts_from_its_parents_default() -> None:
    got = settings.load(Root, None, ["stage.first.rate=0.5"])
    assert got.stage.first == Solver(steps=99, name="first", rate=0.5)


def test_none_is_a_word_in_toml_and_a_plain_text_in_json() -> None:
    got = settings.load(Root, None, ["stage.solver.limit=4", "stage.solver.limit=none"])
    assert got.stage.solver.limit is None
    assert settings.load(Root, None, ["stage.solver.name=none"]).stage.solver.name == "none"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stage.solver.step=1", "did you mean 'stage.solver.steps'"),
        ("rate=1", "did you mean 'stage.first.rate'"),
        ("sead=1", "unknown key 'sead'; did you mean 'seed'"),
        ("zzz=1", "unknown key 'zzz'; use one of stage, seed"),
        ("stage=1", "stage is 1, not a table; set a key in it: stage.solver.steps"),
        ("seed=1.5", "seed is 1.5; give a whole number"),
        ("seed=true", "seed is True; give a whole number"),
        ("seed=none", "seed is 'none'; give a whole number"),
        ("stage.solver.nesterov=1", "give true or false"),
        ("stage.solver.name=2007", "give a quoted text"),
        ("stage.solver.rate=inf", "give a finite number"),
        ("stage.solver.rate=fast", "give a number"),
        (f"stage.solver.rate=1{'0' * 400}", "give a finite number"),
        ("stage.solver.layer=fc8", "give 'fc6' or 'fc7'"),
        ("stage.solver.limit=0.5", "give a whole number or none"),
        ("stage.solver.decay=0.5", "a list of values, each a number"),
        ("stage.solver.decay=[0.5, true]", "stage.solver.decay[1] is True"),
        ("stage.solver.size=[1]", "stage.solver.size has 1 values; give 2"),
        ("stage.solver.steps=-1", "solver.steps is -1"),
        ("stage.solver.decay=[0.5", "not a TOML value"),
        ("seed", "not of the form key=value"),
        ("seed=", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("stage..solver=3", "not of the form key=value"),
        ("seed=1\nother=2", "give a whole number"),
    ],
)
def test_wrong_overrides_are_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.load(Root, None, [override])
    assert message in str(caught.value)
    assert str(caught.value).startswith("--set ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed = ", "is not TOML"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[stages]\n", "did you mean 'stage'"),
        (b"a = " + b"[" * 5000, "is not TOML"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        settings.load(Root, path)
    assert message in str(caught.value)
    assert caught.value.path == str(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        settings.load(Root, tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        settings.load(Root, tmp_path)
