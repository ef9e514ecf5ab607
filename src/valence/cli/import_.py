"""``valence data import``: rows of any source into a database."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from valence.cli import console
from valence.cli.options import OptionGroup, OutputOptions, RowOptions, with_groups
from valence.cli.tables import print_table
from valence.errors import SpecError

if TYPE_CHECKING:
    from valence.data.sql import ImportOptions, ImportReport, Progress


@dataclass(frozen=True, kw_only=True)
class ImportedData(RowOptions):
    """The rows that are imported; ``--table`` is where they go."""

    data: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="File, folder of splits, corpus name, hub id, kaggle:owner/dataset (or …/file) "
            "or database URL.",
        ),
    ]
    table: Annotated[
        str | None,
        typer.Option("--from-table", help="Table to read, if the database has several."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class StoringOptions(OptionGroup):
    """Which rows are stored, and how."""

    to_table: Annotated[
        str, typer.Option("--table", help="Table to write; created if missing.")
    ] = "texts"
    clean: Annotated[str, typer.Option(help="default, none, or a list: urls,mentions,lemmas.")] = (
        "default"
    )
    split: Annotated[
        str | None,
        typer.Option(help="Split of the rows; if DATA has several, the one to import."),
    ] = None
    label_map: Annotated[
        str | None, typer.Option(help="Rename labels: 0=negative,4=positive; others are dropped.")
    ] = None
    batch_rows: Annotated[int, typer.Option(help="Rows per transaction.")] = 10_000

    def options(self) -> ImportOptions:
        """The same as the importer takes it.

        Raises:
            SpecError: if the label map is not understood.
            UnknownNameError: if a cleaner is unknown.
        """
        from valence.data.sql import ImportOptions
        from valence.data.text import parse_cleaners

        return ImportOptions(
            table=self.to_table, clean=parse_cleaners(self.clean), split=self.split,
            label_map=_label_map(self.label_map), batch_rows=self.batch_rows,
        )  # fmt: skip


@with_groups
def import_(
    data: ImportedData,
    to: Annotated[
        str,
        typer.Option(help="Database: sqlite:///tweets.db, postgresql://me:${PGPASSWORD}@host/db"),
    ],
    storing: StoringOptions,
    output: OutputOptions,
) -> None:
    """Import rows into a database and clean their texts.

    The original text is stored, too. Run the same command again to resume; no row is added twice.
    Cleaners: html, urls, mentions, hashtags, whitespace
    (the default), contractions, negation, digits, punctuation, stop-words, lemmas.
    """
    from valence.data.sql import import_rows

    options = storing.options()
    data.refuse_other_settings("data")
    with _row_progress(quiet=output.quiet) as progress:
        report = import_rows(
            data.spec(data.data), to, options=options, data_dir=data.data_dir, progress=progress
        )
    if output.json:
        console.print_json(asdict(report))
    else:
        print_table(["import", "rows"], _lines(report))
    if not output.quiet:
        name = "" if storing.to_table == "texts" else f" --table {storing.to_table}"
        console.info(f"Use it: valence train '{to}'{name} --out model")


def _lines(report: ImportReport) -> list[list[str]]:
    lines = [
        ["read", report.read], ["added", report.added], ["there already", report.present],
        *([f"skipped: {reason}", count] for reason, count in report.left_out.items() if count),
    ]  # fmt: skip
    if report.mended:
        lines.append(["with repaired characters", report.mended])
    return [[str(name), str(count)] for name, count in lines]


def _label_map(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not pairs or not all(sign and old.strip() and new.strip() for old, sign, new in pairs):
        raise SpecError(f"Label map {text!r} is invalid; write 0=negative,4=positive")
    return {old.strip(): new.strip() for old, _, new in pairs}


@contextmanager
def _row_progress(*, quiet: bool) -> Iterator[Progress | None]:
    """Rows done so far: a line that moves in a terminal, sparse lines elsewhere."""
    if quiet:
        yield None
        return
    start = last = time.monotonic()
    terminal = sys.stderr.isatty()
    with console.log().status("reading") as status:

        def show(rows: int) -> None:
            nonlocal last
            now = time.monotonic()
            words = f"{rows:,} rows, {rows / max(now - start, 1e-3):,.0f} a second"
            if terminal:
                status.update(words)
            elif now - last > console.QUIET_SECONDS:
                last = now
                console.info(words)

        yield show
