"""The command tree: help, exit codes, settings, models, training."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sppdet.core.settings import load
from sppdet.datasets import load_dataset
from sppdet.detection import model_zoo
from sppdet.training.config import TrainingConfig
from tests.cli.conftest import Run, assert_one_line, training


def test_no_arguments_show_the_help(run: Run) -> None:
    ran = run()
    assert "Usage" in ran.out + ran.err
    assert ran.code in (0, 2)


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("detect",),
        ("train",),
        ("evaluate",),
        ("propose",),
        ("data",),
        ("data", "download"),
        ("data", "synthetic"),
        ("data", "check"),
        ("models",),
        ("settings",),
    ],
    ids=" ".join,
)
def test_every_command_explains_itself(run: Run, command: tuple[str, ...]) -> None:
    ran = run(*command, "--help")
    assert ran.code == 0
    assert "Usage" in ran.out


@pytest.mark.parametrize("words", [["--help"], ["detect", "--help"], ["classify", "train", "-h"]])
def test_help_imports_nothing_slow(words: list[str]) -> None:
    slow = {"torch", "numba", "cv2", "sklearn", "onnxruntime", "sppdet.core.settings"}
    code = (
        "import sys; from sppdet.cli.main import app\n"
        f"try: app({words})\n"
        "except SystemExit: pass\n"
        f"print(sorted({slow} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


def test_the_version_is_told(run: Run) -> None:
    assert run("--version").out.startswith("sppdet ")


@pytest.mark.parametrize(
    "argv",
    [
        ("fly",),
        ("detect",),
        ("train", "data"),
        ("detect", "x.jpg", "--threshold", "high"),
        ("train", "data", "--run", "r", "--seed", "-1"),
        ("data", "check", "x", "--color"),
    ],
    ids=" ".join,
)
def test_wrong_usage_leaves_with_2(run: Run, argv: tuple[str, ...]) -> None:
    assert run(*argv).code == 2


@pytest.mark.parametrize("command", [("data", "check"), ("evaluate",), ("train",)], ids=" ".join)
def test_missing_data_is_named(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    options = ["--run", tmp_path / "run"] if command == ("train",) else []
    absent = tmp_path / "absent"
    assert_one_line(run(*command, absent, *options), str(absent), "no such file or folder")
    assert_one_line(run(*command, absent / "a.json", *options), "a.json", "no such file or folder")


def test_training_again_changes_nothing(run: Run, shapes: Path, model: Path) -> None:
    before = model.read_bytes()
    again = run(*training(shapes, model.parent))
    assert again.code == 0
    assert "unchanged" in again.err
    assert f"sppdet detect IMAGE --model {model}" in again.out
    assert model.read_bytes() == before


def test_an_interrupt_leaves_with_130(shapes: Path, tmp_path: Path) -> None:
    endless = training(shapes, tmp_path, "--set", "finetune.steps=100000")
    command = [sys.executable, "-c", "from sppdet.cli import main; main()", *map(str, endless)]
    # What runs in the background of a script inherits that interrupts are ignored.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        signal.signal(signal.SIGINT, usual)
        assert job.stderr is not None
        for line in job.stderr:
            if line.startswith("feature maps"):
                break
        job.send_signal(signal.SIGINT)
        rest = job.stderr.read()
        assert job.wait() == 130
    assert "Traceback" not in rest


def test_settings_are_a_config_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text(run("settings", "--set", "svm.c=0.5", "--seed", "3").out)
    assert load(TrainingConfig, path) == load(TrainingConfig, None, ["svm.c=0.5", "seed=3"])
    lines = path.read_text().splitlines()
    assert all(lines[i - 1].startswith("#") for i, line in enumerate(lines) if line[:2] == "c ")


def test_models_are_listed_and_used_by_name(
    run: Run, shapes: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_zoo, "SHIPPED", tmp_path)
    monkeypatch.setattr(model_zoo, "PRESETS", tmp_path / "presets")
    assert run("models").out.startswith("none; train one")
    for name in ("default", "fast", "accurate"):
        (tmp_path / f"{name}.safetensors").write_bytes(model.read_bytes())
    ran = run("models")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["accurate", "default", "fast"]
    used = {int(label) for sample in load_dataset(shapes, "train") for label in sample.labels}
    size, classes = f"{model.stat().st_size / 1e6:.1f} MB", len(used)
    for line in lines:
        assert f": {size}, {classes} classes, trained on shapes train, 4 images" in line
    image = next((shapes / "JPEGImages").iterdir())
    told = [run("detect", image, "--model", name).out for name in ("fast", "accurate")]
    told += [run("detect", image).out, run("detect", image, "--model", model).out]
    assert all("1 images" in one for one in told)
    assert_one_line(
        run("detect", image, "--model", "quick"), "no such model", "accurate, default, fast"
    )


def test_presets_are_listed_with_their_models_and_settings(run: Run) -> None:
    ran = run("models")
    assert ran.code == 0
    lines = {line.partition(":")[0]: line for line in ran.out.splitlines()}
    assert {one.name for one in model_zoo.list_models()} <= set(lines)
    for preset in model_zoo.list_presets():
        for model, own in zip(preset.models, preset.own_settings, strict=True):
            for table, values in {**preset.settings, **own}.items():
                for key, value in values.items():
                    assert f"{table}.{key}={value}" in lines[preset.name]
            assert model in lines[preset.name]
