"""What ``valence compare`` and ``valence llm classify`` print and write of their runs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from valence.cli import console

if TYPE_CHECKING:
    from valence.comparison.grid import Comparison, Outcome
    from valence.runs.store import RunStore


def report_comparison(
    comparison: Comparison,
    outcome: Outcome,
    store: RunStore,
    out: Path,
    *,
    as_json: bool,
    quiet: bool = False,
) -> None:
    """Print the leaderboard, and write the page and the tables of a comparison into a folder."""
    if not outcome.results:
        return
    from valence.reports.html import Published, write_report
    from valence.reports.tables import (
        by_target,
        leaderboard,
        leaderboard_columns,
        unswept,
        write_tables,
    )

    baseline = comparison.baseline
    if comparison.transfer == "none":
        table = leaderboard(store, unswept(outcome.results, comparison.sweep), baseline)
        if as_json:
            console.print_json(table.to_dict(orient="records"))
        else:
            for part in by_target(table):
                columns, rows = leaderboard_columns(part)
                console.print_table(columns, rows, title=comparison.title)
        write_tables(store, outcome.results, out, baseline=baseline, axes=comparison.sweep or None)
    notes = _report_groups(outcome, out, comparison, as_json=as_json)
    page = write_report(
        store, outcome.results, out / "report.html", baseline=baseline,
        axes=comparison.sweep or None, title=comparison.title,
        published=Published(comparison.published, comparison.published_for),
        command=shlex.join(["valence", *sys.argv[1:]]),
    )  # fmt: skip
    if not quiet:
        for note in notes:
            console.info(f"Note: {note}")
        console.info(f"Report: {page}")


def _report_groups(
    outcome: Outcome, out: Path, comparison: Comparison, *, as_json: bool
) -> list[str]:
    """Write the tables over groups, and print those of a transfer; what is to be noted."""
    from valence.reports.groups import write_group_tables
    from valence.reports.tables import unswept
    from valence.reports.transfer import (
        leave_one_out_columns,
        transfer_columns,
        transfer_table,
        write_transfer,
    )

    plain = unswept(outcome.results, comparison.sweep)
    notes = write_group_tables(plain, out)
    if comparison.transfer != "none":
        table = transfer_table(plain)
        notes += write_transfer(plain, out)
        if as_json:
            console.print_json(table.to_dict(orient="records"))
        left_out = comparison.transfer == "leave-one-out"
        columns_of = leave_one_out_columns if left_out else transfer_columns
        for (setup, method), own in table.groupby(["setup", "method"], sort=False):
            if not as_json:
                console.print_table(*columns_of(own), title=f"{setup}, {method}")
    return list(dict.fromkeys(notes))
