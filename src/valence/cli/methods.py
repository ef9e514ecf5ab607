"""``valence methods``."""

from __future__ import annotations

from valence.cli import console
from valence.cli.options import Json


def methods(json: Json = False) -> None:
    """List every method."""
    from valence.methods.registry import LLM_METHODS, METHODS

    known = METHODS | LLM_METHODS
    if json:
        console.print_json(
            {n: {"title": m.title, "kind": m.kind, "paper": m.paper} for n, m in known.items()}
        )
        return
    rows = [[name, method.kind, method.title, method.paper] for name, method in known.items()]
    console.print_table(["method", "kind", "what it is", "paper"], rows)
