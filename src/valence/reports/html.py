"""The page of a comparison: one file, no network, light and dark."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from valence.config.spec import RunSpec
from valence.errors import RunError
from valence.reports import diagnostic_plots, fusion_plots, plots
from valence.reports.groups import page_tables
from valence.reports.scoring import CLASSES, explanation, scoring_of
from valence.reports.tables import (
    ALPHA,
    by_setup,
    leaderboard,
    leaderboard_columns,
    mean_sd,
    own_best_table,
    scoring_in,
    sensitivity_table,
    unswept,
)
from valence.reports.transfer import is_transfer, page_transfers
from valence.runs.store import RunResult, RunStore


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

    def beside(self, spec: RunSpec) -> Mapping[str, Mapping[str, float]]:
        """The scores, if they belong beside runs of this spec."""
        fits = all(spec.get(path, value) == value for path, value in self.settings.items())
        return self.scores if fits else {}


def write_report(
    store: RunStore,
    results: Sequence[RunResult],
    path: Path,
    *,
    baseline: str | None = None,
    axes: Mapping[str, Sequence[Any]] | None = None,
    title: str = "",
    published: Published | None = None,
    command: str = "",
) -> Path:
    """Write the page of a comparison.

    Args:
        store: Where the run folders are.
        results: Finished runs.
        path: File to write; its folder is made.
        baseline: Method the others are tested against.
        axes: Settings that were swept, with their values.
        title: Heading.
        published: Scores to set beside ours.
        command: What was typed.

    Raises:
        RunError: if the file cannot be written.
    """
    plain = unswept(results, axes)
    by_group = page_tables(plain)
    own = [result for result in plain if not is_transfer(result)]
    setups = [
        {**_setup(store, label, group, baseline, published or Published()),
         "groups": by_group.get(label)}
        for label, group in by_setup(own).items()
    ]  # fmt: skip
    transfers = [
        {**part, "picture": _picture("Transfer", "macro-F1 by groups", part["figure"])}
        for part in page_transfers(plain)
    ]
    swept = sensitivity_table(results, axes) if axes else pd.DataFrame()
    curve = plots.sensitivity_curves(results, axes) if axes else None
    template = Environment(
        loader=PackageLoader("valence.reports", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    ).get_template("report.html.j2")  # fmt: skip
    page = template.render(
        title=title or "Comparison",
        setups=setups,
        transfers=transfers,
        synthetic=sorted({r.dataset for r in results if r.synthetic}),
        explanations=_explanations(plain),
        baseline=baseline,
        sweep_rows=_cells(swept),
        sweep_picture=_picture("Sensitivity", "scores over the swept setting", curve),
        failures=_failures(store),
        notes=_notes(plain),
        command=command,
        provenance=_provenance(plain),
    )
    return _written(page, path)


def _written(page: str, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".tmp")
        scratch.write_text(page, encoding="utf-8")
        os.replace(scratch, path)
    except OSError as error:
        raise RunError(f"Cannot write {path}: {error.strerror or error}") from None
    return path


def verdict(table: pd.DataFrame, baseline: str | None) -> str:
    """What a leaderboard says, in two or three sentences, no surer than its intervals."""
    best, scoring = table.iloc[0], scoring_in(table)
    extreme = "lowest" if scoring.lower_is_better else "highest"
    text = (
        f"{best['method']} has the {extreme} {scoring.titles[scoring.main]} "
        f"({best[f'{scoring.main}_mean']:.3f})."
    )
    if scoring is CLASSES:
        tail = table.iloc[int(table["tail_f1_mean"].astype(float).argmax())]
        if tail["method"] != best["method"]:
            text += f" On the tail classes {tail['method']} leads ({tail['tail_f1_mean']:.3f})."
    if baseline is None or baseline not in set(table["method"]):
        return text
    gains = table["difference"].map(scoring.gain)
    sure = (table["p_holm"] < ALPHA) & table["difference"].notna()
    better = table[sure & gains]["method"].tolist()
    worse = table[sure & ~gains]["method"].tolist()
    if not better and not worse:
        return f"{text} No difference from {baseline} is significant on these test rows."
    parts = [
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} significantly {how}"
        for names, how in ((better, "better"), (worse, "worse"))
        if names
    ]
    text += f" Against {baseline}: {'; '.join(parts)}."
    if not better:
        text += f" Nothing is significantly better than {baseline}."
    return text


def _setup(
    store: RunStore, label: str, group: list[RunResult], baseline: str | None,
    published: Published,
) -> dict[str, Any]:  # fmt: skip
    table = leaderboard(store, group, baseline)
    heads, rows = leaderboard_columns(table)
    first, scoring = group[0], scoring_of(group[0])
    draw = _class_figures if scoring is CLASSES else _intensity_figures
    pictures = [_picture(title, alt, figure) for title, (alt, figure) in draw(store, group).items()]
    return {
        "label": label,
        "verdict": verdict(table, baseline),
        "heads": heads,
        "rows": rows,
        "marks": heads.index(""),
        "main": scoring.titles[scoring.main],
        "sizes": first.sizes,
        "classes": [
            {"name": name, "count": count, "tail": i in first.tail}
            for i, (name, count) in enumerate(zip(first.classes, first.train_counts, strict=True))
        ],
        "seeds": sorted({r.spec.seed for r in group}),
        "own_best": _own_best(group),
        "published": [
            {"method": m, "metric": scoring.titles.get(k, k), "value": f"{v:.3f}",
             "ours": _ours(table, m, k)}
            for m, scores in published.beside(first.spec).items() for k, v in scores.items()
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
    scoring = scoring_of(group[0])
    shown = [m for m in scoring.shown if m in set(table["metric"])]
    rows = []
    for method, own in table.groupby("method", sort=False):
        values = [own.loc[own["metric"] == m, "test_at_own_best"].astype(float) for m in shown]
        rows.append([method, *(mean_sd(v.mean(), v.std()) for v in values)])
    return {"heads": ["method", *(scoring.titles[m] for m in shown)], "rows": rows}


def _explanations(results: Sequence[RunResult]) -> list[str]:
    names = dict.fromkeys(name for r in results for name in scoring_of(r).explained)
    return [explanation(name) for name in names]


def _ours(table: pd.DataFrame, method: str, metric: str) -> str:
    row = table[table["method"] == method]
    column = f"{metric}_mean"
    return f"{row[column].iloc[0]:.3f}" if len(row) and column in table else "–"


def _picture(title: str, alt: str, figure: Figure | None) -> Picture | None:
    if figure is None:
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, facecolor="white")
    data = base64.b64encode(buffer.getvalue()).decode()
    return Picture(title, alt, f"data:image/png;base64,{data}")


def _cells(table: pd.DataFrame) -> dict[str, list[Any]]:
    rows = [
        [f"{v:.3f}" if isinstance(v, float) else str(v) for v in row]
        for row in table.itertuples(index=False)
    ]
    return {"heads": [str(c) for c in table.columns], "rows": rows}


def _failures(store: RunStore) -> list[dict[str, str]]:
    found = []
    for path in sorted(store.root.glob("*.failed.json")):
        try:
            found.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    return found


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
