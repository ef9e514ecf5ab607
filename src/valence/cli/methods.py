"""``valence methods``."""

from __future__ import annotations

from valence.cli import console
from valence.cli.options import Json
from valence.cli.tables import print_table


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
    print_table(["method", "family", "description", "paper"], rows)
