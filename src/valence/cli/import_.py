"""``valence data import``: rows of any source into a database."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from valence.cli import console
from valence.cli.compare import DataDir, Json, LabelColumn, Quiet, TextColumn
from valence.errors import SpecError

if TYPE_CHECKING:
    from valence.data.sql import ImportReport, Progress


def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A file, folder of splits, card, hub id, or kaggle:owner/dataset (or …/file)."
        ),
    ],
    to: Annotated[
        str,
        typer.Option(help="Database: sqlite:///tweets.db, postgresql://me:${PGPASSWORD}@host/db"),
    ],
    table: Annotated[str, typer.Option(help="Table; made if it is not there.")] = "texts",
    clean: Annotated[
        str, typer.Option(help="default, none, or cleaners: urls,mentions,lemmas.")
    ] = "default",
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split to store a file's rows under; of several splits the one to take."),
    ] = None,
    label_map: Annotated[
        str | None, typer.Option(help="0=negative,4=positive; other labels are left out.")
    ] = None,
    batch_rows: Annotated[
        int, typer.Option(help="Rows at once, each time a transaction.")
    ] = 10_000,
    data_dir: DataDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Copy rows into a database, cleaned beside the original.

    The same command completes an import that was cut off; rows that are there are not added
    again and keep their cleaned text. Cleaners: html, urls, mentions, hashtags, whitespace
    (these are default), contractions, negation, digits, punctuation, stop-words, lemmas.
    """
    from valence.data.sql import ImportOptions, import_rows
    from valence.data.text import parse_cleaners

    options = ImportOptions(
        table=table, clean=parse_cleaners(clean), text_column=text_column,
        label_column=label_column, split=split, label_map=_label_map(label_map),
        batch_rows=batch_rows,
    )  # fmt: skip
    with _rows_told(quiet) as told:
        report = import_rows(source, to, options=options, data_dir=data_dir, progress=told)
    if json:
        console.print_json(asdict(report))
    else:
        console.print_table(["import", "rows"], _lines(report))
    if not quiet:
        name = "" if table == "texts" else f" --table {table}"
        console.say(f"Use it: valence train '{to}'{name} --out model")


def _lines(report: ImportReport) -> list[list[str]]:
    lines = [
        ["read", report.read], ["added", report.added], ["there already", report.present],
        *([f"left out: {reason}", count] for reason, count in report.left_out.items() if count),
    ]  # fmt: skip
    if report.mended:
        lines.append(["with NUL or broken characters mended", report.mended])
    return [[str(name), str(count)] for name, count in lines]


def _label_map(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not pairs or not all(sign and old.strip() and new.strip() for old, sign, new in pairs):
        raise SpecError(f"Label map {text!r} is not understood; write it as 0=negative,4=positive")
    return {old.strip(): new.strip() for old, _, new in pairs}


@contextmanager
def _rows_told(quiet: bool) -> Iterator[Progress | None]:
    """Rows done so far: a line that moves in a terminal, sparse lines elsewhere."""
    if quiet:
        yield None
        return
    start = last = time.monotonic()
    terminal = sys.stderr.isatty()
    with console.log().status("reading") as status:

        def told(rows: int) -> None:
            nonlocal last
            now = time.monotonic()
            words = f"{rows:,} rows, {rows / max(now - start, 1e-3):,.0f} a second"
            if terminal:
                status.update(words)
            elif now - last > console.QUIET_SECONDS:
                last = now
                console.say(words)

        yield told
