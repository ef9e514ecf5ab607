"""Replay a labeled corpus as if people labeled it: curves by strategy and seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from valence.evaluation.classification import ClassCounts, confusion, mean_defined
from valence.labeling.features import RowFeatures
from valence.labeling.pool import LabelPool
from valence.labeling.sampling import SamplingSettings
from valence.labeling.strategies import STRATEGIES

RANDOM = "random"
FIRST_FINDS = 10
"""Rows of the rarest class until which labels are counted."""
FIRST_ROWS = 20
"""Labels before the first fit."""
MOST_LABELS = 600


@dataclass(frozen=True)
class ReplayRows:
    """A labeled pool and test rows, with their features.

    Attributes:
        pool, test: Features.
        embeddings: (N, D) of the pool.
        pool_labels, test_labels: (N,) and (M,) class ids.
        classes: Label names.
        affinity: (N, C) similarity of rows and labels' words; None without words.
    """

    pool: RowFeatures
    embeddings: np.ndarray
    pool_labels: np.ndarray
    test: RowFeatures
    test_labels: np.ndarray
    classes: tuple[str, ...]
    affinity: np.ndarray | None = None

    @property
    def rarest(self) -> int:
        """The class with the fewest rows in the pool, of those that have any."""
        counts = np.bincount(self.pool_labels, minlength=len(self.classes))
        return int(np.argmin(np.where(counts > 0, counts, len(self.pool_labels) + 1)))


@dataclass(frozen=True)
class Curve:
    """One replay.

    Attributes:
        strategy, seed: Which one.
        labels: (T,) numbers of labels.
        macro_f1: (T,) on the test rows; NaN before the first fit.
        finds: Labels until the k-th row of the rarest class, for k = 1, 2 …; as many as there are.
        counts: (C,) labels per class at the end.
    """

    strategy: str
    seed: int
    labels: np.ndarray
    macro_f1: np.ndarray
    finds: np.ndarray
    counts: np.ndarray

    def labels_to_find(self, count: int) -> float:
        """Labels until the rarest class has ``count`` rows; infinite where it never had."""
        return float(self.finds[count - 1]) if len(self.finds) >= count else np.inf

    def labels_to_reach(self, score: float) -> float:
        """Labels from which the running mean of three scores is at a value; infinite if never."""
        smooth = smoothed(self.macro_f1)
        reached = np.flatnonzero(smooth >= score)
        if not len(reached):
            return np.inf
        at = int(reached[0])
        if not at or not np.isfinite(smooth[at - 1]):
            return float(self.labels[at])
        low, high = smooth[at - 1], smooth[at]
        part = (score - low) / max(high - low, 1e-12)
        return float(self.labels[at - 1] + part * (self.labels[at] - self.labels[at - 1]))


def smoothed(values: np.ndarray) -> np.ndarray:
    """(T,) means of every value and its two neighbors."""
    filled = np.where(np.isfinite(values), values, 0.0)
    padded = np.concatenate([filled[:1], filled, filled[-1:]])
    mean: np.ndarray = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    return mean


def replay(
    rows: ReplayRows, settings: SamplingSettings, budget: int = MOST_LABELS,
    watch: Callable[[LabelPool], None] | None = None,
) -> Curve:  # fmt: skip
    """Label the pool with its own labels, in the order of a strategy.

    Args:
        rows: The corpus.
        settings: Strategy and seed, and how rows are given out.
        budget: Labels in all.
        watch: Called after every fit.
    """
    rng = np.random.default_rng(settings.seed)
    pool = LabelPool(rows.pool, rows.embeddings, len(rows.classes), rows.affinity)
    order: list[int] = []
    at_random = RandomOrder(len(rows.pool), rng)
    labels, scores = [], []
    budget = min(budget, len(rows.pool))
    while len(order) < budget:
        count = min(settings.batch if order else FIRST_ROWS, budget - len(order))
        batch = _next_batch(pool, count, settings, at_random, rng)
        pool.set_labels(batch, rows.pool_labels[batch])
        order += batch.tolist()
        labels.append(len(order))
        scores.append(_macro_f1(pool, rows) if pool.refit() else np.nan)
        if watch is not None and pool.model is not None:
            watch(pool)
    chosen = rows.pool_labels[np.array(order, dtype=np.int64)]
    return Curve(
        settings.strategy, settings.seed, np.array(labels), np.array(scores),
        np.flatnonzero(chosen == rows.rarest) + 1,
        np.bincount(chosen, minlength=len(rows.classes)),
    )  # fmt: skip


class RandomOrder:
    """A pool in random order: its beginning, as far as it is labeled, is a random sample.

    Rows that a strategy has chosen are labeled already when their turn comes, and count too.

    Args:
        size: Rows of the pool.
        rng: Draws the order.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.order = rng.permutation(size)
        self._place = 0

    def draw(self, pool: LabelPool, count: int) -> np.ndarray:
        """The next ``count`` rows without a label; the sample grows to the last of them."""
        rest = self.order[self._place :]
        places = np.flatnonzero(~pool.closed[rest])[:count]
        if not len(places):
            return np.zeros(0, dtype=np.int64)
        rows: np.ndarray = rest[places]
        self._place += int(places[-1]) + 1
        pool.random[self.order[: self._place]] = True
        pool.closed[rows] = True
        return rows


def _next_batch(
    pool: LabelPool, count: int, settings: SamplingSettings, order: RandomOrder,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    entry = STRATEGIES[settings.strategy]
    is_random = settings.strategy == RANDOM or not (pool.labels.max() >= 0 or entry.own_start)
    drawn = count if is_random else int(rng.binomial(count, settings.random_share))
    at_random = order.draw(pool, drawn)
    if len(at_random) == count:
        return at_random
    chosen = pool.choose(entry, count - len(at_random), rng)
    return np.concatenate([at_random, chosen]).astype(np.int64)


def _macro_f1(pool: LabelPool, rows: ReplayRows) -> float:
    assert pool.model is not None
    predicted = pool.model.scores(rows.test).argmax(axis=1)
    counts = ClassCounts.of(confusion(rows.test_labels, predicted, len(rows.classes)))
    return float(mean_defined(counts.f1))


@dataclass(frozen=True)
class ReplayPlan:
    """What is replayed.

    Attributes:
        strategies: Names of :data:`~valence.labeling.strategies.STRATEGIES`.
        seeds: One replay of each strategy per seed.
        sampling: How rows are given out; its strategy and seed are not read.
        budget: Labels in all.
    """

    strategies: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    budget: int = MOST_LABELS

    def settings(self) -> list[SamplingSettings]:
        """One per replay."""
        return [
            replace(self.sampling, strategy=strategy, seed=seed)
            for seed in self.seeds
            for strategy in self.strategies
        ]


def replay_all(
    rows: ReplayRows, plan: ReplayPlan, progress: Callable[[int, int], None] | None = None
) -> list[Curve]:
    """Every strategy with every seed.

    Args:
        rows: The corpus.
        plan: What is replayed.
        progress: Called with (done, total) replays.
    """
    curves: list[Curve] = []
    everything = plan.settings()
    for settings in everything:
        curves.append(replay(rows, settings, plan.budget))
        if progress is not None:
            progress(len(curves), len(everything))
    return curves
