"""Fonts for labels in any script, and names spelled out where the machine has none.

DejaVu Sans, which comes with matplotlib, has Latin, Greek, Cyrillic and more; for others the fonts
of the machine are tried.
"""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_SUFFIXES = {".ttf", ".otf", ".ttc"}
# Folders of fonts: the XDG standard's on Linux, then macOS's and Windows's.
_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "~/Library/Fonts",
    "C:/Windows/Fonts",
)
# It has a glyph for everything: a box with the script's name.
_LAST_RESORT = "LastResort"
# No character, so that every font shows what it shows for those that it lacks.
_NONE = "\uffff"
# Pixels, for looking at glyphs.
_TRIAL_SIZE = 24

# Not to be seen, but part of how Persian, Hindi and others are written.
_JOINERS = frozenset("\u200c\u200d")

_logger = logging.getLogger(__name__)


@lru_cache(maxsize=4096)
def drawable(name: str) -> tuple[str, Path | None]:
    """Return a name as it can be drawn, and the font file; None stands for Pillow's own font.

    Characters that no font has, and those that are not to be seen, are written as their escapes
    (`\\u732b`, as JSON has them), which is told once per name.
    """
    plain = "".join(
        char if char.isprintable() or char in _JOINERS else _escaped(char) for char in name
    )
    usual = default_font()
    if not _lacking(plain, usual):
        return plain, usual
    own = next((path for path in machine_fonts() if not _lacking(plain, path)), None)
    if own is not None:
        return plain, own
    lacking = _lacking(plain, usual)
    spelled = "".join(_escaped(char) if char in lacking else char for char in plain)
    _logger.warning(
        "no font on this machine has all of %r: it is drawn as %s; install one of its script, such "
        "as a Noto font",
        name,
        spelled,
    )
    return spelled, usual


@lru_cache(maxsize=256)
def load_font(path: Path | None, size: int) -> Font:
    """Load a font in a size in pixels."""
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


@lru_cache(maxsize=1)
def default_font() -> Path | None:
    """Find DejaVu Sans in matplotlib, without importing it; None if it is not there."""
    spec = find_spec("matplotlib")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return path
    return None


@lru_cache(maxsize=1)
def machine_fonts() -> tuple[Path, ...]:
    """List the font files of this machine, those for reading on a screen first."""
    found = []
    for name in _FOLDERS:
        for folder, _, files in os.walk(Path(name).expanduser()):
            found += [Path(folder, file) for file in files]
    fonts = [one for one in found if one.suffix.lower() in _SUFFIXES]
    fonts = [one for one in fonts if not one.name.startswith(_LAST_RESORT)]
    # Without serifs, neither bold nor italic, where a family has several.
    return tuple(sorted(fonts, key=lambda one: (_rank(one.stem.lower()), one)))


def _rank(stem: str) -> int:
    words = ("serif", "mono", "bold", "italic", "oblique", "light", "thin", "black")
    return sum(word in stem for word in words)


def _lacking(text: str, path: Path | None) -> frozenset[str]:
    """Return the characters of a text that a font has no glyph for."""
    try:
        font = _load_for_trial(path)
        nothing = _glyph(font, _NONE)
        blank = _glyph(font, " ")
        return frozenset(
            char
            for char in set(text) - _JOINERS
            if (glyph := _glyph(font, char)) == nothing or (glyph == blank and not char.isspace())
        )
    # Fonts of pictures in one size, and damaged ones.
    except (OSError, ValueError):
        return frozenset(text)


@lru_cache(maxsize=64)
def _load_for_trial(path: Path | None) -> Font:
    if path is None:
        return ImageFont.load_default(_TRIAL_SIZE)
    # Character by character: shaped, a lone vowel sign comes on a circle.
    return ImageFont.truetype(path, _TRIAL_SIZE, layout_engine=ImageFont.Layout.BASIC)


def _glyph(font: Font, char: str) -> tuple[object, bytes]:
    mask = font.getmask(char)
    return mask.size, bytes(mask)


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
