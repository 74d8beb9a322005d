"""What `sppdet train` starts from: the shipped model, another, or random layers."""

from __future__ import annotations

from pathlib import Path

from sppdet.core.model_file import read_header
from tests.cli.conftest import Run, assert_one_line, training


def test_a_config_of_another_network_starts_from_random_layers(
    run: Run, shapes: Path, tmp_path: Path
) -> None:
    ran = run(*training(shapes, tmp_path / "run", "--split", "nowhere"))
    assert ran.code == 1
    line = ran.out.splitlines()[0]
    assert line.startswith("starting from random layers, for ")
    fixed = "features.backbone, head.pyramid_channels, head.fc6, head.fc7"
    assert f"tiny.toml has another {fixed} than the model default" in line
    named = training(shapes, tmp_path / "run", "--from", "lite0")
    assert_one_line(run(*named), "head.pyramid_channels is 32, and the model lite0", "--from none")


def test_a_change_that_the_layers_do_not_fit_is_refused(
    run: Run, shapes: Path, tmp_path: Path
) -> None:
    words = ("train", shapes, "--run", tmp_path / "run", "--set", "head.fc7=16")
    ran = run(*words)
    assert_one_line(ran, "head.fc7 is 16, and the model default", "has 1024", "--from none")
    absent = tmp_path / "absent.safetensors"
    assert_one_line(run(*words, "--from", absent), str(absent), "no such model")
    assert not (tmp_path / "run").exists()


def test_a_model_brings_its_own_settings(
    run: Run, shapes: Path, model: Path, tmp_path: Path
) -> None:
    words = ("train", shapes, "--run", tmp_path, "--from", model, "--cache", model.parent / "cache")
    ran = run(*words, "--set", "finetune.steps=3", "--set", "head.dropout=0.5")
    assert ran.code == 0
    header, start = (read_header(one) for one in (tmp_path / "model.safetensors", model))
    known = ", ".join(header.classes)
    assert (
        f"starts from the model model.safetensors, which knows {known}: 3 steps of fine-tuning, "
        "learning rate 0.0002 at most" in ran.out.splitlines()
    )
    assert header.config["features"] == start.config["features"]
    assert header.config["head"] == {**start.config["head"], "dropout": 0.5}
    assert header.provenance["started_from"]["datasets"] == [start.provenance["dataset"]]
    assert "started_from" not in start.provenance
