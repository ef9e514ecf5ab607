"""Confusion matrices of a page, with cases behind their cells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from valence.comparison.settings import Setting, by_setting
from valence.evaluation.classification import confusion
from valence.reports.tables import cases
from valence.runs.store import RunResult, RunStore

LONGEST_TEXT = 140  # characters of a case on the page; the tables have it whole
MOST_CASES = 12  # of a cell
LARGEST_BYTES = 120_000  # of the cases of a set-up, so that the page stays small


def confusions(store: RunStore, results: Sequence[RunResult]) -> dict[str, Any]:
    """By method: counts summed over seeds, and cases of the first seed by ``"true,predicted"``.

    Args:
        store: Where the predictions are.
        results: Runs of one set-up whose target is classes.
    """
    classes = results[0].classes
    settings = by_setting(results)
    tables = [_by_cell(store, setting.first) for setting in settings]
    most = MOST_CASES
    while most and _size(tables, most) > LARGEST_BYTES:
        most -= 1
    methods = [
        {
            "name": setting.name, "counts": _counts(store, setting, len(classes)),
            "file": f"cases/{setting.first.key}.csv",
            "cases": {cell: rows[:most] for cell, rows in table.items() if most},
        }
        for setting, table in zip(settings, tables, strict=True)
    ]  # fmt: skip
    return {"classes": list(classes), "methods": methods}


def _counts(store: RunStore, setting: Setting, size: int) -> list[list[int]]:
    total = np.zeros((size, size), dtype=int)
    for result in setting.runs.values():
        rows = store.predictions(result.key)
        test = rows[rows["split"] == "test"]
        total += confusion(test["label"].to_numpy(), test["predicted"].to_numpy(), size)
    return [[int(count) for count in row] for row in total]


def _by_cell(store: RunStore, result: RunResult) -> dict[str, list[list[str]]]:
    """(id, text, probability) of test rows, by the place of their cell; errors come first."""
    place = {name: i for i, name in enumerate(result.classes)}
    cells: dict[str, list[list[str]]] = {}
    for row in cases(store, result).to_dict("records"):
        cell = cells.setdefault(f"{place[row['true']]},{place[row['predicted']]}", [])
        if len(cell) < MOST_CASES:
            text = " ".join(str(row["text"]).split())
            shown = text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
            cell.append([str(row["id"]), shown, f"{row['probability']:.2f}"])
    return cells


def _size(tables: Sequence[dict[str, list[list[str]]]], most: int) -> int:
    tables = [{cell: rows[:most] for cell, rows in table.items()} for table in tables]
    return len(json.dumps(tables, ensure_ascii=False).encode())
