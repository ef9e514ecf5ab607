"""What ``valence fit`` says of its result, in plain lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from valence.config.duration import duration

if TYPE_CHECKING:
    from valence.comparison.best_model import BestModel
    from valence.comparison.bootstrap import Difference

COLUMNS = ["model", "macro-F1 (out of fold)", "in the mean", "time"]
"""Of :func:`portfolio_cells`."""


def row_lines(best: BestModel) -> Iterator[str]:
    """Notes, and what the rows look like."""
    for note in best.result.notes:
        yield f"Note: {note}"
    for line in best.check.lines():
        yield f"Rows: {line}"


def portfolio_cells(best: BestModel) -> list[list[str]]:
    """One row per model that was tried, under :data:`COLUMNS`."""
    return [
        [str(row["model"]), f"{row['expected_macro_f1']:.3f}",
         f"{row['share']:.0%}" if row["share"] else "", duration(row["seconds"])]
        for row in best.portfolio.to_dict("records")
    ]  # fmt: skip


def score_lines(best: BestModel) -> Iterator[str]:
    """How good it is, how sure that is, and what would help most."""
    tested = best.result.sizes["test"]
    yield f"Macro-F1 {interval(best.score)} on {tested} test rows"
    over = interval(best.over_floor, signed=True)
    sure = f"Compared with always predicting the largest class: {over}"
    if best.over_next is not None:
        sure += f"; against {best.next_name}: {interval(best.over_next, signed=True)}"
    yield sure
    yield f"What would help most: {best.advice}"


def report_text(best: BestModel) -> str:
    """All of it, with the table in columns."""
    table = [COLUMNS, *portfolio_cells(best)]
    widths = [max(len(row[place]) for row in table) for place in range(len(COLUMNS))]
    aligned = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    return "\n".join([*row_lines(best), *aligned, *score_lines(best)])


def interval(difference: Difference, *, signed: bool = False) -> str:
    """A number with its 95% interval.

    Args:
        difference: The number.
        signed: Whether it has a sign, as a difference has.
    """
    if difference.value is None or difference.low is None or difference.high is None:
        return "unknown (a class is missing in the test rows)"
    form = "{:+.3f}" if signed else "{:.3f}"
    value, low, high = map(form.format, (difference.value, difference.low, difference.high))
    return f"{value} (95% interval {low} to {high})"
