"""The page of a comparison: one file, no network, light and dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from valence.comparison.sweep import Sweep
from valence.config.spec import RunSpec
from valence.reports import diagnostic_plots, fusion_plots, plots
from valence.reports.groups import page_tables
from valence.reports.leaderboard import MARK, leaderboard, leaderboard_columns, verdict
from valence.reports.tables import by_setup, mean_sd, own_best_table, sensitivity_table
from valence.reports.transfer import is_transfer, page_transfers
from valence.runs.store import RunResult, RunStore
from valence.storage import atomic


@dataclass(frozen=True)
class Picture:
    """A picture as the page holds it."""

    title: str
    alt: str
    data: str


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
        baseline: Method the others are tested against.
        sweep: Runs at the points of a sweep.
        text: Title, command, published scores and failures.

    Raises:
        RunError: if the file cannot be written.
    """
    text = text or PageText()
    by_group = page_tables(results)
    own = [result for result in results if not is_transfer(result)]
    setups = [
        {**_setup(store, label, group, baseline, text.published), "groups": by_group.get(label)}
        for label, group in by_setup(own).items()
    ]
    template = Environment(
        loader=PackageLoader("valence.reports", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    ).get_template("report.html.j2")  # fmt: skip
    page = template.render(
        title=text.title or "Comparison",
        setups=setups,
        transfers=_transfers(results),
        synthetic=sorted({r.dataset for r in results if r.synthetic}),
        explanations=_explanations(results),
        sweep=_sweep(sweep),
        failures=text.failures,
        notes=_notes(results),
        command=text.command,
        provenance=_provenance(results),
    )
    return _write(page, path)


def _transfers(results: Sequence[RunResult]) -> list[dict[str, Any]]:
    return [
        {**part, "picture": _picture("Transfer", "macro-F1 by groups", part["figure"])}
        for part in page_transfers(results)
    ]


def _sweep(sweep: Sweep | None) -> dict[str, Any]:
    """Headings, cells and picture of a sweep; no row without one."""
    if sweep is None:
        return {"heads": [], "rows": [], "picture": None}
    curves = plots.sensitivity_curves(sweep)
    picture = _picture("Sensitivity", "scores over the swept setting", curves)
    return {**_cells(sensitivity_table(sweep)), "picture": picture}


def _write(page: str, path: Path) -> Path:
    atomic.write_text(path, page)
    return path


def _setup(
    store: RunStore, label: str, group: list[RunResult], baseline: str | None,
    published: Published,
) -> dict[str, Any]:  # fmt: skip
    table = leaderboard(store, group, baseline)
    heads, rows = leaderboard_columns(table)
    first, task = group[0], group[0].task
    draw = _class_figures if task.classes else _intensity_figures
    pictures = [_picture(title, alt, figure) for title, (alt, figure) in draw(store, group).items()]
    return {
        "label": label,
        "verdict": verdict(table),
        "reference": next(iter(table.loc[table["mark"] == "baseline", "name"]), None),
        "heads": heads,
        "rows": rows,
        "marks": heads.index(MARK),
        "main": task.main_title,
        "sizes": first.sizes,
        "classes": [
            {"name": name, "count": count, "tail": i in first.tail}
            for i, (name, count) in enumerate(zip(first.classes, first.train_counts, strict=True))
        ],
        "seeds": sorted({r.spec.seed for r in group}),
        "own_best": _own_best(group),
        "published": [
            {"method": m, "metric": task.titles.get(k, k), "value": f"{v:.3f}",
             "ours": _ours(table, m, k)}
            for m, scores in published.matching(first.spec).items() for k, v in scores.items()
        ],
        "pictures": [picture for picture in pictures if picture is not None],
    }  # fmt: skip


Figures = dict[str, tuple[str, Figure | None]]


def _class_figures(store: RunStore, group: list[RunResult]) -> Figures:
    return {
        "F1 by class": ("bars of F1 per class and method", plots.class_bars(group)),
        "Score and cost": ("macro-F1 over training seconds", plots.score_against_cost(group)),
        "Training": ("validation macro-F1 over steps", plots.training_curves(store, group)),
        "F1 by class size": ("F1 of classes over their rows", diagnostic_plots.f1_by_size(group)),
        "Accuracy and macro-F1": ("their gap by method", diagnostic_plots.accuracy_gap(group)),
        "Reliability": ("accuracy over confidence", diagnostic_plots.reliability(store, group)),
        "Prototypes": (
            "prototypes and synthetic samples over steps",
            diagnostic_plots.prototype_curves(store, group),
        ),
        "Confusion": ("confusion matrix of each method", plots.confusion_matrices(store, group)),
        "Feature map": ("test features in two components", plots.feature_map(store, group)),
    }


def _intensity_figures(store: RunStore, group: list[RunResult]) -> Figures:
    return {
        "Predicted and true": (
            "prediction over truth by method", fusion_plots.predicted_against_true(store, group)
        ),
        "Error by intensity": (
            "mean absolute error over the truth", fusion_plots.error_by_intensity(store, group)
        ),
        "Training": ("validation MAE over steps", fusion_plots.validation_curves(store, group)),
        "Missing modalities": (
            "test MAE over the missing rate", fusion_plots.robustness_curves(store, group)
        ),
    }  # fmt: skip


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


def _picture(title: str, alt: str, figure: Figure | None) -> Picture | None:
    if figure is None:
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, facecolor="white")
    data = base64.b64encode(buffer.getvalue()).decode()
    return Picture(title, alt, f"data:image/png;base64,{data}")


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
