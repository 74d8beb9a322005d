from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sppdet.core.errors import AnnotationError
from sppdet.datasets.formats.yolo_yaml import parse_yaml, read_data_yaml

HERE = Path("data.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "names: ['cat', 'big dog']",
        'names: ["cat", "big dog"]  # two',
        "names: [cat, big dog,]",
        "names: [\n  'cat',\n  'big dog'\n]\n",
        "names:\n- cat\n- big dog\n",
        "names:\n  - cat # the first\n  - 'big dog'",
        "names:\n  0: cat\n  1: big dog\n",
        "names: {0: cat, 1: 'big dog'}",
        "\ufeffnames: ['cat', 'big dog']\r\nnc: 2\r\n",
        "---\n# Data\n\nnames: [cat, big dog]\nroboflow:\n  url: https://a.b/c\n  version: 1\n",
        "download: |\n  import os\n  x = {1: [\nnames: [cat, big dog]",
    ],
)
def test_names_in_all_spellings(text: str, tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(text, encoding="utf-8")
    assert read_data_yaml(path).names == {0: "cat", 1: "big dog"}


def test_paths_in_all_spellings(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(
        "path: ../datasets/coco8  # root\ntrain: [images/a, images/b]\nvalid:\n  - images/c\n"
        "test:\nnc: 3\nkpt_shape: [17, 3]\n"
    )
    data = read_data_yaml(path)
    assert data.root == "../datasets/coco8"
    assert data.splits == {"train": ("images/a", "images/b"), "val": ("images/c",)}
    assert data.count == 3
    assert data.keypoints
    assert data.names is None


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text("")
    assert read_data_yaml(path).splits == {}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("names: &a [x]", 1),
        ("nc: 1\nnames: *a", 2),
        ("names: !!python/object:os.system [x]", 1),
        ("names: [a, b", 1),
        ("names:\n  0: [a]", 2),
        ("train: >\n  a", 1),
        ("a list\n", 1),
    ],
)
def test_the_rest_of_yaml_is_refused_by_line(text: str, line: int) -> None:
    with pytest.raises(AnnotationError, match=f"line {line} is not understood"):
        parse_yaml(text, HERE)


def test_names_by_words_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text("names:\n  cat: 0\n")
    with pytest.raises(AnnotationError, match="number the classes"):
        read_data_yaml(path)


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1)
    )
)
def test_quoted_names_come_back(names: list[str]) -> None:
    lines = ["names:", *("- '" + name.replace("'", "''") + "'" for name in names)]
    value = parse_yaml("\n".join(lines), HERE)["names"]
    assert value == (names or "")


@given(st.text(alphabet="abn:{}[]'\"-#&|, \n01"))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(AnnotationError):
        parse_yaml("names:" + text, HERE)
