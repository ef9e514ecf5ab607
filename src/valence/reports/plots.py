"""Pictures of a comparison, drawn with matplotlib without a screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from valence.comparison.settings import Setting, by_setting, setting_names
from valence.comparison.sweep import Sweep
from valence.evaluation.classification import confusion
from valence.methods.registry import trained_part
from valence.reports.tables import runs_table, sensitivity_table
from valence.runs.store import RunResult, RunStore

# Okabe & Ito's palette, which color-blind readers can tell apart, and line styles beside it.
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
    means = runs.groupby("name", sort=False)[[f"f1/{name}" for name in classes]].mean()
    shown = order[-20:]  # with more classes the bars become lines; the tail is what matters
    figure, axes = new_figure(max(9.0, 0.16 * len(means) * len(shown) + 2), 3.6)
    width = 0.84 / len(means)
    for i, (method, own) in enumerate(means.iterrows()):
        values = [float(own[f"f1/{classes[c]}"]) for c in shown]  # no bar where undefined
        places = np.arange(len(shown)) + (i - (len(means) - 1) / 2) * width
        axes.bar(places, values, width * 0.92, label=method, **_bar(i))
    tail = set(results[0].tail)
    names = [f"{classes[c]}{' *' if c in tail else ''}\nn={counts[c]}" for c in shown]
    axes.set_xticks(np.arange(len(shown)), names, rotation=45 if len(shown) > 8 else 0, fontsize=8)
    axes.set_ylabel("F1 on test")
    axes.set_xlabel("n: training rows, *: rare class")
    axes.set_title("F1 by class", loc="left")
    side_legend(axes)
    return figure


def confusion_matrices(store: RunStore, results: Sequence[RunResult]) -> Figure:
    """One matrix per method, summed over seeds, rows normalized to recall."""
    settings = by_setting(results)
    classes = results[0].classes
    columns = min(4, len(settings))
    rows = -(-len(settings) // columns)
    figure = Figure(figsize=(2.9 * columns + 0.8, 2.75 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for i, cell in enumerate(grid.flat):
        if i >= len(settings):
            cell.set_axis_off()
            continue
        total = np.zeros((len(classes), len(classes)))
        for result in settings[i].runs.values():
            table = store.predictions(result.key)
            test = table[table["split"] == "test"]
            total += confusion(test["label"].to_numpy(), test["predicted"].to_numpy(), len(classes))
        draw_confusion(cell, total, classes, title=settings[i].name, first_column=i % columns == 0)
    figure.suptitle("Rows: true class; columns: prediction; fractions of the true class",
                    fontsize=9, x=0.01, ha="left", color=INK)  # fmt: skip
    return figure


def draw_confusion(
    cell: Axes, counts: np.ndarray, classes: Sequence[str], *, title: str, first_column: bool
) -> None:
    """Draw one matrix, rows normalized to recall.

    Args:
        cell: Where.
        counts: (C, C); rows are the truth.
        classes: Their names.
        title: Above it.
        first_column: Whether the classes are named at the left.
    """
    small = len(classes) <= 8
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    cell.set_title(title, fontsize=9)
    _matrix_labels(cell, classes, first_column=first_column, small=small)
    if small:
        for (y, x), value in np.ndenumerate(fractions):
            color = "white" if value > 0.55 else INK
            cell.text(x, y, f"{value:.2f}"[1:] if value < 1 else "1", ha="center",
                      va="center", fontsize=7, color=color)  # fmt: skip


def score_against_cost(results: Sequence[RunResult]) -> Figure:
    """Macro-F1 against training seconds, one point per method."""
    runs = runs_table(results)
    means = runs.groupby("name", sort=False)[["train_seconds", "macro_f1"]].mean().dropna()
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
    axes.set_title("Training time against macro-F1", loc="left")
    return figure


def learning_curve(results: Sequence[RunResult]) -> Figure | None:
    """The main score over training rows; None where no method was run at two sizes."""
    runs = runs_table(results)
    task = results[0].task
    lines = {}
    for (data, method), own in runs.groupby(["dataset", "method"], sort=False):
        mean = own.groupby("n_train")[task.main_metric].mean().dropna()
        if len(mean) > 1:
            lines[f"{method}, {data}" if runs["dataset"].nunique() > 1 else str(method)] = mean
    if not lines:
        return None
    figure, axes = new_figure(9.0, 3.6)
    for i, (label, mean) in enumerate(lines.items()):
        axes.plot(mean.index, mean, marker="o", ms=4, lw=1.6, label=label, **line_style(i))
    axes.set_xscale("log")
    axes.set_xlabel("training rows (log scale)")
    axes.set_ylabel(f"test {task.main_title}")
    axes.set_title("Learning curve", loc="left")
    side_legend(axes)
    return figure


def training_curves(store: RunStore, results: Sequence[RunResult]) -> Figure | None:
    """Validation macro-F1 over optimizer steps, mean over seeds; None where nothing trained."""
    figure, axes = new_figure(9.0, 3.6)
    drawn = 0
    for setting in by_setting(results):
        points = mean_history(store, setting, "validation/macro_f1")
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", ms=3, lw=1.6, label=setting.name,
                      **line_style(drawn))  # fmt: skip
            drawn += 1
    if not drawn:
        return None
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("validation macro-F1")
    axes.set_title("Training curves (the weights of the best step are used)", loc="left")
    side_legend(axes)
    return figure


def mean_history(store: RunStore, setting: Setting, name: str) -> list[tuple[int, float]]:
    """(step, mean over seeds) of a logged value; empty where no run has it."""
    series: dict[int, list[float]] = {}
    for result in setting.runs.values():
        for record in store.history(result.key):
            if record.get(name) is not None:
                series.setdefault(record["step"], []).append(record[name])
    return [(step, float(np.mean(series[step]))) for step in sorted(series)]


def sensitivity_curves(sweep: Sweep) -> Figure | None:
    """Two scores along the first axis of a sweep; None where nothing was swept.

    Macro-F1 and tail-F1, or of an intensity MAE and correlation. Where there are further axes,
    each of their values has a line of its own.
    """
    table = sensitivity_table(sweep)
    if not len(table):
        return None
    axis = next(iter(sweep.axes))
    names = setting_names(sweep.results, ignored=(axis,))
    table["line"] = [names[result.key] for result in sweep.results]
    figure, axes = new_figure(9.0, 3.4)
    pair = ("macro_f1", "tail_f1") if "macro_f1" in table else ("mae", "corr")
    titles = sweep.results[0].task.titles
    for i, (line, own) in enumerate(table.groupby("line", sort=False)):
        for style, metric in zip(("-", "--"), pair, strict=True):
            by = own.assign(**{metric: own[metric].astype(float)}).groupby(axis)[metric]
            mean, sd = by.mean(), by.std().fillna(0)
            label = f"{line}, {titles.get(metric, metric)}"
            axes.errorbar(mean.index.astype(str), mean, yerr=sd, fmt=f"o{style}", capsize=3,
                          color=_color(i), label=label)  # fmt: skip
    axes.set_xlabel(axis)
    axes.set_ylabel("test score, mean ± sd over seeds")
    axes.set_title("Sensitivity", loc="left")
    side_legend(axes)
    return figure


def feature_map(store: RunStore, results: Sequence[RunResult]) -> Figure | None:
    """Test features of the best four methods in two principal components."""
    chosen = _with_features(store, results)[:4]
    if not chosen:
        return None
    figure = Figure(figsize=(3.1 * len(chosen) + 1.2, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(chosen), squeeze=False)[0]
    classes = chosen[0][0].classes
    name_of = setting_names(results)
    for cell, (result, features, labels) in zip(grid, chosen, strict=True):
        rows = np.random.default_rng(0).permutation(len(labels))[:MAP_POINTS]
        points = PCA(2, random_state=0).fit_transform(features[rows].astype(np.float32))
        colors = class_colors(len(classes))
        for c, name in enumerate(classes):
            own = labels[rows] == c
            cell.scatter(*points[own].T, s=9, alpha=0.75, lw=0, label=name,
                         color=colors[c])  # fmt: skip
        cell.set_title(name_of[result.key], fontsize=9)
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
    settings = by_setting([r for r in results if trained_part(r.spec) == r.spec])
    first = [(s.first.test["macro_f1"], s.first) for s in settings]
    scored = [(value, result) for value, result in first if value is not None]
    matches = []
    for _, result in sorted(scored, key=lambda pair: -pair[0]):
        with np.load(store.path(result.key) / "features.npz") as file:
            features, labels = file["features"], file["labels"]
        if features.shape[1] > 2:
            matches.append((result, features, labels))
    return matches


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
    """Axes with two thin sides and small gray ticks."""
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
    """Colors of ``count`` classes: distinct when few, shaded when many."""
    from matplotlib import colormaps

    if count <= len(COLORS):
        return list(COLORS[:count])
    return [colormaps["viridis"](c / (count - 1)) for c in range(count)]


def line_style(i: int) -> dict[str, Any]:
    """Color and dashes of the i-th line of a picture."""
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
    """Places for labels, in fractions of the axes: right of the points, none over another."""
    order = np.argsort(np.asarray(y))
    low, high = float(np.min(y)), float(np.max(y))
    span = (high - low) or 1.0
    heights = 0.1 + 0.8 * (np.asarray(y, dtype=float) - low) / span
    gap = min(0.062, 0.9 / max(1, len(heights)))
    placed = np.zeros(len(heights))
    last = -1.0
    for i in order:
        placed[i] = last = max(heights[i], last + gap)
    excess = max(0.0, last - 0.97)
    placed -= excess * (placed - placed.min()) / max(last - placed.min(), 1e-9)
    return [(0.80, float(place)) for place in placed]
