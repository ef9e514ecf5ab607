"""What ``valence compare`` and ``valence llm classify`` print and write of their runs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from valence.cli import console
from valence.cli.options import TableOptions
from valence.cli.tables import print_table

if TYPE_CHECKING:
    import pandas as pd

    from valence.comparison.grid import Cell, Comparison
    from valence.comparison.sweep import Sweep
    from valence.runs.store import RunResult, RunStore


def report_comparison(
    comparison: Comparison,
    results: list[RunResult],
    store: RunStore,
    out: Path,
    output: TableOptions,
    *,
    sweep: Sweep | None = None,
    failures: Sequence[Cell] = (),
) -> None:
    """Print and write what came out; nothing where there is no result."""
    if not results:
        return
    from valence.reports.leaderboard import leaderboard

    baseline = comparison.baseline
    if comparison.transfer == "none":
        table = leaderboard(store, results, baseline)
        print_leaderboard(table, output, title=comparison.title)
    notes = _report_groups(results, out, comparison, output)
    page = write_comparison(comparison, results, store, out, sweep=sweep, failures=failures)
    if not output.quiet:
        for note in notes:
            console.info(f"Note: {note}")
        console.info(f"Report: {page}")


def write_comparison(
    comparison: Comparison,
    results: list[RunResult],
    store: RunStore,
    out: Path,
    *,
    sweep: Sweep | None = None,
    failures: Sequence[Cell] = (),
) -> Path:
    """Write the tables and the page of what came out; gives the page."""
    from valence.reports.files import write_tables
    from valence.reports.html import FailedRun, PageText, Published, write_report

    baseline = comparison.baseline
    if comparison.transfer == "none":
        write_tables(store, results, out, baseline=baseline, sweep=sweep)
    text = PageText(
        comparison.title, Published(comparison.published, comparison.published_for),
        shlex.join(["valence", *sys.argv[1:]]),
        [FailedRun(cell_name(cell), cell.error) for cell in failures],
    )  # fmt: skip
    return write_report(
        store, results, out / "report.html", baseline=baseline, sweep=sweep, text=text
    )


def print_leaderboard(table: pd.DataFrame, output: TableOptions, *, title: str) -> None:
    """A leaderboard as JSON, or as one table for each kind of target."""
    from valence.reports.leaderboard import (
        by_target,
        json_rows,
        leaderboard_columns,
        leaderboard_priority,
    )

    if output.json:
        console.print_json(json_rows(table))
        return
    for part in by_target(table):
        columns, rows = leaderboard_columns(part)
        print_table(columns, rows, title=title, keep=leaderboard_priority(part), wide=output.wide)


def print_difference(before: Path, after: Path, output: TableOptions) -> None:
    """What changed from one report folder to another, as JSON or a table.

    Raises:
        DataError: if one of them is no report folder.
    """
    from valence.reports.difference import COLUMNS, difference_rows, report_difference

    records = report_difference(before, after)
    if output.json:
        console.print_json(records)
        return
    keep = ["method", "change [95%]", "verdict", "before", "after"]
    print_table(COLUMNS, difference_rows(records), keep=keep, wide=output.wide)


def cell_name(cell: Cell) -> str:
    """Which run a cell is, for messages."""
    return f"{cell.spec.method} seed {cell.spec.seed}"


def _report_groups(
    results: list[RunResult], out: Path, comparison: Comparison, output: TableOptions
) -> list[str]:
    """Write the tables over groups, and print those of a transfer; what is to be noted."""
    from valence.reports.groups import write_group_tables
    from valence.reports.leaderboard import json_rows
    from valence.reports.transfer import (
        leave_one_out_columns,
        transfer_columns,
        transfer_table,
        write_transfer,
    )

    notes = write_group_tables(results, out)
    if comparison.transfer != "none":
        table = transfer_table(results)
        notes += write_transfer(results, out)
        if output.json:
            console.print_json(json_rows(table))
        left_out = comparison.transfer == "leave-one-out"
        columns_of = leave_one_out_columns if left_out else transfer_columns
        parts = [] if output.json else [*table.groupby(["setup", "name"], sort=False)]
        for (setup, name), own in parts:
            print_table(
                *columns_of(own), title=f"{setup}, {name}", wide=output.wide,
                one_of_several=len(parts) > 1,
            )  # fmt: skip
    return list(dict.fromkeys(notes))
