"""How sure a difference is: paired bootstrap, t-test over seeds and Holm, from run folders alone.

The bootstrap resamples test rows; both methods and all seeds on the same rows see the same
draws. It says how far the difference would move with different test rows of the same kind. The
spread over seeds (other training draws, other initial weights) is shown beside it, as a
standard deviation, and tested by itself from three seeds on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from valence.comparison.bootstrap import Difference, paired_bootstrap, paired_bootstrap_mae
from valence.comparison.settings import Setting, by_setting
from valence.errors import DataError
from valence.runs.store import RunResult, RunStore

LEAST_SEEDS = 3


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjusted p-values, in the order given (Holm 1979)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    stepped = p[order] * (len(p) - np.arange(len(p)))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted


def across_seeds(ours: Sequence[float], baseline: Sequence[float]) -> float | None:
    """Two-sided paired t-test over seeds.

    None below three seeds, and where all seeds differ by the same: there it says nothing.
    """
    gaps = np.subtract(ours, baseline)
    if len(gaps) < LEAST_SEEDS or np.allclose(gaps, gaps[0]):
        return None
    return float(stats.ttest_rel(ours, baseline).pvalue)


def reference_setting(settings: Sequence[Setting], baseline: str | None) -> Setting | None:
    """The setting the others are compared with: of the baseline's, the one that comes first."""
    return next((setting for setting in settings if setting.method == baseline), None)


def against_baseline(
    store: RunStore, results: Sequence[RunResult], baseline: str, *, metric: str = "macro_f1"
) -> pd.DataFrame:
    """Every method and setting of one set-up against ``baseline``, on the seeds both have.

    Args:
        store: Where the predictions are.
        results: Runs of one set-up: same classes and same test rows.
        baseline: Method the others are compared with; of several settings of it, the first.
        metric: A name of :data:`~valence.comparison.bootstrap.STATISTICS`, or ``mae`` where
            the target is an intensity.

    Returns:
        One row per other setting: name, method, seeds (those compared), difference, low,
        high, p, p_seeds, p_holm. Empty where the baseline has no run.

    Raises:
        DataError: if runs of a seed were scored on different test rows.
    """
    reference = reference_setting(by_setting(results), baseline)
    if reference is None:
        return pd.DataFrame()
    return against_setting(store, results, reference.name, metric=metric)


def against_setting(
    store: RunStore, results: Sequence[RunResult], name: str, *, metric: str = "macro_f1"
) -> pd.DataFrame:
    """As :func:`against_baseline`, against the setting of this name."""
    settings = by_setting(results)
    reference = next(setting for setting in settings if setting.name == name)
    tests = {seed: _test_rows(store, run) for seed, run in reference.runs.items()}
    records = []
    for setting in settings:
        seeds = _shared_seeds(setting, reference, metric)
        if setting is reference or not seeds:
            continue
        pairs = [(_test_rows(store, setting.runs[seed]), tests[seed]) for seed in seeds]
        if any(not np.array_equal(a.ids, b.ids) for a, b in pairs):
            raise DataError(
                f"{setting.name} and {reference.name} were scored on different test rows"
            )
        shown = _tested(pairs, setting.first, metric)
        p_seeds = across_seeds(*_scores(setting, reference, seeds, metric))
        records.append(
            {
                "name": setting.name, "method": setting.method, "seeds": len(seeds),
                "difference": shown.value, "low": shown.low, "high": shown.high, "p": shown.p,
                "p_seeds": p_seeds,
            }
        )  # fmt: skip
    return _with_holm(pd.DataFrame(records))


def score_interval(store: RunStore, setting: Setting, *, metric: str) -> Difference:
    """The mean score of a setting over its seeds, with a 95% interval over test rows.

    Args:
        store: Where the predictions are.
        setting: Its runs.
        metric: As for :func:`against_baseline`.
    """
    tests = [_test_rows(store, run) for run in setting.runs.values()]
    perfect = [_TestRows(rows.ids, rows.labels, rows.labels) for rows in tests]
    gap = _tested(list(zip(tests, perfect, strict=True)), setting.first, metric)
    best = 0.0 if metric == "mae" else 1.0
    value, low, high = (None if n is None else n + best for n in (gap.value, gap.low, gap.high))
    return Difference(value, low, high, None)


def _with_holm(table: pd.DataFrame) -> pd.DataFrame:
    """The table with adjusted p-values; what has no p-value is not among the comparisons."""
    if not len(table):
        return table
    numbers = ["difference", "low", "high", "p", "p_seeds"]
    table[numbers] = table[numbers].astype(float)
    there = table["p"].notna()
    table["p_holm"] = np.nan
    table.loc[there, "p_holm"] = holm(table.loc[there, "p"].tolist())
    return table


def _shared_seeds(setting: Setting, reference: Setting, metric: str) -> list[int]:
    """Seeds that both have, and in which the metric is defined for both."""
    return [
        seed
        for seed in sorted({*setting.runs} & {*reference.runs})
        if setting.runs[seed].test[metric] is not None
        and reference.runs[seed].test[metric] is not None
    ]


def _scores(
    setting: Setting, reference: Setting, seeds: Sequence[int], metric: str
) -> tuple[list[float], list[float]]:
    """The scores of both by seed, which are defined in these seeds."""
    ours, theirs = (
        [value for seed in seeds if (value := side.runs[seed].test[metric]) is not None]
        for side in (setting, reference)
    )
    return ours, theirs


@dataclass(frozen=True)
class _TestRows:
    """Test rows of a run: (N,) ids, true and predicted."""

    ids: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray


def _test_rows(store: RunStore, result: RunResult) -> _TestRows:
    rows = store.predictions(result.key)
    rows = rows.loc[rows["split"] == "test", ["id", "label", "predicted"]]
    return _TestRows(*(rows[name].to_numpy() for name in ("id", "label", "predicted")))


def _tested(
    pairs: Sequence[tuple[_TestRows, _TestRows]], first: RunResult, metric: str
) -> Difference:
    """The bootstrap of the pairs of all seeds; seeds on the same rows share the draws."""
    rows = pairs[0][0]
    same = all(
        np.array_equal(own.ids, rows.ids) and np.array_equal(own.labels, rows.labels)
        for own, _ in pairs
    )
    labels = rows.labels if same else [own.labels for own, _ in pairs]
    ours, theirs = [own.predicted for own, _ in pairs], [other.predicted for _, other in pairs]
    if metric == "mae":
        return paired_bootstrap_mae(labels, ours, theirs)
    return paired_bootstrap(
        labels, ours, theirs, metric=metric, class_count=len(first.classes), tail=first.tail
    )
