"""``valence methods``."""

from __future__ import annotations

from valence.cli import console
from valence.cli.options import Json


def methods(json: Json = False) -> None:
    """List every method."""
    from valence.methods.registry import METHODS

    if json:
        console.print_json(
            {
                n: {"title": m.title, "family": m.family, "paper": m.paper}
                for n, m in METHODS.items()
            }
        )
        return
    rows = [[name, method.family, method.title, method.paper] for name, method in METHODS.items()]
    console.print_table(["method", "family", "what it is", "paper"], rows)
