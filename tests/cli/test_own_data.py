"""Other people's data on the command line: any format, no splits, other classes, other results."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sppdet.cli.dataset import DataSource, drop_empty_classes
from sppdet.core.types import Dataset, Detections
from sppdet.datasets import load_dataset
from sppdet.datasets.raw import ALL_LOST, CLASS_NUMBER
from sppdet.datasets.tools.convert import convert_dataset
from sppdet.datasets.tools.writers import TARGETS, Target
from sppdet.evaluation.result_files.coco_results import write_coco_detections
from tests.cli.conftest import Run, assert_one_line, training
from tests.helpers.made_annotations import label_studio_tasks, write_images, write_json


@pytest.fixture(scope="session")
def plain(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic images in YOLO's format, without splits."""
    folder = tmp_path_factory.mktemp("plain") / "mine"
    dataset = load_dataset(shapes)
    convert_dataset({None: dataset}, folder, "yolo", copy=True)
    (folder / "data.yaml").unlink()
    (folder / "classes.txt").write_text("\n".join(dataset.classes))
    return folder


@pytest.fixture(scope="session")
def plain_run(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training on it that nobody named a split for."""
    return tmp_path_factory.mktemp("run") / "plain"


def renamed(shapes: Path, folder: Path, **names: str) -> Path:
    """Copy the synthetic set, with some of its classes under other names."""
    shutil.copytree(shapes, folder)
    for path in [folder / "classes.txt", *(folder / "Annotations").iterdir()]:
        text = path.read_text()
        for old, new in names.items():
            text = re.sub(rf"\b{old}\b", new, text)
        path.write_text(text)
    return folder


@pytest.mark.parametrize("to", TARGETS)
def test_every_format_is_written_checked_and_found_out(
    run: Run, shapes: Path, tmp_path: Path, to: Target
) -> None:
    out = tmp_path / "new"
    ran = run("data", "convert", shapes, out, "--to", to)
    assert ran.code == 0
    assert f"{out}: 4 train, 3 val" in ran.out
    checked = run("data", "check", out)
    assert checked.code == 0
    assert "7 images, 16 boxes, 6 classes" in checked.out
    assert "train: 4 images" in checked.out
    assert "nothing is wrong" in checked.out
    assert run("data", "convert", shapes, out, "--to", to).code == 1


def test_a_report_for_programs(run: Run, plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(plain, folder)
    first = next(path for path in sorted((folder / "labels").rglob("*.txt")) if path.read_text())
    first.write_text("0 1.2 0.5 0.2 0.2\n" + first.read_text())
    ran = run("data", "check", folder, "--json")
    assert ran.code == 1
    report = json.loads(ran.out)
    assert report["images"] == {"all": 7}
    assert report["problems"]["boxes outside their image left out"]["count"] == 1
    assert first.name in report["problems"]["boxes outside their image left out"]["named"][0]


def test_a_split_is_made(run: Run, shapes: Path, plain: Path, tmp_path: Path) -> None:
    assert_one_line(run("data", "split", shapes, "--out", tmp_path / "a"), "has splits: train, val")
    assert_one_line(run("data", "split", plain, "--out", tmp_path / "a", "--val", "2"), "--val 2")
    made = run("data", "split", plain, "--out", tmp_path / "b", "--val", "0.3", "--seed", "1")
    assert made.code == 0
    assert "5 train and 2 val images" in made.out
    assert "splits: train, val" in run("data", "check", tmp_path / "b").out
    lists = run("data", "split", plain, "--out", tmp_path / "c", "--val", "0.3", "--lists")
    assert lists.code == 0
    ids = [(tmp_path / "c" / f"{name}.txt").read_text().split() for name in ("train", "val")]
    assert [len(one) for one in ids] == [5, 2]
    assert not {*ids[0]} & {*ids[1]}
    assert len(load_dataset(plain, str(tmp_path / "c" / "val.txt"))) == 2


def test_training_holds_a_fifth_out_and_evaluation_finds_it(
    run: Run, plain: Path, plain_run: Path, tmp_path: Path
) -> None:
    ran = run(*training(plain, plain_run))
    assert ran.code == 0
    assert "YOLO, 7 images, 16 boxes, 6 classes" in ran.out
    assert "no splits: a fifth of the images is held out" in ran.out
    held_out = plain_run / "held_out.txt"
    assert f"1 of 7 images are held out to evaluate on (seed 0): they are listed in {held_out}" in (
        ran.out.replace("\n", " ")
    )
    (held,) = held_out.read_text().split()
    model = plain_run / "model.safetensors"
    told = run("evaluate", plain, "--model", model, "--out", tmp_path / "out")
    assert told.code == 0
    assert f"no split given: evaluating on {held_out}" in told.out
    assert "say nothing of new images" not in told.err
    assert json.loads((tmp_path / "out" / "report.json").read_text())["voc"]["images"] == 1
    assert list((tmp_path / "out").glob("comp4_det_held_out_*.txt"))
    everything = run(
        "evaluate", plain, "--model", model, "--split", "all", "--out", tmp_path / "all"
    )
    assert "say nothing of new images" in everything.err
    assert held in {sample.image_id for sample in load_dataset(plain)}


def test_a_set_with_a_test_split_alone_is_not_trained_on(
    run: Run, plain: Path, tmp_path: Path
) -> None:
    convert_dataset({"test": load_dataset(plain)}, tmp_path / "mine", "yolo")
    ran = run(*training(tmp_path / "mine", tmp_path / "run"))
    assert_one_line(ran, "has no split to train on, but test", "--split")


def test_a_misspelt_class_is_an_error(run: Run, shapes: Path, model: Path, tmp_path: Path) -> None:
    commands = (
        training(shapes, tmp_path / "run", "--classes", "sqare"),
        ["data", "check", shapes, "--classes", "sqare"],
        ["data", "convert", shapes, tmp_path / "new", "--to", "coco", "--classes", "sqare"],
        ["data", "crops", shapes, tmp_path / "crops", "--classes", "Square"],
    )
    for words in commands:
        ran = run(*words)
        assert ran.code == 1
        assert "did you mean 'square'" in ran.err + ran.out
    ran = run("evaluate", shapes, "--model", model, "--classes", "sqare")
    assert ran.code == 1
    assert "the model does not know the class 'sqare'; it knows circle" in ran.err
    assert not (tmp_path / "run").exists()


def test_classes_without_objects_are_told_and_left_out(
    shapes: Path, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = load_dataset(plain)
    kept = tuple(
        replace(
            sample,
            boxes=sample.boxes[keep],
            labels=sample.labels[keep],
            difficult=sample.difficult[keep],
        )
        for sample in dataset
        for keep in [sample.labels > 0]
    )
    opened = DataSource(plain).open()
    less = drop_empty_classes(replace(dataset, samples=kept), opened)
    assert less.classes == dataset.classes[1:]
    for before, after in zip(kept, less, strict=True):
        assert after.labels.tolist() == (before.labels - 1).tolist()
    assert f"not trained: {dataset.classes[0]}" in capsys.readouterr().err
    assert drop_empty_classes(dataset, opened) is dataset
    asked = DataSource(plain, classes=",".join(dataset.classes)).open()
    with pytest.raises(Exception, match=f"has the class {dataset.classes[0]}"):
        drop_empty_classes(replace(dataset, samples=kept), asked)


def test_classes_of_model_and_data_are_compared(
    run: Run, shapes: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    some = renamed(shapes, tmp_path / "some", circle="wheel")
    ran = run("evaluate", some, "--model", model, "--out", out)
    assert ran.code == 0
    assert "1 of the model's 5 classes not in the data: circle" in ran.err
    unknown = next(line for line in ran.err.splitlines() if "does not know" in line)
    assert "wheel (" in unknown
    classes = json.loads((out / "report.json").read_text())["voc"]["classes"]
    assert "circle" not in classes
    assert "wheel" not in classes
    others = dict.fromkeys(("circle", "cross", "ring", "square", "star", "triangle"))
    none = renamed(shapes, tmp_path / "none", **{name: f"my{name}" for name in others})
    ran = run("evaluate", none, "--model", model, "--out", tmp_path / "never")
    assert ran.code == 1
    assert "no object has one of the model's classes" in ran.err
    assert not (tmp_path / "never").exists()


def test_classes_that_differ_by_case_alone_are_the_model_s(
    run: Run, shapes: Path, model: Path, tmp_path: Path
) -> None:
    voc = renamed(shapes, tmp_path / "voc", circle="Circle")
    convert_dataset({"val": load_dataset(voc, "val")}, tmp_path / "coco", "coco")
    out = tmp_path / "out"
    ran = run("evaluate", tmp_path / "coco", "--model", model, "--out", out, "--limit", "1")
    assert ran.code == 0
    assert "the data's class 'Circle' is taken as the model's 'circle'" in ran.err
    assert "not in the data: circle" not in ran.err
    assert "categories are numbered" not in ran.err
    assert "circle" in json.loads((out / "report.json").read_text())["coco"]["class_ap"]


def _perfect(dataset: Dataset) -> dict[str, Detections]:
    return {
        sample.image_id: Detections(
            sample.boxes, np.ones(len(sample.boxes), np.float32), sample.labels, dataset.classes
        )
        for sample in dataset
    }


def test_results_of_other_tools(run: Run, plain: Path, tmp_path: Path) -> None:
    dataset = load_dataset(plain)
    labels = tmp_path / "exp" / "labels"
    labels.mkdir(parents=True)
    rows = ["filename,class,confidence,xmin,ymin,xmax,ymax"]
    for path in sorted((plain / "labels").rglob("*.txt")):
        lines = [f"{line} 0.9\n" for line in path.read_text().splitlines()]
        (labels / path.name).write_text("".join(lines))
    for sample in dataset:
        for label, box in zip(sample.labels.tolist(), sample.boxes.tolist(), strict=True):
            corners = ",".join(map(str, box))
            rows.append(f"{sample.path.name},{dataset.classes[label]},0.9,{corners}")
    (tmp_path / "found.csv").write_text("\n".join(rows))
    write_coco_detections(tmp_path / "found.json", dataset, _perfect(dataset))
    for results in ("exp", "found.csv", "found.json"):
        ran = run(
            "evaluate",
            plain,
            "--results",
            tmp_path / results,
            "--out",
            tmp_path / "out",
            "--metric",
            "both",
        )
        assert ran.code == 0, ran.err
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert report["voc"]["map11"] == pytest.approx(1.0), results
        assert report["coco"]["ap"] == pytest.approx(1.0, abs=0.02), results
    (tmp_path / "found.xyz").write_text("")
    ran = run("evaluate", plain, "--results", tmp_path / "found.xyz")
    assert "no results of a known kind" in ran.err


def test_coco_data_gives_cocos_figures(run: Run, shapes: Path, model: Path, tmp_path: Path) -> None:
    run("data", "convert", shapes, tmp_path / "coco", "--to", "coco")
    out = tmp_path / "out"
    ran = run("evaluate", tmp_path / "coco", "--model", model, "--out", out)
    assert ran.code == 0
    assert "COCO metric" in ran.out
    assert "AP 11-point" not in ran.out
    report = json.loads((out / "report.json").read_text())
    assert report["metric"] == "coco"
    assert "voc" not in report
    known = {item["category_id"] for item in json.loads((out / "detections.json").read_text())}
    assert known <= {1, 2, 3, 4, 5, 6}
    known_classes = ",".join(report["coco"]["class_ap"])
    again = run(
        "evaluate",
        tmp_path / "coco",
        "--results",
        out / "detections.json",
        "--classes",
        known_classes,
        "--out",
        tmp_path / "again",
    )
    assert again.code == 0, again.err
    same = json.loads((tmp_path / "again" / "report.json").read_text())
    assert same["coco"] == report["coco"]


def test_ids_that_voc_files_cannot_hold(run: Run, plain: Path, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(plain, folder)
    for path in sorted(folder.rglob("00000*.*")):
        path.rename(path.with_stem(f"photo {path.stem}"))
    out = tmp_path / "out"
    ran = run("evaluate", folder, "--model", model, "--out", out, "--limit", "1")
    assert ran.code == 0
    assert "detections.json is written instead" in ran.err
    written = {"report.json", "report.html", "detections.json"}
    assert {path.name for path in out.iterdir()} == written


def test_lenient_goes_on_where_else_it_stops(run: Run, plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(plain, folder)
    labels = [path for path in sorted((folder / "labels").rglob("*.txt")) if path.read_text()]
    for path in labels[:2]:
        path.write_text("99 0.5 0.5 0.2 0.2\n")
    words = ("data", "convert", folder, tmp_path / "new", "--to", "csv")
    ran = run(*words)
    assert_one_line(ran, "2 of 7 images cannot be used", f"{labels[0]}: line 1 has the class 99")
    assert ran.err.endswith("or go on without them: --lenient\n")
    ran = run(*words, "--lenient")
    assert ran.code == 0
    assert f"sppdet: {CLASS_NUMBER}: 2" in ran.err
    assert f"sppdet: {ALL_LOST}: 2" in ran.err
    assert f"{tmp_path / 'new'}: 5 images" in ran.out
    for command in ("train", "evaluate", "propose"):
        assert "--lenient" in run(command, "--help").out


def test_notes_are_no_reason_for_an_exit_code(run: Run, plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(plain, folder)
    with (folder / "classes.txt").open("a") as stream:
        stream.write("\nunused\n")
    ran = run("data", "check", folder)
    assert ran.code == 0
    assert "note: classes without an object, left out: 1" in ran.out
    assert run("data", "convert", folder, tmp_path / "new", "--to", "coco", "--strict").code == 0


def test_another_format_is_said(run: Run, tmp_path: Path) -> None:
    write_images(tmp_path / "mine")
    write_json(tmp_path / "mine" / "export.json", label_studio_tasks())
    ran = run("data", "split", tmp_path / "mine", "--out", tmp_path / "new", "--val", "0.4")
    assert ran.code == 0
    assert "there is no writer for Label Studio JSON: written as COCO" in ran.out
    assert "COCO, 3 images" in run("data", "check", tmp_path / "new").out
    ran = run("data", "split", tmp_path / "new", "--split", "all", "--out", tmp_path / "again")
    assert "no writer" not in ran.out


def test_strict_refuses_what_else_is_told(run: Run, plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(plain, folder)
    first = next(path for path in sorted((folder / "labels").rglob("*.txt")) if path.read_text())
    first.write_text("0 1.2 0.5 0.2 0.2\n" + first.read_text())
    ran = run("data", "crops", folder, tmp_path / "crops")
    assert ran.code == 0
    assert "sppdet: boxes outside their image left out: 1" in ran.err
    assert first.name in ran.err.splitlines()[1]
    ran = run("data", "crops", folder, tmp_path / "again", "--strict")
    assert_one_line(ran, str(first), "(strict)")
