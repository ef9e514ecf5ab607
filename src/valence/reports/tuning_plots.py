"""Pictures and tables of a study: its course, what mattered, and which settings went together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from valence.config.ranges import Range
from valence.evaluation.classification import METRICS
from valence.evaluation.regression import INTENSITY_METRICS, signed
from valence.reports.plots import COLORS, INK, new_figure, quiet_frame, side_legend
from valence.runs.store import RunStore
from valence.storage import atomic
from valence.tuning.tune import TuningResult


def write_study(store: RunStore, tuned: TuningResult, folder: Path) -> None:
    """Write best.yaml, trials.csv and the pictures; with a final run also its record.

    Raises:
        RunError: if the folder cannot be written.
    """
    from valence.reports.records import record_run

    metric = tuned.metric
    pictures = {
        "history.png": history(tuned.trials, metric),
        "importance.png": importance(tuned.importance),
        "parallel.png": parallel(tuned.trials, tuned.space, metric),
    }
    atomic.write_text(folder / "best.yaml", tuned.best.to_yaml())
    with atomic.new_file(folder / "trials.csv") as path:
        tuned.trials.to_csv(path, index=False)
    for name, figure in pictures.items():
        if figure is not None:
            with atomic.new_file(folder / name) as path:
                figure.savefig(path, dpi=150)
        else:
            atomic.remove_file(folder / name)
    if tuned.result is not None:
        chosen = {"study": tuned.name, "chosen": dict(tuned.params), "trials": len(tuned.trials),
                  "trial_value": tuned.value}  # fmt: skip
        record_run(store, tuned.result, folder, mode="tune", more=chosen)


def history(trials: pd.DataFrame, metric: str) -> Figure:
    """The score of every trial, the best so far, and the last evaluation of pruned trials."""
    figure, axes = new_figure(9.0, 3.6)
    done = trials[trials["state"] == "complete"]
    pruned = trials[trials["state"] == "pruned"]
    values = done["value"].astype(float)
    best = values.cummax() if signed(metric, 1.0) > 0 else values.cummin()
    axes.step(done["trial"], best, where="post", color=COLORS[3], lw=1.6, label="best so far")
    axes.scatter(done["trial"], done["value"], s=26, color=COLORS[0], zorder=3, label="complete")
    if len(pruned):
        axes.scatter(pruned["trial"], pruned["last"], s=26, marker="x", color="#888888",
                     label="stopped early,\nlast evaluation")  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial")
    axes.set_ylabel(f"validation {_title(metric)}")
    axes.set_title("Progress of the study", loc="left")
    side_legend(axes)
    return figure


def importance(importances: Mapping[str, float]) -> Figure | None:
    """Fraction of the score's variance by setting; None where it has no value."""
    if not importances:
        return None
    ordered = sorted(importances.items(), key=lambda item: item[1])
    figure, axes = new_figure(9.0, 0.9 + 0.34 * len(ordered))
    axes.grid(visible=False)
    bars = axes.barh([name for name, _ in ordered], [value for _, value in ordered], 0.62,
                     color=COLORS[0])  # fmt: skip
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8, color=INK)
    axes.margins(x=0.08)
    axes.set_xlabel("fraction of the score's variance over the trials (fANOVA)")
    axes.set_title("Importance of the settings", loc="left")
    return figure


def parallel(trials: pd.DataFrame, space: Mapping[str, Range], metric: str) -> Figure | None:
    """One line per complete trial across its settings, colored by score; None without any."""
    done = trials[trials["state"] == "complete"].sort_values("value")
    settings = [name for name in space if name in done]
    if not len(done) or not settings:
        return None
    figure, axes = new_figure(max(6.0, 1.7 * (len(settings) + 1)), 3.8)
    axes.grid(visible=False)
    values = done["value"].astype(float)
    norm = Normalize(float(values.min()), float(values.max()))
    scale = ScalarMappable(norm, "viridis")
    places = {
        name: _axis(axes, i, done[name], log=space[name].log) for i, name in enumerate(settings)
    }
    for row, value in zip(done.index, values, strict=True):
        heights = [places[name][row] for name in settings]
        # A single setting has no line to follow, so that its points must be seen.
        axes.plot(range(len(settings)), heights, color=scale.cmap(norm(value)), lw=1.4,
                  alpha=0.85, marker="o", ms=3.5)  # fmt: skip
    axes.set_xlim(-0.3, len(settings) - 0.3)
    axes.set_ylim(-0.08, 1.08)
    axes.set_yticks([])
    names = [name.partition(".")[2] + "\n" + name.partition(".")[0] for name in settings]
    axes.set_xticks(range(len(settings)), names, fontsize=8)
    quiet_frame(axes)
    axes.spines["left"].set_visible(False)
    figure.colorbar(scale, ax=axes, label=f"validation {_title(metric)}", pad=0.02)
    axes.set_title("Settings of the complete trials", loc="left")
    return figure


def _axis(axes: Axes, place: int, column: pd.Series, *, log: bool) -> dict[Any, float]:
    """Draw one upright axis with its ticks; heights of the rows in [0, 1]."""
    axes.axvline(place, 0.07, 0.93, color="#999999", lw=0.8, zorder=1)
    numbers = pd.to_numeric(column, errors="coerce")
    distinct = sorted(column.unique(), key=lambda v: (isinstance(v, str), v))
    if numbers.isna().any() or len(distinct) <= 4:
        spots = {v: i / max(1, len(distinct) - 1) if len(distinct) > 1 else 0.5
                 for i, v in enumerate(distinct)}  # fmt: skip
        ticks = {str(v) if isinstance(v, str) else f"{v:.3g}": y for v, y in spots.items()}
        heights = {row: spots[value] for row, value in column.items()}
    else:
        low, high = float(numbers.min()), float(numbers.max())
        scaled = np.log(numbers) if log else numbers
        span = float(scaled.max() - scaled.min()) or 1.0
        middle = float(np.sqrt(low * high)) if log else (low + high) / 2
        ticks = {f"{low:.2g}": 0.0, f"{middle:.2g}": 0.5, f"{high:.2g}": 1.0}
        heights = dict(((scaled - scaled.min()) / span).items())
    for text, y in ticks.items():
        axes.annotate(text, (place, y), xytext=(4, 0), textcoords="offset points", fontsize=7,
                      va="center", color=INK, zorder=5,
                      bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none",
                            "alpha": 0.8})  # fmt: skip
    return heights


def _title(metric: str) -> str:
    known = METRICS | INTENSITY_METRICS
    return known[metric].title if metric in known else metric
