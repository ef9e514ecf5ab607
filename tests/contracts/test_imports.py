"""What benchmarks and examples import of Valence is there, inside their functions too."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("examples/*.py")])


def test_there_are_files() -> None:
    assert {path.parent.name for path in FILES} == {"benchmarks", "examples"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_imports_are_there(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("valence"):
            module = import_module(str(node.module))
            for name in node.names:
                if not hasattr(module, name.name):
                    import_module(f"{node.module}.{name.name}")
