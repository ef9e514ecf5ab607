"""What ``valence compare`` and ``valence llm classify`` print and write of their runs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from valence.cli import console

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
    *,
    sweep: Sweep | None = None,
    failures: Sequence[Cell] = (),
    as_json: bool = False,
    quiet: bool = False,
) -> None:
    """Print and write what came out; nothing where there is no result."""
    if not results:
        return
    from valence.reports.leaderboard import leaderboard

    baseline = comparison.baseline
    if comparison.transfer == "none":
        table = leaderboard(store, results, baseline)
        print_leaderboard(table, title=comparison.title, as_json=as_json)
    notes = _report_groups(results, out, comparison, as_json=as_json)
    page = write_comparison(comparison, results, store, out, sweep=sweep, failures=failures)
    if not quiet:
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


def print_leaderboard(table: pd.DataFrame, *, title: str, as_json: bool) -> None:
    """A leaderboard as JSON, or as one table for each kind of target."""
    from valence.reports.leaderboard import by_target, json_rows, leaderboard_columns

    if as_json:
        console.print_json(json_rows(table))
        return
    for part in by_target(table):
        columns, rows = leaderboard_columns(part)
        console.print_table(columns, rows, title=title)


def cell_name(cell: Cell) -> str:
    """Which run a cell is, for messages."""
    return f"{cell.spec.method} seed {cell.spec.seed}"


def _report_groups(
    results: list[RunResult], out: Path, comparison: Comparison, *, as_json: bool
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
        if as_json:
            console.print_json(json_rows(table))
        left_out = comparison.transfer == "leave-one-out"
        columns_of = leave_one_out_columns if left_out else transfer_columns
        for (setup, name), own in table.groupby(["setup", "name"], sort=False):
            if not as_json:
                console.print_table(*columns_of(own), title=f"{setup}, {name}")
    return list(dict.fromkeys(notes))
