"""How sure a difference is: paired bootstrap, McNemar and Holm, from run folders alone.

The bootstrap resamples test rows; both methods and all seeds see the same draws. It says how
far the difference would move with other test rows of the same kind. The spread over seeds
(other training draws, other initial weights) is shown beside it, as a standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from valence.errors import DataError, UnknownNameError
from valence.evaluation.classification import f1_of_classes, recall_of_classes
from valence.runs.store import RunResult, RunStore

RESAMPLES = 2000
LEVEL = 0.95
Statistic = Callable[[np.ndarray, Sequence[int]], np.ndarray]


def _macro_f1(counts: np.ndarray, tail: Sequence[int]) -> np.ndarray:
    seen = (counts.sum(-1) + counts.sum(-2)) > 0
    mean: np.ndarray = f1_of_classes(counts).sum(-1) / np.maximum(seen.sum(-1), 1)
    return mean


def _tail_f1(counts: np.ndarray, tail: Sequence[int]) -> np.ndarray:
    mean: np.ndarray = f1_of_classes(counts)[..., list(tail)].mean(-1)
    return mean


def _accuracy(counts: np.ndarray, tail: Sequence[int]) -> np.ndarray:
    share: np.ndarray = np.trace(counts, axis1=-2, axis2=-1) / counts.sum((-2, -1))
    return share


def _balanced_accuracy(counts: np.ndarray, tail: Sequence[int]) -> np.ndarray:
    mean: np.ndarray = np.nanmean(recall_of_classes(counts), axis=-1)
    return mean


STATISTICS: dict[str, Statistic] = {
    "macro_f1": _macro_f1,
    "tail_f1": _tail_f1,
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
}


@dataclass(frozen=True)
class Difference:
    """A difference of two methods, with its interval and two-sided p-value."""

    value: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    labels: np.ndarray,
    ours: np.ndarray,
    baseline: np.ndarray,
    *,
    metric: str = "macro_f1",
    class_count: int,
    tail: Sequence[int] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Difference (ours − baseline) of a metric, averaged over seeds, with a 95% interval.

    The p-value is twice the smaller share of resampled differences on one side of zero,
    with one added to both counts so that it is never 0.

    Args:
        labels: (S, N) or (N,) true ids.
        ours: (S, N) predicted ids of S seeds.
        baseline: (S, N) predicted ids of the other method, same seeds and rows.
        metric: A name of :data:`STATISTICS`.
        class_count: C.
        tail: Ids of the tail classes, for ``tail_f1``.
        resamples: Draws of test rows.
        seed: Of the draws.

    Raises:
        UnknownNameError: if the metric is not in the table.
    """
    if metric not in STATISTICS:
        raise UnknownNameError("metric with an interval", metric, STATISTICS)
    statistic = STATISTICS[metric]
    rows = labels.shape[-1]
    weights = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=resamples)
    weights = np.vstack([np.ones((1, rows)), weights]).astype(np.float32)
    mean = np.zeros(resamples + 1)
    for s in range(len(ours)):  # seeds are few; rows and resamples are one matrix product
        true = labels[s] if labels.ndim == 2 else labels
        for predicted, sign in ((ours[s], 1), (baseline[s], -1)):
            counts = _weighted_confusion(weights, true, predicted, class_count)
            mean += sign * statistic(counts, tail) / len(ours)
    return _difference(float(mean[0]), mean[1:])


def paired_bootstrap_mae(
    labels: np.ndarray,
    ours: np.ndarray,
    baseline: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Difference (ours − baseline) of the MAE, averaged over seeds, with a 95% interval.

    Args:
        labels: (S, N) true intensities.
        ours: (S, N) predictions of S seeds.
        baseline: (S, N) predictions of the other method, same seeds and rows.
        resamples: Draws of test rows.
        seed: Of the draws.
    """
    gaps = (np.abs(ours - labels) - np.abs(baseline - labels)).mean(axis=0, dtype=np.float64)
    rows = len(gaps)
    weights = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=resamples)
    return _difference(float(gaps.mean()), weights @ gaps / rows)


def _difference(value: float, draws: np.ndarray) -> Difference:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    below = (np.sum(draws <= 0) + 1) / (len(draws) + 1)
    above = (np.sum(draws >= 0) + 1) / (len(draws) + 1)
    return Difference(value, float(low), float(high), float(min(1.0, 2 * min(below, above))))


def _weighted_confusion(
    weights: np.ndarray, labels: np.ndarray, predicted: np.ndarray, class_count: int
) -> np.ndarray:
    """(R, C, C) confusion counts of N rows under R weightings (R, N)."""
    cells, index = np.unique(labels * class_count + predicted, return_inverse=True)
    member = np.zeros((len(labels), len(cells)), dtype=np.float32)
    member[np.arange(len(labels)), index] = 1
    counts = np.zeros((len(weights), class_count**2), dtype=np.float64)
    counts[:, cells] = weights @ member
    return counts.reshape(len(weights), class_count, class_count)


def mcnemar(labels: np.ndarray, ours: np.ndarray, baseline: np.ndarray) -> float:
    """Exact two-sided McNemar p-value of the rows that only one method gets right.

    Args:
        labels: (N,) true ids.
        ours: (N,) predicted ids.
        baseline: (N,) predicted ids of the other method.
    """
    gained = int(np.sum((ours == labels) & (baseline != labels)))
    lost = int(np.sum((ours != labels) & (baseline == labels)))
    if gained + lost == 0:
        return 1.0
    return float(stats.binomtest(gained, gained + lost).pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjusted p-values, in the order given (Holm 1979)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    stepped = p[order] * (len(p) - np.arange(len(p)))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted


def across_seeds(ours: Sequence[float], baseline: Sequence[float]) -> float | None:
    """Two-sided paired t-test over seeds; None below three seeds, where it says nothing."""
    if len(ours) < 3 or np.allclose(np.subtract(ours, baseline), 0):
        return None
    return float(stats.ttest_rel(ours, baseline).pvalue)


def against_baseline(
    store: RunStore, results: Sequence[RunResult], baseline: str, *, metric: str = "macro_f1"
) -> pd.DataFrame:
    """Every method of one set-up against ``baseline``, on the seeds both have.

    Args:
        store: Where the predictions are.
        results: Runs of one set-up: same classes and same test rows.
        baseline: Method the others are compared with.
        metric: A name of :data:`STATISTICS`, or ``mae`` where the target is an intensity.

    Returns:
        One row per other method: method, seeds, difference, low, high, p, p_holm,
        p_seeds. Empty where the baseline has no run.

    Raises:
        DataError: if runs of a seed were scored on different test rows.
    """
    by_method: dict[str, dict[int, RunResult]] = {}
    for result in results:
        by_method.setdefault(result.spec.method, {})[result.spec.seed] = result
    theirs = by_method.pop(baseline, {})
    tests = {r.key: _test_rows(store, r) for r in results} if theirs else {}
    records = []
    for method, runs in by_method.items():
        seeds = sorted(set(runs) & set(theirs))
        if not seeds:
            continue
        pairs = [(tests[runs[s].key], tests[theirs[s].key]) for s in seeds]
        if any(list(a["id"]) != list(b["id"]) for a, b in pairs):
            raise DataError(f"{method} and {baseline} were scored on different test rows")
        rows = (
            np.stack([a["label"].to_numpy() for a, _ in pairs]),
            np.stack([a["predicted"].to_numpy() for a, _ in pairs]),
            np.stack([b["predicted"].to_numpy() for _, b in pairs]),
        )
        first = runs[seeds[0]]
        found = (
            paired_bootstrap_mae(*rows) if metric == "mae"
            else paired_bootstrap(
                *rows, metric=metric, class_count=len(first.classes), tail=first.tail
            )
        )  # fmt: skip
        scores = [(runs[s].test[metric] or 0.0, theirs[s].test[metric] or 0.0) for s in seeds]
        p_seeds = across_seeds([a for a, _ in scores], [b for _, b in scores])
        records.append(
            {
                "method": method, "seeds": len(seeds), "difference": found.value,
                "low": found.low, "high": found.high, "p": found.p, "p_seeds": p_seeds,
            }
        )  # fmt: skip
    table = pd.DataFrame(records)
    if len(table):
        table["p_holm"] = holm(table["p"].tolist())
    return table


def _test_rows(store: RunStore, result: RunResult) -> pd.DataFrame:
    rows = store.predictions(result.key)
    return rows[rows["split"] == "test"].reset_index(drop=True)
