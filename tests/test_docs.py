"""The pages that are Python sessions print what they say; links in all pages lead somewhere."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
SESSIONS = [page for page in PAGES if ">>>" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", SESSIONS, ids=lambda page: page.name)
def test_a_session_prints_what_it_says(page: Path) -> None:
    failed, attempted = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert attempted > 10
    assert failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_our_own_files_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    for name in re.findall(r"\b((?:configs|scripts)/[\w/]+\.(?:toml|py))", text):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize(("page", "least"), [("data.md", 26), ("use.md", 13)])
def test_rows_of_tables_name_their_tests(page: str, least: int) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if "`tests/" in line]
    assert len(rows) >= least
    for row in rows:
        file, name = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)[0]
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), row
