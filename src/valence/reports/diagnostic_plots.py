"""Pictures of how a method treats rare classes, and of prototypes while they are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from valence.comparison.settings import by_setting, setting_names
from valence.evaluation.calibration import confidence_curve
from valence.evaluation.classification import mean_defined
from valence.evaluation.representations import REPRESENTATIONS
from valence.evaluation.task import softmax
from valence.reports.plots import (
    class_colors,
    line_style,
    mean_history,
    new_figure,
    quiet_frame,
    side_legend,
)
from valence.reports.tables import runs_table
from valence.runs.store import RunResult, RunStore
from valence.training.diagnostics import REPRESENTATIONS_OF, prototype_cosines, series


def f1_by_size(results: Sequence[RunResult]) -> Figure:
    """F1 of every class against its training rows, one line per method, mean over seeds.

    Classes of like size are taken together: ten bins of the logarithm of the size at most.
    """
    runs = runs_table(results)
    counts = np.maximum(np.asarray(results[0].train_counts), 1)
    classes = results[0].classes
    bins = _bins(counts)
    figure, axes = new_figure(9.0, 3.6)
    places = [float(np.exp(np.log(counts[bins == b]).mean())) for b in np.unique(bins)]
    for i, (method, own) in enumerate(runs.groupby("name", sort=False)):
        values = np.array([float(own[f"f1/{name}"].mean()) for name in classes])
        heights = [float(mean_defined(values[bins == b])) for b in np.unique(bins)]
        axes.plot(places, heights, marker="o", ms=3.5, lw=1.4, label=method, **line_style(i))
    axes.set_xscale("log")
    axes.set_xlabel("training rows of the class (log scale)")
    axes.set_ylabel("F1 on test")
    axes.set_title("F1 by class size", loc="left")
    side_legend(axes)
    return figure


def accuracy_gap(results: Sequence[RunResult]) -> Figure:
    """Accuracy minus macro-F1 of every method, mean over seeds: what the frequent classes hide."""
    runs = runs_table(results)
    gaps = (runs["accuracy"] - runs["macro_f1"]).groupby(runs["name"], sort=False).mean()
    figure, axes = new_figure(9.0, 0.24 * len(gaps) + 1.2)
    axes.barh([str(name) for name in gaps.index], gaps, height=0.62, color=class_colors(1)[0])
    axes.axvline(0, color="#999999", lw=0.8)
    axes.invert_yaxis()
    axes.grid(axis="x", color="#e4e4e4", lw=0.7)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("test accuracy − macro-F1")
    axes.set_title("Accuracy minus macro-F1", loc="left")
    return figure


def reliability(store: RunStore, results: Sequence[RunResult]) -> Figure:
    """Accuracy on test over confidence by method, all seeds together."""
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    names = setting_names(results)
    for result in results:
        rows = store.predictions(result.key)
        test = rows[rows["split"] == "test"]
        logits = test[[f"logit_{i}" for i in range(len(result.classes))]].to_numpy(np.float32)
        probs = softmax(logits)
        parts.setdefault(names[result.key], []).append((test["label"].to_numpy(), probs))
    figure, axes = _reliability_axes()
    for i, (method, own) in enumerate(parts.items()):
        curve = confidence_curve(*(np.concatenate(column) for column in zip(*own, strict=True)))
        label = f"{method} (ECE {curve.gap:.3f})"
        axes.plot(curve.predicted, curve.observed, marker="o", ms=3, lw=1.4, label=label,
                  **line_style(i))  # fmt: skip
    side_legend(axes)
    return figure


def reliability_figure(labels: np.ndarray, probs: Mapping[str, np.ndarray]) -> Figure:
    """Accuracy over confidence of several probabilities (N, C) of rows with labels (N,)."""
    figure, axes = _reliability_axes()
    for i, (name, own) in enumerate(probs.items()):
        curve = confidence_curve(labels, own)
        label = f"{name} (ECE {curve.gap:.3f})"
        axes.plot(curve.predicted, curve.observed, marker="o", ms=3, label=label, **line_style(i))
    side_legend(axes)
    return figure


def _reliability_axes() -> tuple[Figure, Axes]:
    figure, axes = new_figure(7.0, 3.8)
    axes.plot([0, 1], [0, 1], color="#999999", lw=0.8)
    axes.set_xlabel("probability of the predicted class")
    axes.set_ylabel("fraction correct")
    axes.set_title("Reliability of probabilities (ideal: on the diagonal)", loc="left")
    return figure, axes


def prototype_curves(store: RunStore, results: Sequence[RunResult]) -> Figure | None:
    """Prototypes and synthetic samples over steps, first seed of each setting that has them."""
    histories = {
        setting.name: history
        for setting in by_setting(results)
        if prototype_cosines(history := store.history(setting.first.key))
    }
    if not histories:
        return None
    figure = Figure(figsize=(11.0, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    for i, (method, history) in enumerate(histories.items()):
        style = line_style(i)
        steps, mean, low = zip(*prototype_cosines(history), strict=True)
        left.plot(steps, mean, label=method, lw=1.5, **style)
        left.fill_between(steps, low, mean, color=style["color"], alpha=0.08, lw=0)
        for axes, names in (
            (middle, ("positive_similarity", "negative_similarity")), (right, ("diversity",)),
        ):  # fmt: skip
            for name, width in zip(names, (1.5, 0.7), strict=False):
                points = series(history, f"diagnostics/{name}")
                axes.plot(*zip(*points, strict=True), label=method, **{**style, "lw": width})
    titles = (
        "Prototype and class mean: cosine\n(shade: down to the worst class)",
        "Synthetic samples and prototype: cosine\n(thick: positives, thin: negatives)",
        "Diversity of synthetic positives\n(1 − mean cosine of pairs)",
    )
    for axes, title in zip((left, middle, right), titles, strict=True):
        quiet_frame(axes)
        axes.set_title(title, loc="left", fontsize=9)
        axes.set_xlabel("optimizer step", fontsize=8)
    side_legend(right)
    return figure


def representation_curves(store: RunStore, results: Sequence[RunResult]) -> Figure | None:
    """How the features of validation rows separate the classes over steps, mean over seeds.

    None where nothing was trained that has features.
    """
    names = ("within_between", "tail_margin", "tail_cosine", "effective_rank")
    lines = {
        setting.name: points
        for setting in by_setting(results)
        if any(points := [
            mean_history(store, setting, f"{REPRESENTATIONS_OF}{name}") for name in names
        ])
    }  # fmt: skip
    if not lines:
        return None
    figure = Figure(figsize=(12.5, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(names))
    for axes, name, column in zip(grid, names, zip(*lines.values(), strict=True), strict=True):
        for i, (method, points) in enumerate(zip(lines, column, strict=True)):
            if points:
                axes.plot(*zip(*points, strict=True), label=method, lw=1.5, **line_style(i))
        quiet_frame(axes)
        axes.set_title(REPRESENTATIONS[name].title, loc="left", fontsize=9)
        axes.set_xlabel("optimizer step", fontsize=8)
    grid[0].set_yscale("log")
    side_legend(grid[-1])
    return figure


def _bins(counts: np.ndarray) -> np.ndarray:
    """(C,) bin of every class; each class its own where there are few."""
    if len(counts) <= 10:
        return np.argsort(np.argsort(counts, kind="stable"))
    edges = np.geomspace(counts.min(), counts.max() + 1, 11)
    return np.asarray(np.digitize(counts, edges))
