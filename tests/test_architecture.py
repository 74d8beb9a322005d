"""The rules that no single module can keep: one way of imports, nothing unpickled, no machine."""

from __future__ import annotations

import ast
import re
import socket
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sppdet"

# From the bottom up. A folder imports from lines below its own only, and from itself.
LAYERS = (
    ("core",),
    ("media",),
    ("datasets", "proposals", "backbones"),
    ("evaluation", "spp"),
    ("heads",),
    ("detection",),
    ("outputs", "reports"),
    ("training", "classification"),
    ("cli",),
)
RANK = {folder: rank for rank, line in enumerate(LAYERS) for folder in line}
# Detections may come from anywhere: evaluation knows nothing of how they came about. Whole images
# are classified without any of the detector.
ALLOWED = {
    "evaluation": {"core", "datasets"},
    "classification": set(RANK) - {"detection", "training"},
}

UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
MACHINE = re.compile(
    r"/(?:work|root|opt|tmp)/[a-z]|/home/\w|/Users/\w|[A-Z]:\\\\Users|pythonhosted|pypi\.(?:org|python)"
)
MAX_LINES = {"sppdet": 300, "scripts": 350}
MAX_FILES = 15
# Words of other times, for which there are the field's own.
OLD_WORDS = re.compile(
    r"judg|second.look|partner|squeeze|recolou?r|altered|\btaps\b|\bmend\b", re.IGNORECASE
)
SPOKEN = ("sppdet", "scripts", "docs", "configs", "README.md", "CONTRIBUTING.md")


def _sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(path): path for path in _sources("sppdet")}


def _imported(path: Path) -> Iterator[str]:
    """Our own modules that a file imports anywhere, also inside functions."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield name if name in MODULES else base
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _ours(path: Path) -> set[str]:
    return {name for name in _imported(path) if name.split(".")[0] == "sppdet"}


def _folder(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def test_the_rules_see_the_package() -> None:
    assert len(MODULES) > 100
    assert {_folder(module) for module in MODULES} == {"", "__main__", *RANK}
    assert "sppdet.core.boxes" in _ours(PACKAGE / "heads" / "box_regression.py")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_downwards(module: str) -> None:
    folder = _folder(module)
    if folder in ("", "__main__"):
        return
    for other in _ours(MODULES[module]):
        target = _folder(other)
        assert target, f"{module} imports the package as a whole"
        if target == folder:
            continue
        assert RANK[target] < RANK[folder], f"{module} imports {other}, which is not below it"
        assert target in ALLOWED.get(folder, RANK), f"{module} may not know {other}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: _ours(path) & MODULES.keys() for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way, name))
        if name not in done:
            for other in sorted(graph[name] - {name}):
                visit(other, (*way, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def _called(node: ast.Call) -> tuple[str, str]:
    """What is called, as (owner, name): `np.load` is ("np", "load"), `eval` is ("", "eval")."""
    if isinstance(node.func, ast.Name):
        return "", node.func.id
    if isinstance(node.func, ast.Attribute):
        return ast.unparse(node.func.value), node.func.attr
    return "", ""


def _keyword(node: ast.Call, name: str) -> object:
    for keyword in node.keywords:
        if keyword.arg == name and isinstance(keyword.value, ast.Constant):
            return keyword.value.value
    return None


def _unsafe(tree: ast.Module) -> Iterator[str]:
    """Every way in which code in a data file could come to run."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
            )
            yield from (f"imports {n}" for n in names if n.split(".")[0] in UNSAFE_MODULES)
        if not isinstance(node, ast.Call):
            continue
        owner, name = _called(node)
        if owner in ("", "builtins") and name in ("eval", "exec", "__import__"):
            yield f"calls {name}"
        named = {keyword.arg for keyword in node.keywords}
        if "allow_pickle" in named and _keyword(node, "allow_pickle") is not False:
            yield "allows pickles"
        if owner == "torch" and name == "load" and _keyword(node, "weights_only") is not True:
            yield "torch.load without weights_only=True"
        if name in ("read_pickle", "loads_pickle"):
            yield f"calls {name}"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "def f():\n    import yaml",
        "eval('1')",
        "builtins.exec('1')",
        "np.load(p, allow_pickle=True)",
        "np.load(p, allow_pickle=flag)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
    ],
)
def test_unsafe_code_would_be_seen(code: str) -> None:
    assert list(_unsafe(ast.parse(code)))


def test_nothing_is_unpickled_or_evaluated() -> None:
    safe = "model.eval()\nnp.load(p, allow_pickle=False)\ntorch.load(p, weights_only=True)"
    assert not list(_unsafe(ast.parse(safe)))
    found = [
        f"{path.relative_to(ROOT)}: {problem}"
        for path in _sources("sppdet", "scripts")
        for problem in _unsafe(_tree(path))
    ]
    assert not found


def test_modules_stay_short() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for folder, most in MAX_LINES.items()
        for path in _sources(folder)
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > most
    }
    assert not long


def test_folders_stay_small() -> None:
    large = {
        name: count
        for name in ("", *RANK)
        if (count := len(list((PACKAGE / name).glob("*.py")))) > MAX_FILES
    }
    assert not large


def _is_plain(node: ast.stmt) -> bool:
    """Tell whether a statement is an import, a docstring or the list of public names."""
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets] == ["__all__"]
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_text or isinstance(node, ast.Import | ast.ImportFrom)


@pytest.mark.parametrize("folder", sorted(RANK))
def test_what_a_folder_offers_is_a_list_and_no_logic(folder: str) -> None:
    tree = _tree(PACKAGE / folder / "__init__.py")
    assert ast.get_docstring(tree)
    assert not [ast.unparse(node) for node in tree.body if not _is_plain(node)]


def _tracked() -> list[Path]:
    """The project's own files, those not yet committed included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        out = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in out.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def _lines(paths: Iterable[Path]) -> Iterator[tuple[Path, int, str]]:
    """Lines of text files: path from the project's root, number, text."""
    for path in paths:
        data = path.read_bytes()
        if b"\0" not in data:
            for number, line in enumerate(data.decode("utf-8").splitlines(), 1):
                yield path.relative_to(ROOT), number, line


def _may_name_shared(path: Path) -> bool:
    return path.parts[0] == "tests" or path.parts[:2] == ("scripts", "benchmarks")


def test_no_file_names_a_machine() -> None:
    found = [
        f"{path}:{number}: {line.strip()[:80]}"
        for path, number, line in _lines(set(_tracked()) - {Path(__file__)})
        if MACHINE.search(line) or ("../shared" in line and not _may_name_shared(path))
    ]
    assert not found, "\n".join(sorted(found))


def test_the_words_are_those_of_the_field() -> None:
    assert OLD_WORDS.search("It judges.")
    assert not OLD_WORDS.search("We recommend maps.")
    spoken = [path for path in _tracked() if path.relative_to(ROOT).parts[0] in SPOKEN]
    found = [
        f"{path}:{number}: {line.strip()[:80]}"
        for path, number, line in _lines(spoken)
        if OLD_WORDS.search(line) or OLD_WORDS.search(path.name)
    ]
    assert not found, "\n".join(found)


def test_tests_cannot_reach_the_network() -> None:
    with pytest.raises(RuntimeError, match="network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(RuntimeError, match="network"):
        socket.create_connection(("example.invalid", 80), timeout=1)
