"""``valence cache``: what was computed once and kept, and clearing it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from valence.cli import console
from valence.cli.options import Json

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="What was computed once and kept: list, clear.",
)

Kind = Annotated[str | None, typer.Option(help="views or states; all when not given.")]


@app.command("ls")
def list_(json: Json = False) -> None:
    """List what is kept: second views of texts, token states of frozen encoders."""
    from valence.storage import cache

    found = cache.entries()
    if json:
        console.print_json(
            [{"kind": e.kind, "key": e.key, "bytes": e.size, "used": e.used, **e.about}
             for e in found]
        )  # fmt: skip
        return
    rows = [
        [entry.kind, ", ".join(f"{k} {v}" for k, v in entry.about.items()), size(entry.size),
         f"{datetime.fromtimestamp(entry.used, UTC):%Y-%m-%d %H:%M}"]
        for entry in found
    ]  # fmt: skip
    console.print_table(["kind", "what", "size", "last used (UTC)"], rows)
    total = size(sum(entry.size for entry in found))
    console.info(f"{len(found)} entries, {total}, in {cache.cache_root()}")


@app.command()
def clear(kind: Kind = None) -> None:
    """Delete what is kept; it is computed again when it is needed."""
    from valence.storage import cache

    known = {entry.kind for entry in cache.entries()}
    known |= {"views", "states", "pooled"}
    if kind is not None and kind not in known:
        from valence.errors import UnknownNameError

        raise UnknownNameError("kind", kind, known)
    console.info(f"Freed {size(cache.clear(kind))} in {cache.cache_root()}")


def size(count: int) -> str:
    """``1536`` → ``1.5 KiB``."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
