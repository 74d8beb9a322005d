"""Versions of packages, as model files and `--version` tell them."""

from __future__ import annotations

import re

import torch

from sppdet.core.versions import NOT_INSTALLED, installed, versions


def test_the_software_is_told_by_its_versions() -> None:
    told = versions()
    assert told["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", told["sppdet"])


def test_code_that_is_not_installed_has_no_version_and_is_no_error() -> None:
    assert installed("no-such-package") == NOT_INSTALLED
