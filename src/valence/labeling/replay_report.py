"""The report of a simulation: curves and a table, as a page and as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from valence.config.data import DataSpec
from valence.errors import DataError
from valence.labeling.features import NO_ENCODER, Featurizer, KernelFeatures
from valence.labeling.pool import label_affinity
from valence.labeling.replay import (
    FIRST_FINDS,
    Curve,
    ReplayPlan,
    ReplayRows,
    replay_all,
    smoothed,
)
from valence.pages.page import embedded, render_page
from valence.reports.figures import PageFigures
from valence.reports.plots import COLORS, STYLES, new_figure, side_legend
from valence.storage import atomic

BASELINE = "random"
SHOWN_LABELS = (100, 200, 400, 600)
MOST_POOL = 20_000
"""Rows of a pool that is replayed; all their inner products are held."""
HEADS = ("strategy", "labels as random", "rarest found", "rarest ×10")


@dataclass(frozen=True)
class Simulation:
    """Replays of one corpus.

    Attributes:
        name: Of the corpus.
        rows: Pool and test rows.
        curves: One per strategy and seed.
        plan: How it was replayed.
        notes: What was guessed or left out.
    """

    name: str
    rows: ReplayRows
    curves: tuple[Curve, ...]
    plan: ReplayPlan
    notes: tuple[str, ...] = ()

    @property
    def strategies(self) -> list[str]:
        """Their names in order."""
        return list(dict.fromkeys(curve.strategy for curve in self.curves))

    def of(self, strategy: str) -> list[Curve]:
        """The replays of a strategy."""
        return [curve for curve in self.curves if curve.strategy == strategy]

    def mean(self, strategy: str) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of labels (T,) and the mean smoothed macro-F1 (T,)."""
        own = self.of(strategy)
        return own[0].labels, np.mean([smoothed(curve.macro_f1) for curve in own], axis=0)

    def labels_as_baseline(self, strategy: str) -> list[float]:
        """Labels of every replay until it is as good as random rows are at the end, on average."""
        if BASELINE not in self.strategies:
            return []
        goal = float(self.mean(BASELINE)[1][-1])
        return [curve.labels_to_reach(goal) for curve in self.of(strategy)]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings and rows for people."""
        labels = self.curves[0].labels
        shown = [n for n in SHOWN_LABELS if n <= labels[-1]]
        heads = [HEADS[0], *(f"F1 at {n}" for n in shown), *HEADS[1:]]
        rows = []
        for name in self.strategies:
            at, mean = self.mean(name)
            scores = [f"{np.interp(n, at, mean):.3f}" for n in shown]
            finds = [
                _spread([c.labels_to_find(k) for c in self.of(name)]) for k in (1, FIRST_FINDS)
            ]
            rows.append([name, *scores, _spread(self.labels_as_baseline(name)), *finds])
        return heads, rows

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        counts = np.bincount(self.rows.pool_labels, minlength=len(self.rows.classes))
        return {
            "data": self.name, "classes": list(self.rows.classes), "pool": counts.tolist(),
            "rarest": self.rows.classes[self.rows.rarest], "test": len(self.rows.test_labels),
            "notes": list(self.notes),
            "curves": [
                {
                    "strategy": c.strategy, "seed": c.seed, "labels": c.labels.tolist(),
                    "macro_f1": [None if np.isnan(v) else round(float(v), 5) for v in c.macro_f1],
                    "finds": c.finds.tolist(), "counts": c.counts.tolist(),
                }
                for c in self.curves
            ],
        }  # fmt: skip


def simulate(
    spec: DataSpec, plan: ReplayPlan, *, out: Path, encoder: str = "auto",
    data_dir: Path | None = None, progress: Callable[[float, str], None] | None = None,
) -> Simulation:  # fmt: skip
    """Replay a corpus and write ``simulation.html``, ``curves.csv`` and ``simulation.json``.

    The training rows are the pool; the test rows are scored after every fit and decide nothing.

    Args:
        spec: The corpus.
        plan: Strategies and seeds, and how rows are given out.
        out: The folder.
        encoder: A frozen encoder, ``auto`` or ``none``.
        data_dir: Folder of corpora.
        progress: Called with the fraction done and a message.

    Raises:
        DataError: if the rows cannot be used.
        RunError: if the folder cannot be written.
    """
    rows, notes = replay_rows(spec, encoder, data_dir, progress)

    def count(done: int, total: int) -> None:
        if progress is not None:
            progress(done / total, f"{done} of {total} replays")

    curves = replay_all(rows, plan, count)
    done = Simulation(spec.name, rows, tuple(curves), plan, notes)
    write_simulation(done, out)
    return done


def replay_rows(
    spec: DataSpec, encoder: str, data_dir: Path | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> tuple[ReplayRows, tuple[str, ...]]:  # fmt: skip
    """Pool and test rows of a corpus with their features, and notes on them.

    Raises:
        DataError: if the rows cannot be used, or are too many.
    """
    from valence.data.sources import load_dataset

    data = load_dataset(spec, data_dir=data_dir)
    train, test = data.train, data.test
    if len(train) > MOST_POOL:
        raise DataError(
            f"{spec.name}: a pool of {len(train)} rows is too large to replay; draw a part with "
            f"--set data.sample={MOST_POOL}"
        )

    def count(done: int, total: int) -> None:
        if progress is not None:
            progress(0.0, f"encoding: {done} of {total} texts")

    featurizer = Featurizer(train.texts, encoder=encoder, progress=count)
    affinity = (
        None if featurizer.encoder == NO_ENCODER else label_affinity(featurizer, data.classes)
    )
    pool = featurizer.pool
    rows = ReplayRows(
        KernelFeatures.of(pool, pool), featurizer.embeddings, train.labels,
        KernelFeatures.of(featurizer.transform(test.texts), pool), test.labels, data.classes,
        affinity,
    )  # fmt: skip
    return rows, (*data.notes, f"encoder: {featurizer.encoder}")


def write_simulation(done: Simulation, out: Path) -> Path:
    """Write the files of a simulation; returns the page.

    Raises:
        RunError: if they cannot be written.
    """
    figures = PageFigures(out / "pictures")
    numbers = figures.add("Macro-F1 on the test rows", _curve_figure(done))
    numbers += figures.add("Rows of the rarest class", _find_figure(done))
    heads, rows = done.table()
    values = {
        "name": done.name, "heads": heads, "rows": rows, "numbers": numbers,
        "charts": figures.charts, "charts_json": embedded(figures.charts),
        "rarest": done.rows.classes[done.rows.rarest], "pool": len(done.rows.pool_labels),
        "rare_rows": int((done.rows.pool_labels == done.rows.rarest).sum()),
        "seeds": len({curve.seed for curve in done.curves}),
        "budget": int(done.curves[0].labels[-1]),
        "notes": done.notes, "share": done.plan.sampling.random_share, "baseline": BASELINE,
    }  # fmt: skip
    atomic.write_text(out / "simulation.json", json.dumps(done.as_json()) + "\n")
    with atomic.new_file(out / "curves.csv") as path:
        _curve_table(done).to_csv(path, index=False)
    page = out / "simulation.html"
    atomic.write_text(page, render_page("valence.labeling", "simulation.html.j2", values))
    return page


def _curve_table(done: Simulation) -> pd.DataFrame:
    parts = [
        pd.DataFrame({
            "strategy": c.strategy, "seed": c.seed, "labels": c.labels, "macro_f1": c.macro_f1,
            "rarest_rows": np.searchsorted(c.finds, c.labels, side="right"),
        })
        for c in done.curves
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _curve_figure(done: Simulation) -> Figure:
    figure, axes = new_figure(8.0, 3.6)
    for i, name in enumerate(done.strategies):
        labels, mean = done.mean(name)
        axes.plot(labels[1:], mean[1:], label=name, **_style(i))
    axes.set(xlabel="labels", ylabel="macro-F1")
    side_legend(axes)
    return figure


def _find_figure(done: Simulation) -> Figure:
    figure, axes = new_figure(8.0, 3.6)
    for i, name in enumerate(done.strategies):
        own = done.of(name)
        counts = [np.searchsorted(c.finds, c.labels, side="right") for c in own]
        axes.plot(own[0].labels, np.mean(counts, axis=0), label=name, **_style(i))
    axes.set(xlabel="labels", ylabel="rows")
    side_legend(axes)
    return figure


def _style(number: int) -> dict[str, Any]:
    return {"color": COLORS[number % len(COLORS)],
            "linestyle": STYLES[number // len(COLORS) % len(STYLES)]}  # fmt: skip


def _spread(values: Sequence[float]) -> str:
    """``84 (60–120)``: the median and the extremes over seeds; ``never`` where it is infinite."""
    if not values:
        return ""
    words = ["never" if np.isinf(v) else f"{v:.0f}" for v in
             (float(np.sort(values)[len(values) // 2]), min(values), max(values))]  # fmt: skip
    return words[0] if len(set(words)) == 1 else f"{words[0]} ({words[1]} to {words[2]})"
