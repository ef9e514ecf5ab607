"""``valence cache``: what was computed once and is read again, and clearing it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from valence.cli import console
from valence.cli.options import Json
from valence.cli.tables import print_table

if TYPE_CHECKING:
    from valence.storage.cache import Entry

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Manage cached results.",
)

Kind = Annotated[str | None, typer.Option(help="Only this kind; see valence cache ls.")]


@app.command("ls")
def list_(kind: Kind = None, json: Json = False) -> None:
    """List cached entries and their sizes."""
    from valence.storage import cache

    there = cache.entries()
    names = {*cache.KINDS, *(entry.kind_name for entry in there)}
    if kind is not None and kind not in names:
        from valence.errors import UnknownNameError

        raise UnknownNameError("kind", kind, names)
    shown = [entry for entry in there if kind in (None, entry.kind_name)]
    if json:
        console.print_json(
            [{"kind": e.kind_name, "key": e.key, "bytes": e.size, "used": e.used, **e.about}
             for e in shown]
        )  # fmt: skip
        return
    if kind is None:
        _print_kinds(there)
    else:
        _print_entries(shown)
    limit = cache.limit_bytes()
    total = cache.readable_bytes(sum(entry.size for entry in there))
    most = "no limit" if limit is None else f"limit {cache.readable_bytes(limit)}"
    console.info(
        f"{len(there)} entries, {total}, {most} (VALENCE_CACHE_LIMIT), in {cache.cache_root()}"
    )


@app.command()
def clear(kind: Kind = None) -> None:
    """Delete cached entries, except those that cost money to recompute."""
    from valence.storage import cache

    console.info(f"Freed {cache.readable_bytes(cache.clear(kind))} in {cache.cache_root()}")
    left = cache.entries()
    for name, one in cache.KINDS.items():
        size = sum(entry.size for entry in left if entry.kind_name == name)
        if kind is None and size and not one.recomputable:
            console.info(
                f"Left {cache.readable_bytes(size)} of {one.description}; to delete them: "
                f"valence cache clear --kind {name}"
            )
        elif size and kind in (None, name):
            console.info(
                f"Left {cache.readable_bytes(size)} of {name}: in use, or you may not delete it"
            )


def _print_kinds(entries: Sequence[Entry]) -> None:
    from valence.storage import cache

    rows = []
    for name in dict.fromkeys([*cache.KINDS, *(entry.kind_name for entry in entries)]):
        own = [entry for entry in entries if entry.kind_name == name]
        known = cache.KINDS.get(name)
        rows.append(
            [name, known.description if known else "from another version", str(len(own)),
             cache.readable_bytes(sum(entry.size for entry in own)),
             _time(max(entry.used for entry in own)) if own else "–"]
        )  # fmt: skip
    print_table(["kind", "what", "entries", "size", "last used (UTC)"], rows)


def _print_entries(entries: Sequence[Entry]) -> None:
    from valence.storage import cache

    rows = [
        [entry.kind_name, ", ".join(f"{k} {v}" for k, v in entry.about.items()),
         cache.readable_bytes(entry.size), _time(entry.used)]
        for entry in entries
    ]  # fmt: skip
    print_table(["kind", "what", "size", "last used (UTC)"], rows)


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
