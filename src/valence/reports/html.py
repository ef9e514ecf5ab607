"""The page of a comparison: the verdict first, one file, no network, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from valence.comparison.sweep import Sweep
from valence.config.spec import RunSpec
from valence.pages.page import embedded, render_page
from valence.reports import diagnostic_plots, fusion_plots, plots
from valence.reports.figures import PageFigures
from valence.reports.groups import page_tables
from valence.reports.leaderboard import MARK, leaderboard, leaderboard_columns, verdict
from valence.reports.recommendation import recommend
from valence.reports.tables import by_setup, mean_sd, own_best_table, sensitivity_table
from valence.reports.transfer import is_transfer, page_transfers
from valence.runs.store import RunResult, RunStore
from valence.storage import atomic


@dataclass(frozen=True)
class Published:
    """Published scores, and for which set-ups.

    Attributes:
        scores: By method and metric.
        settings: Dotted settings a set-up must have; for any set-up when empty.
    """

    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def matching(self, spec: RunSpec) -> Mapping[str, Mapping[str, float]]:
        """The scores, if their settings match this spec."""
        fits = all(spec.get(path, value) == value for path, value in self.settings.items())
        return self.scores if fits else {}


SHOWN = ("method", MARK, "train s")
"""Columns of a leaderboard that are always on the page, beside the main score and its Δ."""
FOR_PHONES = ("method", MARK)
"""Of these, what a phone has room for beside the main score; the rest is in the row's details."""


def board(heads: list[str], rows: list[list[str]], *, main: str) -> dict[str, list[Any]]:
    """A leaderboard whose less important columns fold into the details of each row."""
    shown = (*SHOWN, main, f"Δ {main} [95%]")
    places = [i for i, head in enumerate(heads) if head in shown]
    wide = {h for h in heads if h in shown and h not in (*FOR_PHONES, main)}
    return {
        "heads": [{"name": heads[i], "wide": heads[i] in wide} for i in places],
        "rows": [
            {
                "cells": [{"text": row[i], "wide": heads[i] in wide} for i in places],
                "more": [(h, c) for h, c in zip(heads, row, strict=True)
                         if c and (h not in shown or h in wide)],
            }
            for row in rows
        ],
    }  # fmt: skip


@dataclass(frozen=True)
class FailedRun:
    """A run of the comparison that has no result: which one, and why."""

    run: str
    reason: str


@dataclass(frozen=True)
class PageText:
    """What a page says beside its figures.

    Attributes:
        title: Heading.
        published: Scores to set beside ours.
        command: The command line.
        failures: Runs of this comparison that failed.
    """

    title: str = ""
    published: Published = Published()
    command: str = ""
    failures: Sequence[FailedRun] = ()


def write_report(
    store: RunStore,
    results: Sequence[RunResult],
    path: Path,
    *,
    baseline: str | None = None,
    sweep: Sweep | None = None,
    text: PageText | None = None,
) -> Path:
    """Write the page of a comparison.

    Args:
        store: Where the run folders are.
        results: Finished runs of the methods as they are.
        path: File to write; its folder is made.
        baseline: Method to test the others against.
        sweep: Runs at the points of a sweep.
        text: Title, command, published scores and failures.

    Raises:
        RunError: if the file cannot be written.
    """
    text = text or PageText()
    drawn = PageFigures(path.parent / "pictures")
    by_group = page_tables(results)
    own = [result for result in results if not is_transfer(result)]
    setups = [
        {
            **_setup(store, label, group, baseline, text.published),
            "groups": by_group.get(label), "charts": _class_or_intensity(drawn, store, group),
            "confusion": drawn.confusion(store, group) if group[0].classes else None,
        }
        for label, group in by_setup(own).items()
    ]  # fmt: skip
    values = {
        "title": text.title or "Comparison",
        "setups": setups,
        "transfers": page_transfers(results),
        "learning": drawn.add("Learning curve", plots.learning_curve(own)) if own else [],
        "synthetic": sorted({r.dataset for r in results if r.synthetic}),
        "explanations": _explanations(results),
        "sweep": _sweep(drawn, sweep),
        "failures": text.failures,
        "notes": _notes(results),
        "command": text.command,
        "provenance": _provenance(results),
    }
    data = {
        "charts": drawn.charts, "charts_json": embedded(drawn.charts),
        "confusions": drawn.confusions, "confusions_json": embedded(drawn.confusions),
    }  # fmt: skip
    page = render_page("valence.reports", "report.html.j2", values | data)
    atomic.write_text(path, page)
    return path


def _sweep(drawn: PageFigures, sweep: Sweep | None) -> dict[str, Any]:
    """Headings, cells and charts of a sweep; no row without one."""
    if sweep is None:
        return {"heads": [], "rows": [], "charts": []}
    charts = drawn.add("Sensitivity", plots.sensitivity_curves(sweep))
    return {**_cells(sensitivity_table(sweep)), "charts": charts}


def _setup(
    store: RunStore, label: str, group: list[RunResult], baseline: str | None,
    published: Published,
) -> dict[str, Any]:  # fmt: skip
    table = leaderboard(store, group, baseline)
    heads, rows = leaderboard_columns(table)
    first, task = group[0], group[0].task
    return {
        "label": label,
        "verdict": verdict(table),
        "advice": recommend(store, group, table),
        "reference": next(iter(table.loc[table["mark"] == "baseline", "name"]), None),
        "board": board(heads, rows, main=task.main_title),
        "main": task.main_title,
        "sizes": first.sizes,
        "classes": [
            {"name": name, "count": count, "tail": i in first.tail}
            for i, (name, count) in enumerate(zip(first.classes, first.train_counts, strict=True))
        ],
        "seeds": sorted({r.spec.seed for r in group}),
        "own_best": _own_best(group),
        "published": [
            [m, task.titles.get(k, k), f"{v:.3f}", _ours(table, m, k)]
            for m, scores in published.matching(first.spec).items() for k, v in scores.items()
        ],
    }  # fmt: skip


def _class_or_intensity(drawn: PageFigures, store: RunStore, group: list[RunResult]) -> list[int]:
    """Draw a set-up; the numbers of its charts."""
    draw = _class_figures if group[0].classes else _intensity_figures
    figures = draw(store, group)
    return [number for title, figure in figures.items() for number in drawn.add(title, figure)]


Figures = dict[str, Figure | None]


def _class_figures(store: RunStore, group: list[RunResult]) -> Figures:
    return {
        "Score and cost": plots.score_against_cost(group),
        "F1 by class": plots.class_bars(group),
        "Reliability": diagnostic_plots.reliability(store, group),
        "F1 by class size": diagnostic_plots.f1_by_size(group),
        "Accuracy minus macro-F1": diagnostic_plots.accuracy_gap(group),
        "Training": plots.training_curves(store, group),
        "Representations": diagnostic_plots.representation_curves(store, group),
        "Prototypes": diagnostic_plots.prototype_curves(store, group),
        "Confusion": plots.confusion_matrices(store, group),
        "Feature map": plots.feature_map(store, group),
    }


def _intensity_figures(store: RunStore, group: list[RunResult]) -> Figures:
    return {
        "Predicted and true": fusion_plots.predicted_against_true(store, group),
        "Error by intensity": fusion_plots.error_by_intensity(store, group),
        "Training": fusion_plots.validation_curves(store, group),
        "Missing modalities": fusion_plots.robustness_curves(store, group),
    }


def _own_best(group: list[RunResult]) -> dict[str, list[Any]]:
    """Heads and cells of each metric at its own best validation epoch; empty without any."""
    table = own_best_table(group)
    if not len(table):
        return {"heads": [], "rows": []}
    task = group[0].task
    shown = [m for m in task.shown_metrics if m in set(table["metric"])]
    rows = []
    for name, own in table.groupby("name", sort=False):
        values = [own.loc[own["metric"] == m, "test_at_own_best"].astype(float) for m in shown]
        rows.append([name, *(mean_sd(v.mean(), v.std()) for v in values)])
    return {"heads": ["method", *(task.titles[m] for m in shown)], "rows": rows}


def _explanations(results: Sequence[RunResult]) -> list[str]:
    return list(dict.fromkeys(line for r in results for line in r.task.explanations))


def _ours(table: pd.DataFrame, method: str, metric: str) -> str:
    row = table[table["method"] == method]
    column = f"{metric}_mean"
    return mean_sd(row[column].iloc[0]) if len(row) and column in table else "–"


def _cells(table: pd.DataFrame) -> dict[str, list[Any]]:
    rows = [
        [mean_sd(v) if v is None or isinstance(v, float) else str(v) for v in row]
        for row in table.itertuples(index=False)
    ]
    return {"heads": [str(c) for c in table.columns], "rows": rows}


def _notes(results: Sequence[RunResult]) -> list[str]:
    notes: dict[str, list[str]] = {}
    for result in results:
        for note in result.notes:
            notes.setdefault(note, []).append(f"{result.spec.method} s{result.spec.seed}")
    total = len(results)
    return [
        note if len(runs) == total or len(runs) > 4 else f"{note} ({', '.join(runs)})"
        for note, runs in notes.items()
    ]


def _provenance(results: Sequence[RunResult]) -> list[tuple[str, str]]:
    merged: dict[str, list[str]] = {}
    for result in results:
        for name, value in result.provenance.items():
            if name in ("started", "finished"):
                continue
            text = (
                ", ".join(f"{k} {v}" for k, v in value.items())
                if isinstance(value, dict)
                else str(value)
            )
            if text not in merged.setdefault(name, []):
                merged[name].append(text)
    times = [str(r.provenance.get("finished", "")) for r in results]
    rows = [(name, "; ".join(values)) for name, values in merged.items()]
    return [*rows, ("finished", f"{min(times)} – {max(times)}")] if times else rows
