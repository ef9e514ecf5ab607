"""Tables on stdout that fit the terminal; what has no room is named, never clipped."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.table import Table

from valence.cli import console
from valence.cli.streams import visible, visible_cell

GAP = 2  # between two columns
NARROWEST_PROSE = 22  # columns of a terminal in which sentences can still be read
LONG_CELL = 30  # a cell that is longer is prose, and is wrapped
LONGEST_TEXT = 160  # characters of a text in a terminal


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    keep: Sequence[str] = (),
    wide: bool | None = None,
    one_of_several: bool = False,
) -> None:
    """Print a table: drawn in a terminal, tab-separated and whole in a pipe.

    In a terminal, columns that do not fit are left out, and a line below names them.

    Args:
        columns: Headings; those of numbers, but for the first, are aligned right.
        rows: Cells as text.
        title: A line above, in a terminal.
        keep: Headings, the one to keep longest first; the others follow in their order. The
            first column is always shown.
        wide: Print all columns, whatever the terminal's width; None where the command has no
            ``--wide``.
        one_of_several: Whether other tables follow, so that in a pipe a first column ``table``
            has the title.
    """
    if not sys.stdout.isatty():
        if one_of_several:
            columns, rows = ["table", *columns], [[title, *row] for row in rows]
        lines = ("\t".join(map(visible_cell, row)) for row in (columns, *rows))
        sys.stdout.write("\n".join(lines) + "\n")
        return
    heads, cells = [visible(name) for name in columns], [[*map(visible, row)] for row in rows]
    widths = [_widest(head, [row[i] for row in cells]) for i, head in enumerate(heads)]
    out = console.out()
    if wide:
        out = console.out(width=max(out.width, sum(widths) + GAP * len(widths)))
    shown = _fitting(list(columns), widths, keep, out.width, wide=bool(wide))
    out.print(_drawn(heads, cells, shown, title, wide=bool(wide)))
    dropped = [head for i, head in enumerate(heads) if i not in shown]
    if dropped:
        how = "show them in a wider window" if wide is None else "show them with --wide"
        words = f"Hidden columns: {', '.join(dropped)} ({how})"
        out.print(words, style="dim", markup=False)


def shorten(text: str, width: int = LONGEST_TEXT) -> str:
    """The text in one line, with an ellipsis where it is cut to ``width`` cells."""
    line = " ".join(text.split())
    return line if cell_len(line) <= width else set_cell_size(line, width - 1).rstrip() + "…"


def is_number(cell: str) -> bool:
    """Whether a cell holds a number, is a dash, or is empty."""
    return not cell or cell[0] in "+-−–<0123456789"


def _widest(head: str, cells: Sequence[str]) -> int:
    return max(cell_len(line) for cell in (head, *cells) for line in cell.split("\n"))


def _fitting(
    columns: list[str], widths: list[int], keep: Sequence[str], available: int, *, wide: bool
) -> list[int]:
    """Places of the columns that fit, in their order; of all where it is ``wide``."""
    if wide:
        return list(range(len(columns)))
    ranked = [columns[0], *keep, *columns]
    order = sorted(range(len(columns)), key=lambda i: ranked.index(columns[i]))
    shown: list[int] = []
    left = available + GAP
    for place in order:
        width = widths[place]
        needed = GAP + (width if width <= LONG_CELL else NARROWEST_PROSE)
        if needed <= left or not shown:
            left -= needed
            shown.append(place)
        elif columns[place] in keep:
            break  # nothing that matters less is shown in its place
    return sorted(shown)


def _drawn(
    heads: list[str], cells: list[list[str]], shown: list[int], title: str, *, wide: bool
) -> Table:
    table = Table(
        title=title or None, title_justify="left", title_style="bold", header_style="bold",
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for i in shown:
        own = [row[i] for row in cells]
        prose = _widest(heads[i], own) > LONG_CELL and not wide
        table.add_column(
            heads[i], justify="right" if i and all(map(is_number, own)) else "left",
            overflow="fold", no_wrap=not prose,
        )  # fmt: skip
    for row in cells:
        table.add_row(*(row[i] for i in shown))
    return table
