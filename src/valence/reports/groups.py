"""Tables over groups of test rows (languages, domains): methods × groups, the best marked."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from valence.comparison.settings import setting_names
from valence.evaluation.classification import METRICS
from valence.reports.tables import by_setup, mean_sd
from valence.runs.store import RunResult
from valence.storage import atomic

GROUP_METRICS = ("macro_f1", "micro_f1", "weighted_f1", "accuracy")
TITLES = {**{name: METRICS[name].title for name in METRICS}, "micro_f1": "micro-F1"}
AVERAGE = "mean"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f]")
XLSX_NOTE = "no .xlsx was written; install the extra: pip install 'valence[xlsx]'"


@dataclass(frozen=True)
class PivotTable:
    """Methods × groups under one metric, as a person reads it.

    Attributes:
        heads: Headings; the first is the method's.
        rows: Cells as text.
        best: The same shape; whether a cell is the best of its column.
    """

    heads: list[str]
    rows: list[list[str]]
    best: list[list[bool]]


def groups_table(results: Sequence[RunResult]) -> pd.DataFrame:
    """One row per set-up, setting and group: mean and spread over seeds of every score.

    Args:
        results: Runs; those without groups, and those of a transfer, are left out.

    Returns:
        setup, group_column, method, name (the method, with the settings in which its rows
        differ), group, rows, seeds, then ``<score>_mean`` and ``<score>_sd``. The group
        ``mean`` is the plain mean over groups, seed by seed.
    """
    rows = []
    grouped = [r for r in results if r.groups and r.spec.data.train_groups is None]
    for label, group in by_setup(grouped).items():
        setting_of = setting_names(group)
        for result in group:
            place = {"setup": label, "group_column": result.group, "method": result.spec.method,
                     "name": setting_of[result.key]}  # fmt: skip
            scores = pd.DataFrame(result.groups).T.astype(float)
            scores.loc[AVERAGE] = scores.mean()
            scores.loc[AVERAGE, "rows"] = scores["rows"].iloc[:-1].sum()
            named = scores.rename_axis("group").reset_index()
            rows.append(named.assign(**place, seed=result.spec.seed))
    if not rows:
        return pd.DataFrame()
    table = pd.concat(rows, ignore_index=True)
    keys = ["setup", "group_column", "method", "name", "group"]
    by_key = table.groupby(keys, sort=False)
    sizes = by_key.agg(rows=("rows", "first"), seeds=("seed", "nunique"))
    names = [n for n in table.columns if n not in {*keys, "rows", "seed"}]
    parts = [sizes.astype({"rows": int})]
    for name in names:
        scores_of = by_key[name]
        parts.append(
            pd.DataFrame({f"{name}_mean": scores_of.mean(), f"{name}_sd": scores_of.std()})
        )
    return pd.concat(parts, axis=1).reset_index()


def group_pivot(table: pd.DataFrame, metric: str = "macro_f1") -> PivotTable:
    """Methods × groups of one set-up of :func:`groups_table`, the best method on top.

    Args:
        table: The rows of one set-up.
        metric: The score that is shown.
    """
    means = table.pivot_table(index="name", columns="group", values=f"{metric}_mean", sort=False)
    spread = table.pivot(index="name", columns="group", values=f"{metric}_sd")
    means = means.sort_values(AVERAGE, ascending=False)
    names = [AVERAGE, *sorted(name for name in means.columns if name != AVERAGE)]
    rows, best = [], []
    for method, own in means.iterrows():
        shown = [mean_sd(own[n], spread[n][str(method)]) for n in names]
        rows.append([str(method), *shown])
        leads = [bool(len(means) > 1 and own[n] >= means[n].max()) for n in names]
        best.append([False, *leads])
    return PivotTable(["method", *names], rows, best)


def markdown(pivot: PivotTable) -> str:
    """The table in Markdown, the best cells bold."""
    lines = ["| " + " | ".join(pivot.heads) + " |", "|" + "---|" * len(pivot.heads)]
    for cells, marks in zip(pivot.rows, pivot.best, strict=True):
        shown = [f"**{c}**" if mark else c for c, mark in zip(cells, marks, strict=True)]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)


def write_group_tables(results: Sequence[RunResult], out: Path) -> list[str]:
    """Write ``by-<group>.csv`` (every score), ``.md`` and ``.xlsx``; nothing without groups.

    Returns:
        Lines on what could not be written.

    Raises:
        RunError: if the folder cannot be written.
    """
    table = groups_table(results)
    notes: list[str] = []
    if not len(table):
        return notes
    for column, own in table.groupby("group_column", sort=False):
        stem = out / f"by-{_file_name(str(column))}"
        parts = []
        sheets: dict[str, PivotTable] = {}
        setups = list(own.groupby("setup", sort=False))
        for number, (label, rows) in enumerate(setups, start=1):
            pivot = group_pivot(rows)
            parts.append(f"## {label}: macro-F1 by {column}\n\n{markdown(pivot)}\n")
            for metric in GROUP_METRICS:
                name = TITLES[metric] if len(setups) == 1 else f"{number} {TITLES[metric]}"
                sheets[name] = group_pivot(rows, metric)
        with atomic.new_file(stem.with_suffix(".csv")) as path:
            own.drop(columns="group_column").to_csv(path, index=False)
        atomic.write_text(stem.with_suffix(".md"), "\n".join(parts))
        notes += write_workbook(sheets, stem.with_suffix(".xlsx"))
    return notes


def write_workbook(sheets: dict[str, PivotTable], path: Path) -> list[str]:
    """One sheet per table, numbers as numbers where a cell is one, the best bold.

    Returns:
        A line that says so where the extra is not installed.

    Raises:
        RunError: if the file cannot be written.
    """
    try:
        from openpyxl import Workbook
        from openpyxl.styles import Font
    except ImportError:
        return [XLSX_NOTE]
    book = Workbook()
    book.remove(book.active)
    for title, pivot in sheets.items():
        # The format allows no longer names, nor these signs, which settings may have.
        sheet = book.create_sheet(re.sub(r"[][*?:/\\\x00-\x1f]", "-", title)[:31])
        for place, head in enumerate(pivot.heads, start=1):
            _put_text(sheet.cell(row=1, column=place), head)
        sheet.freeze_panes = "B2"
        for row, (cells, marks) in enumerate(zip(pivot.rows, pivot.best, strict=True), start=2):
            for place, (cell, mark) in enumerate(zip(cells, marks, strict=True), start=1):
                made = sheet.cell(row=row, column=place)
                number = _number(cell) if place > 1 else None
                if number is None:
                    _put_text(made, cell)
                else:
                    made.value = number
                made.font = Font(bold=mark or place == 1)
                if isinstance(made.value, float):
                    made.number_format = "0.000"
    with atomic.new_file(path) as scratch:
        book.save(scratch)
    return []


def _put_text(cell: Any, text: str) -> None:
    """Text, whatever it looks like; a spreadsheet carries out no formula that stands in it."""
    # The format has no place for control characters.
    cell.value = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
    cell.data_type = "s"
    cell.quotePrefix = text[:1] in ("=", "+", "-", "@", "\t")


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _file_name(column: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in column).strip("-") or "group"


def page_tables(results: Sequence[RunResult]) -> dict[str, dict[str, Any]]:
    """By set-up: the column and the table over its groups, for the page of a comparison."""
    table = groups_table(results)
    if not len(table):
        return {}
    tables = {}
    for label, rows in table.groupby("setup", sort=False):
        pivot = group_pivot(rows)
        cells = [
            [{"text": c, "best": mark} for c, mark in zip(own, marks, strict=True)]
            for own, marks in zip(pivot.rows, pivot.best, strict=True)
        ]
        column = rows["group_column"].iloc[0]
        tables[str(label)] = {"column": column, "heads": pivot.heads, "rows": cells}
    return tables
