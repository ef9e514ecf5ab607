"""Imports: those of benchmarks and examples are there, and the package has no circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("examples/*.py")])


def test_there_are_files() -> None:
    assert {path.parent.name for path in FILES} == {"benchmarks", "examples"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_imports_are_there(path: Path) -> None:
    missing = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("valence"):
            module = import_module(str(node.module))
            for name in node.names:
                if not hasattr(module, name.name) and not find_spec(f"{node.module}.{name.name}"):
                    missing.append(f"{node.module}.{name.name}")
    assert missing == []


def imported(node: ast.AST) -> Iterator[str]:
    """Modules of Valence that run-time imports below a node name, inside functions too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.ImportFrom) and (child.module or "").startswith("valence"):
            yield from (f"{child.module}.{name.name}" for name in child.names)
        yield from imported(child)


def test_no_import_circle_and_a_small_root() -> None:
    source = ROOT / "src"
    modules = {
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): path
        for path in source.rglob("*.py")
    }
    graph = {}
    for name, path in modules.items():
        names = imported(ast.parse(path.read_text(encoding="utf-8")))
        targets = {n if n in modules else n.rpartition(".")[0] for n in names}
        graph[name] = targets - {name}
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle
    root = {path.stem for path in (source / "valence").glob("*.py")}
    assert root == {"__init__", "__main__", "errors", "estimator"}


def test_functions_and_files_are_short() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, (path, node.name)


KINDS = re.compile(r"\.kind\b|isinstance\([^)]*Model\)")


def test_nothing_asks_for_the_kind_of_a_method_or_model() -> None:
    package = ROOT / "src/valence"
    asking = [
        path for path in package.rglob("*.py")
        if KINDS.search(path.read_text(encoding="utf-8"))
        and path != package / "models/loader.py" and package / "methods" not in path.parents
    ]  # fmt: skip
    assert not asking


def test_a_class_name_stands_for_one_thing() -> None:
    names: list[str] = []
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names += [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []
