"""Names in any script are drawn, or spelled out in letters that the font has."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from sppdet.core.types import UInt8Array
from sppdet.outputs.fonts import default_font, drawable, load_font


def rendered(text: str) -> UInt8Array:
    """The text in the font that comes along, black on white."""
    canvas = Image.new("L", (300, 40), 255)
    ImageDraw.Draw(canvas).text((4, 4), text, fill=0, font=load_font(default_font(), 24))
    return np.array(canvas)


@pytest.mark.parametrize("name", ["cat", "café", "Ærøskøbing", "кот", "їжак", "γάτα", "ñandú", "ẞ"])
def test_latin_greek_and_cyrillic_are_drawn_as_they_are(name: str) -> None:
    assert drawable(name) == (name, default_font())
    # Every letter has a picture of its own: none is the box of a missing one.
    pictures = {char: rendered(char).tobytes() for char in {*name, "\uffff"}}
    assert len(set(pictures.values())) == len(pictures)


# Egyptian, and Tangut: no font is likely to have both, or the first.
@pytest.mark.parametrize("name", ["\U00013000\U00017000", "cat \U00013000\U00017000"])
def test_what_no_font_has_is_spelled_out_and_told_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    drawable.cache_clear()
    with caplog.at_level(logging.WARNING):
        spelled = [drawable(name)[0] for _ in range(3)]
    assert set(spelled) == {name.encode("ascii", "backslashreplace").decode("ascii")}
    assert len(caplog.messages) == 1
    assert "install one" in caplog.messages[0]


def test_what_is_not_to_be_seen_is_escaped() -> None:
    assert drawable("a\nb\x07\u202e")[0] == "a\\u000ab\\u0007\\u202e"
    assert drawable("")[0] == ""
    assert drawable("a b")[0] == "a b"


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=6))
def test_any_name_becomes_one_line_that_can_be_drawn(name: str) -> None:
    text, path = drawable(name)
    assert len(text.splitlines()) <= 1
    assert load_font(path, 20).getlength(text) >= 0
    again, same = drawable(text)
    assert (again, same) == (text, path)


def test_the_font_is_found_without_importing_matplotlib() -> None:
    code = (
        "import sys; from sppdet.outputs.fonts import default_font\n"
        "print(default_font() is not None, 'matplotlib' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "True False\n"
