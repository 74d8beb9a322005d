"""Results of other detectors: YOLO's text and CSV, read to the same detections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.errors import EvaluationError
from sppdet.core.types import Dataset, Detections, Sample
from sppdet.evaluation.result_files.other_results import read_csv_detections, read_yolo_detections
from tests.helpers.evaluation_cases import detections_of

CLASSES = ("cat", "dog")


def sample(image_id: str, path: str, width: int = 200, height: int = 100) -> Sample:
    """An image without objects."""
    boxes = np.zeros((0, 4), np.float32)
    labels, difficult = np.zeros(0, np.int64), np.zeros(0, np.bool_)
    return Sample(image_id, Path(path), width, height, boxes, labels, difficult)


DATA = Dataset("pair", CLASSES, (sample("7", "train/a.jpg"), sample("b", "val/b.jpg")))
FOUND = {
    "7": detections_of([(20, 30, 60, 70), (0, 0, 200, 100)], [0.9, 0.25], [1, 0], CLASSES),
    "b": detections_of([], [], [], CLASSES),
}


def rows(detections: Detections) -> list[tuple[str, float, tuple[float, ...]]]:
    """Name, score and box of each detection, in its order."""
    return [(d.name, round(d.score, 6), tuple(round(v, 3) for v in d.box)) for d in detections]


def check(found: dict[str, Detections]) -> None:
    """Check that detections are those of `FOUND`."""
    assert {key: rows(each) for key, each in found.items()} == {
        key: rows(each) for key, each in FOUND.items()
    }


YOLO = "0 0.5 0.5 1 1 0.25\n\n1 0.2 0.5 0.2 0.4 0.9\n"


@pytest.mark.parametrize("name", ["a.txt", "7.txt"])
def test_yolo(tmp_path: Path, name: str) -> None:
    """Files are named after the image or its id; an image without one has no detections."""
    (tmp_path / name).write_text(YOLO, encoding="utf-8-sig")
    check(read_yolo_detections(tmp_path, DATA))


def test_yolo_polygons_and_classes_of_its_own(tmp_path: Path) -> None:
    lines = "1 0.5 0.5 1 1 0.25\r\n2 0.1 0.3 0.3 0.3 0.2 0.7 0.9\r\n0 0.5 0.5 1 1 0.99\r\n"
    (tmp_path / "a.txt").write_text(lines, encoding="utf-8", newline="")
    (tmp_path / "classes.txt").write_text("bird\ncat\ndog\n", encoding="utf-8")
    check(read_yolo_detections(tmp_path, DATA))
    (tmp_path / "classes.txt").unlink()
    check(read_yolo_detections(tmp_path, DATA, classes=("bird", "cat", "dog")))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0 0.5 0.5 1 1", "line 1: 5 fields, not 6; .*confidence"),
        ("0 0.5 0.5 1 1 x", "line 1: a field is not a number"),
        ("0 0.5 0.5 1 1 nan", "line 1: a number is not finite"),
        ("2 0.5 0.5 1 1 0.5", "line 1: class 2 is not one of 2"),
        ("0.5 0.5 0.5 1 1 0.5", "line 1: class 0.5 is not"),
        ("0 0.5 0.5 -1 1 0.5", "line 1: the box is inverted"),
    ],
)
def test_bad_yolo_lines_are_named(tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / "a.txt").write_text(line, encoding="utf-8")
    with pytest.raises(EvaluationError, match=rf"a\.txt, {problem}"):
        read_yolo_detections(tmp_path, DATA)


def test_yolo_folders_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="cannot be listed"):
        read_yolo_detections(tmp_path / "none", DATA)
    with pytest.raises(EvaluationError, match=r"holds no \.txt file"):
        read_yolo_detections(tmp_path, DATA)
    (tmp_path / "c.txt").write_text(YOLO, encoding="utf-8")
    with pytest.raises(EvaluationError, match="image c is not in the data set"):
        read_yolo_detections(tmp_path, DATA)
    with pytest.raises(EvaluationError, match="none of the classes bird"):
        read_yolo_detections(tmp_path, DATA, classes=("bird",))


TABLES = {
    "plain": """image,class,score,x1,y1,x2,y2
a.jpg,cat,0.25,0,0,200,100
a.jpg,dog,0.9,20,30,60,70
""",
    "pandas": """,xmin,ymin,xmax,ymax,confidence,class,name,file
0,0.0,0.0,200.0,100.0,0.25,0,cat,a
1,20,30,60,70,0.9,1,dog,a
""",
    "semicolons and paths": """\ufefffilename;width;height;Class;xmin;ymin;xmax;ymax;Score\r
C:\\data\\a.jpg;200;100;cat;0;0;200;100;0.25\r
/data/a.jpg;200;100;dog;20;30;60;70;0.9\r
""",
    "sides": """image_id\tlabel\tscore\tx\ty\tw\th
7\tdog\t0.9\t20\t30\t40\t40
7\tcat\t0.25\t0\t0\t200\t100
""",
    "shares": """image,label,conf,left,top,right,bottom
a.jpg,cat,0.25,0,0,1,1

a.jpg,dog,0.9,0.1,0.3,0.3,0.7
""",
}


@pytest.mark.parametrize("name", sorted(TABLES))
def test_csv(tmp_path: Path, name: str) -> None:
    path = tmp_path / "found.csv"
    path.write_text(TABLES[name], encoding="utf-8", newline="")
    check(read_csv_detections(path, DATA))


def test_csv_of_no_detections(tmp_path: Path) -> None:
    path = tmp_path / "found.csv"
    path.write_text("image,class,score,x1,y1,x2,y2\n", encoding="utf-8")
    assert [len(found) for found in read_csv_detections(path, DATA).values()] == [0, 0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the table is empty"),
        ("a.jpg,cat,0.5,0,0,1,1\n", "no column 'image' among"),
        ("image,class,x1,y1,x2,y2\n", "no column 'score' among"),
        ("image,class,score,x1,y1,x2\n", "no column 'y2' among"),
        ("image,class,score,x1,y1,x2,y2\na,cat,1\n", "line 2: 3 fields"),
        ("image,class,score,x1,y1,x2,y2\nc,cat,1,0,0,1,1\n", "line 2: image c is not in"),
        ("image,class,score,x1,y1,x2,y2\na,bird,1,0,0,1,1\n", "line 2: class 'bird' is not"),
        ("image,class,score,x1,y1,x2,y2\na,cat,1,0,0,1,one\n", "line 2: a field is not a number"),
        ("image,class,score,x1,y1,x2,y2\na,cat,1,0,0,9,9\na,cat,1,5,5,4,9\n", "line 3: the box is"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "found.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EvaluationError, match=problem):
        read_csv_detections(path, DATA)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no such file"):
        read_csv_detections(tmp_path / "none.csv", DATA)
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_csv_detections(tmp_path / "a.csv", DATA)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="image,clsorex1y2;\t\n\"0.59-a'", max_size=80) | st.binary(max_size=40))
def test_any_table_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str | bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    header = b"image,class,score,x1,y1,x2,y2\na,cat,0.5,0,0,1,1\n"
    path.write_bytes(header + (text.encode() if isinstance(text, str) else text))
    try:
        found = read_csv_detections(path, DATA)
    except EvaluationError as error:
        message = str(error)
        assert "\n" not in message
    else:
        assert list(found) == ["7", "b"]
