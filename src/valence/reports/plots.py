"""Pictures of a comparison, drawn with matplotlib without a screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from valence.evaluation.classification import confusion
from valence.methods.registry import trained_part
from valence.reports.scoring import scoring_of
from valence.reports.tables import runs_table, sensitivity_table
from valence.runs.store import RunResult, RunStore

# Okabe & Ito's palette, which colour-blind readers can tell apart, and line styles beside it.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#444444", "#B8A800")
STYLES = ("-", "--", ":", "-.")
INK = "#333333"
LEADER = {"arrowstyle": "-", "color": "#bbbbbb", "lw": 0.7}
MAP_POINTS = 600  # more only hide each other


def class_bars(results: Sequence[RunResult]) -> Figure:
    """F1 of every class by method, mean over seeds; class sizes under the names."""
    runs = runs_table(results)
    classes, counts = results[0].classes, results[0].train_counts
    order = np.argsort(counts, kind="stable")[::-1]
    methods = list(dict.fromkeys(runs["method"]))
    shown = order[-20:]  # with more classes the bars become lines; the tail is what matters
    figure, axes = new_figure(max(9.0, 0.16 * len(methods) * len(shown) + 2), 3.6)
    width = 0.84 / len(methods)
    for i, method in enumerate(methods):
        own = runs[runs["method"] == method]
        values = [float(own[f"f1/{classes[c]}"].mean()) for c in shown]
        places = np.arange(len(shown)) + (i - (len(methods) - 1) / 2) * width
        axes.bar(places, values, width * 0.92, label=method, **_bar(i))
    tail = set(results[0].tail)
    names = [f"{classes[c]}{' *' if c in tail else ''}\nn={counts[c]}" for c in shown]
    axes.set_xticks(np.arange(len(shown)), names, rotation=45 if len(shown) > 8 else 0, fontsize=8)
    axes.set_ylabel("F1 on test")
    axes.set_title("F1 by class, most frequent first (* tail)", loc="left")
    side_legend(axes)
    return figure


def confusion_matrices(store: RunStore, results: Sequence[RunResult]) -> Figure:
    """One matrix per method, summed over seeds, rows normalised to recall."""
    methods = list(dict.fromkeys(r.spec.method for r in results))
    classes = results[0].classes
    columns = min(4, len(methods))
    rows = -(-len(methods) // columns)
    figure = Figure(figsize=(2.9 * columns + 0.8, 2.75 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for i, cell in enumerate(grid.flat):
        if i >= len(methods):
            cell.set_axis_off()
            continue
        total = np.zeros((len(classes), len(classes)))
        for result in results:
            if result.spec.method == methods[i]:
                table = store.predictions(result.key)
                test = table[table["split"] == "test"]
                total += confusion(
                    test["label"].to_numpy(), test["predicted"].to_numpy(), len(classes)
                )
        draw_confusion(cell, total, classes, title=methods[i], first_column=i % columns == 0)
    figure.suptitle("Rows: true class; columns: prediction; shares of the true class",
                    fontsize=9, x=0.01, ha="left", color=INK)  # fmt: skip
    return figure


def draw_confusion(
    cell: Axes, counts: np.ndarray, classes: Sequence[str], *, title: str, first_column: bool
) -> None:
    """Draw one matrix, rows normalised to recall.

    Args:
        cell: Where.
        counts: (C, C); rows are the truth.
        classes: Their names.
        title: Above it.
        first_column: Whether the classes are named at the left.
    """
    small = len(classes) <= 8
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell.imshow(share, cmap="Blues", vmin=0, vmax=1)
    cell.set_title(title, fontsize=9)
    _matrix_labels(cell, classes, first_column=first_column, small=small)
    if small:
        for (y, x), value in np.ndenumerate(share):
            colour = "white" if value > 0.55 else INK
            cell.text(x, y, f"{value:.2f}"[1:] if value < 1 else "1", ha="center",
                      va="center", fontsize=7, color=colour)  # fmt: skip


def score_against_cost(results: Sequence[RunResult]) -> Figure:
    """Macro-F1 against training seconds, one point per method."""
    runs = runs_table(results)
    means = runs.groupby("method", sort=False)[["train_seconds", "macro_f1"]].mean()
    figure, axes = new_figure(9.0, 3.8)
    seconds = means["train_seconds"].clip(lower=0.01)
    axes.scatter(seconds, means["macro_f1"], s=42, color=COLORS[0], zorder=3)
    axes.set_xscale("log")
    for (x, y), name in zip(_spread(seconds, means["macro_f1"]), means.index, strict=True):
        point = (seconds[name], means.loc[name, "macro_f1"])
        axes.annotate(str(name), point, xytext=(x, y), textcoords="axes fraction", fontsize=8,
                      va="center", arrowprops=LEADER)  # fmt: skip
    axes.set_xlim(right=float(seconds.max()) * 30)
    axes.margins(y=0.12)
    axes.set_xlabel("seconds to train (log scale)")
    axes.set_ylabel("test macro-F1")
    axes.set_title("What a point of macro-F1 costs", loc="left")
    return figure


def training_curves(store: RunStore, results: Sequence[RunResult]) -> Figure | None:
    """Validation macro-F1 over optimiser steps, mean over seeds; None where nothing trained."""
    figure, axes = new_figure(9.0, 3.6)
    methods = list(dict.fromkeys(r.spec.method for r in results))
    drawn = 0
    for i, method in enumerate(methods):
        series: dict[int, list[float]] = {}
        for result in (r for r in results if r.spec.method == method):
            for record in store.history(result.key):
                if record.get("validation/macro_f1") is not None:
                    series.setdefault(record["step"], []).append(record["validation/macro_f1"])
        if series:
            steps = sorted(series)
            drawn += 1
            means = [np.mean(series[s]) for s in steps]
            axes.plot(steps, means, marker="o", ms=3, lw=1.6, label=method, **line_style(i))
    if not drawn:
        return None
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("validation macro-F1")
    axes.set_title("How training went (the best step's weights are kept)", loc="left")
    side_legend(axes)
    return figure


def sensitivity_curves(
    results: Sequence[RunResult], axes_: Mapping[str, Sequence[Any]]
) -> Figure | None:
    """Two scores along the first axis of a sweep; None where nothing was swept.

    Macro-F1 and tail-F1, or of an intensity MAE and correlation.
    """
    table = sensitivity_table(results, axes_)
    if not len(table):
        return None
    axis = next(iter(axes_))
    figure, axes = new_figure(9.0, 3.4)
    pair = ("macro_f1", "tail_f1") if "macro_f1" in table else ("mae", "corr")
    titles = scoring_of(results[0]).titles
    for i, (method, own) in enumerate(table.groupby("method", sort=False)):
        for style, metric in zip(("-", "--"), pair, strict=True):
            by = own.assign(**{metric: own[metric].astype(float)}).groupby(axis)[metric]
            mean, sd = by.mean(), by.std().fillna(0)
            label = f"{method}, {titles.get(metric, metric)}"
            axes.errorbar(mean.index.astype(str), mean, yerr=sd, fmt=f"o{style}", capsize=3,
                          color=_color(i), label=label)  # fmt: skip
    axes.set_xlabel(axis)
    axes.set_ylabel("test score, mean ± sd over seeds")
    axes.set_title("Sensitivity", loc="left")
    side_legend(axes)
    return figure


def feature_map(store: RunStore, results: Sequence[RunResult]) -> Figure | None:
    """Test features of the best and of the baseline-like methods in two principal components."""
    chosen = _with_features(store, results)[:4]
    if not chosen:
        return None
    figure = Figure(figsize=(3.1 * len(chosen) + 1.2, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(chosen), squeeze=False)[0]
    classes = chosen[0][0].classes
    for cell, (result, features, labels) in zip(grid, chosen, strict=True):
        rows = np.random.default_rng(0).permutation(len(labels))[:MAP_POINTS]
        points = PCA(2, random_state=0).fit_transform(features[rows].astype(np.float32))
        colours = class_colors(len(classes))
        for c, name in enumerate(classes):
            own = labels[rows] == c
            cell.scatter(*points[own].T, s=9, alpha=0.75, lw=0, label=name,
                         color=colours[c])  # fmt: skip
        cell.set_title(result.spec.method, fontsize=9)
        cell.set_xticks([])
        cell.set_yticks([])
        quiet_frame(cell)
    if len(classes) <= 12:
        handles, names = grid[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right center", fontsize=8, frameon=False,
                      markerscale=2)  # fmt: skip
    return figure


def _with_features(
    store: RunStore, results: Sequence[RunResult]
) -> list[tuple[RunResult, np.ndarray, np.ndarray]]:
    """First-seed runs that have features, best macro-F1 first."""
    first: dict[str, RunResult] = {}
    for result in results:
        if trained_part(result.spec).method == result.spec.method:
            first.setdefault(result.spec.method, result)
    found = []
    for result in sorted(first.values(), key=lambda r: -(r.test["macro_f1"] or 0)):
        with np.load(store.path(result.key) / "features.npz") as file:
            features, labels = file["features"], file["labels"]
        if features.shape[1] > 2:
            found.append((result, features, labels))
    return found


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of inches with one pair of axes in the common style."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    quiet_frame(axes)
    axes.grid(axis="y", color="#e4e4e4", lw=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def quiet_frame(axes: Axes) -> None:
    """Axes with two thin sides and small grey ticks."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")
    axes.tick_params(colors=INK, labelsize=8)
    axes.title.set_color(INK)
    axes.title.set_fontsize(10)


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _bar(i: int) -> dict[str, Any]:
    hatch = ("", "///", "...", "xxx")[i // len(COLORS) % 4]
    return {"color": _color(i), "hatch": hatch, "edgecolor": "white", "lw": 0.3}


def side_legend(axes: Axes) -> None:
    """A legend at the right of the axes."""
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def class_colors(count: int) -> list[Any]:
    """Colours of ``count`` classes: told apart when few, shaded when many."""
    from matplotlib import colormaps

    if count <= len(COLORS):
        return list(COLORS[:count])
    return [colormaps["viridis"](c / (count - 1)) for c in range(count)]


def line_style(i: int) -> dict[str, Any]:
    """Colour and dashes of the i-th line of a picture."""
    return {"color": _color(i), "ls": STYLES[i // len(COLORS) % len(STYLES)]}


def _matrix_labels(axes: Axes, classes: Sequence[str], *, first_column: bool, small: bool) -> None:
    axes.tick_params(length=0, labelsize=7, colors=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if not small:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    axes.set_xticks(range(len(classes)), list(classes), rotation=40, ha="right")
    axes.set_yticks(range(len(classes)), list(classes) if first_column else [])


def _spread(x: Any, y: Any) -> list[tuple[float, float]]:
    """Places for labels, in shares of the axes: right of the points, none over another."""
    order = np.argsort(np.asarray(y))
    low, high = float(np.min(y)), float(np.max(y))
    span = (high - low) or 1.0
    wanted = 0.1 + 0.8 * (np.asarray(y, dtype=float) - low) / span
    gap = min(0.062, 0.9 / max(1, len(wanted)))
    placed = np.zeros(len(wanted))
    last = -1.0
    for i in order:
        placed[i] = last = max(wanted[i], last + gap)
    excess = max(0.0, last - 0.97)
    placed -= excess * (placed - placed.min()) / max(last - placed.min(), 1e-9)
    return [(0.80, float(place)) for place in placed]
