"""One door to what transformers and pickles load: no code of a folder runs, nothing is asked."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.conftest import ROOT

PACKAGE = ROOT / "src" / "valence"
DOOR = "data/pretrained.py"
CALLS = {"from_pretrained", "from_config", "pipeline", "AutoModel", "SentenceTransformer"}


def calls(path: Path) -> list[str]:
    """Names of the functions that a module calls."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    functions = [node.func for node in nodes if isinstance(node, ast.Call)]
    return [
        one.attr if isinstance(one, ast.Attribute) else getattr(one, "id", "") for one in functions
    ]


def test_nobody_else_calls_from_pretrained() -> None:
    modules = {p.relative_to(PACKAGE).as_posix(): p for p in sorted(PACKAGE.rglob("*.py"))}
    wrong = {
        name for name, path in modules.items() if name != DOOR and CALLS & set(calls(path))
    }  # fmt: skip
    assert wrong == set()
    assert "from_pretrained" in calls(modules[DOOR])


def test_no_code_is_trusted_and_no_pickle_of_weights_is_read() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("torch", "load"), path
                assert (node.value.id, node.attr) != ("joblib", "load"), path


def test_every_door_is_of_safetensors() -> None:
    """A network's ``from_pretrained`` has ``use_safetensors=True``; tokenizers have no weights."""
    tree = ast.parse((PACKAGE / DOOR).read_text(encoding="utf-8"))
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    names = {
        keyword.arg for node in ast.walk(functions["load_network"]) if isinstance(node, ast.Call)
        for keyword in node.keywords
    }  # fmt: skip
    assert {"use_safetensors", "trust_remote_code"} <= names
