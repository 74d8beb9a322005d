"""What users get: a wheel that holds all, imports that are quick, an API that is typed."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sppdet"
# Each takes a tenth of a second or more to import, and a detection needs none of them.
HEAVY = {
    "torchvision", "torch._dynamo", "sympy", "sklearn", "matplotlib", "pandas", "pycocotools",
    "rich", "typer", "jinja2", "scipy.sparse", "scipy.stats",
}  # fmt: skip


def _run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)


def test_a_detector_is_loaded_without_what_it_does_not_need() -> None:
    program = (
        "import json, sys, sppdet\n"
        "light = sorted({'torch', 'numba', 'cv2'} & set(sys.modules))\n"
        "sppdet.Detector.load()\n"
        f"print(json.dumps([light, sorted({sorted(HEAVY)!r} and set({sorted(HEAVY)!r}) "
        "& set(sys.modules))]))"
    )
    done = _run(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], []]


def test_the_package_is_a_command_and_has_a_version() -> None:
    program = "import sppdet; print(sppdet.__version__)"
    version = _run(sys.executable, "-c", program).stdout.strip()
    told = _run(sys.executable, "-m", "sppdet", "--version").stdout.strip()
    assert version
    assert told == f"sppdet {version}"


def _python_files() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "cli"]


def test_only_the_command_prints() -> None:
    """Libraries log: where their words go is for the program to say that uses them."""
    found = []
    for path in _python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names = [node.func.id] if node.func.id == "print" else []
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found += [
                (path, n) for n in names if n == "print" or n.split(".")[0] in ("rich", "typer")
            ]
    assert not found


def test_the_public_api_is_typed(tmp_path: Path) -> None:
    client = ROOT / "tests" / "public_client" / "client.py"
    known = ROOT / ".mypy_cache"  # `make types` leaves it: reading torch anew takes a minute
    cache = known if known.is_dir() else tmp_path
    done = _run(sys.executable, "-m", "mypy", "--strict", "--cache-dir", cache, client)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built as it is published; from a copy, for building leaves files behind."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("no setuptools to build with")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(PACKAGE, source / "sppdet", ignore=shutil.ignore_patterns("__pycache__"))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    done = _run(*pip, "wheel", *options, "--wheel-dir", out, source)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = out.glob("*.whl")
    return found


def test_the_wheel_holds_all_that_is_in_the_package(wheel: Path) -> None:
    """Code, models, presets, templates, fonts and `py.typed`: whatever lies there."""
    here = {
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("sppdet/")}
    assert inside == here
    assert {"sppdet/py.typed", "sppdet/detection/models/default.safetensors"} <= inside


def test_the_wheel_works_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    done = _run(*pip, "install", "--no-deps", "--no-index", "--target", target, wheel)
    assert done.returncode == 0, done.stderr
    program = (
        "import os; os.chdir('/')\n"
        "import sppdet\n"
        "from sppdet.detection.model_zoo import list_models, list_presets\n"
        "models = [one.name for one in list_models()]\n"
        "print(sppdet.__file__, len(models), len(list_presets()), sppdet.__version__)"
    )
    done = _run(sys.executable, "-c", program, PYTHONPATH=str(target))
    assert done.returncode == 0, done.stderr
    place, models, presets, version = done.stdout.split()
    assert Path(place).is_relative_to(target)
    assert int(models) == len(list((PACKAGE / "detection" / "models").glob("*.safetensors")))
    assert int(presets) == len(list((PACKAGE / "detection" / "models" / "presets").glob("*.toml")))
    assert wheel.name.startswith(f"sppdet-{version}-")
    assert not list(target.rglob("*.nb[ci]"))
