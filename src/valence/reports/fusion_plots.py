"""Pictures of runs whose target is an intensity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from valence.comparison.settings import by_setting, setting_names
from valence.reports.plots import (
    COLORS,
    line_style,
    mean_history,
    new_figure,
    quiet_frame,
    side_legend,
)
from valence.runs.store import RunResult, RunStore

BINS = 7  # of the range of the truth: the whole steps of MOSI
COLUMNS = 4


def predicted_against_true(store: RunStore, results: Sequence[RunResult]) -> Figure:
    """Test rows of the first seed of every method and setting: prediction over truth."""
    first = by_setting(results)
    columns = min(COLUMNS, len(first))
    rows = -(-len(first) // columns)
    figure = Figure(figsize=(2.7 * columns + 0.6, 2.7 * rows + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    tables = [_test(store, setting.first) for setting in first]
    low = min(float(t["label"].min()) for t in tables)
    high = max(float(t["label"].max()) for t in tables)
    for i, cell in enumerate(grid.flat):
        if i >= len(first):
            cell.set_axis_off()
            continue
        quiet_frame(cell)
        cell.plot([low, high], [low, high], color="#999999", lw=0.8)
        cell.scatter(
            tables[i]["label"], tables[i]["predicted"], s=7, alpha=0.45, lw=0, color=COLORS[0]
        )
        cell.set_title(first[i].name, fontsize=9)
        if i >= len(first) - columns:
            cell.set_xlabel("true", fontsize=8)
        if i % columns == 0:
            cell.set_ylabel("predicted", fontsize=8)
    return figure


def error_by_intensity(store: RunStore, results: Sequence[RunResult]) -> Figure:
    """Mean absolute error over the true intensity, mean over seeds; rows below the bins."""
    figure, axes = new_figure(9.0, 3.6)
    frames = {r.key: _test(store, r) for r in results}
    every = np.concatenate([f["label"].to_numpy() for f in frames.values()])
    edges = np.linspace(every.min(), every.max() + 1e-6, BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    for i, setting in enumerate(by_setting(results)):
        means = [_binned(frames[result.key], edges) for result in setting.runs.values()]
        mean = pd.DataFrame(means).mean()  # a bin that no row falls into stays empty
        axes.plot(middles, mean, marker="o", ms=4, lw=1.6, label=setting.name,
                  **line_style(i))  # fmt: skip
    counts = np.histogram(frames[results[0].key]["label"], edges)[0]
    names = [f"{middle:.1f}\nn={count}" for middle, count in zip(middles, counts, strict=True)]
    axes.set_xticks(middles, names, fontsize=8)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("mean absolute error")
    axes.set_title("Error by true intensity (test rows in each bin)", loc="left")
    side_legend(axes)
    return figure


def validation_curves(store: RunStore, results: Sequence[RunResult]) -> Figure | None:
    """Validation MAE over optimizer steps, mean over seeds; None where nothing trained."""
    figure, axes = new_figure(9.0, 3.6)
    drawn = False
    for i, setting in enumerate(by_setting(results)):
        points = mean_history(store, setting, "validation/mae")
        if points:
            drawn = True
            axes.plot(*zip(*points, strict=True), marker="o", ms=3, lw=1.6, label=setting.name,
                      **line_style(i))  # fmt: skip
    if not drawn:
        return None
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("validation MAE")
    axes.set_title("Training curves (the weights with the lowest MAE are used)", loc="left")
    side_legend(axes)
    return figure


def robustness_curves(store: RunStore, results: Sequence[RunResult]) -> Figure | None:
    """Test MAE over the missing rate, one plot per modality; None where it was not measured."""
    tables = []
    names = setting_names(results)
    for result in results:
        table = store.table(result.key, "robustness.csv")
        if len(table) and "mae" in table:
            tables.append(table.assign(name=names[result.key]))
    if not tables:
        return None
    whole = pd.concat(tables)
    whole = whole[whole["change"] == "missing"]
    shown = [m for m in ("text", "audio", "vision", "all") if m in set(whole["modality"])]
    figure = Figure(figsize=(2.5 * len(shown) + 1.6, 3.1), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for cell, modality in zip(grid, shown, strict=True):
        quiet_frame(cell)
        own = whole[whole["modality"] == modality]
        for i, name in enumerate(dict.fromkeys(names.values())):
            line = own[own["name"] == name].groupby("level")["mae"].mean()
            if len(line):
                cell.plot(line.index, line, marker="o", ms=3, lw=1.5, label=name,
                          **line_style(i))  # fmt: skip
        cell.set_title(f"{modality} missing", fontsize=9)
        cell.set_xlabel("missing rate", fontsize=8)
    grid[0].set_ylabel("test MAE")
    handles: dict[str, Artist] = {}
    for cell in grid:
        lines, names = cell.get_legend_handles_labels()
        handles |= dict(zip(map(str, names), lines, strict=True))
    figure.legend(
        handles=list(handles.values()), labels=list(handles), loc="outside right center",
        fontsize=8, frameon=False,
    )  # fmt: skip
    return figure


def _binned(table: pd.DataFrame, edges: np.ndarray) -> np.ndarray:
    """(BINS,) mean absolute errors; NaN where a bin has no row."""
    place = np.digitize(table["label"], edges) - 1
    error = (table["predicted"] - table["label"]).abs().to_numpy(dtype=np.float64)
    return np.array([error[place == b].mean() if (place == b).any() else np.nan
                     for b in range(BINS)])  # fmt: skip


def _test(store: RunStore, result: RunResult) -> pd.DataFrame:
    rows = store.predictions(result.key)
    return rows[rows["split"] == "test"].reset_index(drop=True)
