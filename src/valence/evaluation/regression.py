"""Scores of a sentiment intensity: (truth, prediction) → numbers by name.

The metrics are those of the literature on MOSI, MOSEI and CH-SIMS, so that numbers compare
with published ones. Only MAE is better when lower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Scale = Literal["mosi", "ch-sims"]


@dataclass(frozen=True)
class IntensityMetric:
    """How a metric is shown.

    Attributes:
        title: Heading of its column.
        explanation: One line for reports.
        published: Its name in MMSA and in the published code.
        scales: Where it is used.
        better: Whether high or low values are good.
    """

    title: str
    explanation: str
    published: str
    scales: tuple[Scale, ...] = ("mosi",)
    better: Literal["high", "low"] = "high"


_BOTH: tuple[Scale, ...] = ("mosi", "ch-sims")

INTENSITY_METRICS: dict[str, IntensityMetric] = {
    "mae": IntensityMetric("MAE", "mean absolute error", "MAE", _BOTH, "low"),
    "corr": IntensityMetric("correlation", "Pearson's correlation with the truth", "Corr", _BOTH),
    "acc2_has0": IntensityMetric(
        "acc-2 has0", "accuracy of negative against the rest, zero included", "Has0_acc_2"
    ),
    "f1_has0": IntensityMetric("F1 has0", "weighted F1 of the same", "Has0_F1_score"),
    "acc2_non0": IntensityMetric(
        "acc-2 non0", "accuracy of negative against positive, rows of truth 0 left out",
        "Non0_acc_2",
    ),
    "f1_non0": IntensityMetric("F1 non0", "weighted F1 of the same", "Non0_F1_score"),
    "acc2": IntensityMetric(
        "acc-2", "accuracy of zero or negative against positive", "Mult_acc_2", ("ch-sims",)
    ),
    "acc3": IntensityMetric(
        "acc-3", "accuracy of negative, neutral (±0.1) and positive", "Mult_acc_3", ("ch-sims",)
    ),
    "acc5": IntensityMetric("acc-5", "accuracy of five steps of intensity", "Mult_acc_5", _BOTH),
    "acc7": IntensityMetric("acc-7", "accuracy of whole steps from -3 to 3", "Mult_acc_7"),
    "f1": IntensityMetric("F1", "weighted F1 of acc-2", "F1_score", ("ch-sims",)),
}  # fmt: skip
"""The metrics by name."""

# Upper ends of the bins of CH-SIMS; a value at an end belongs to the bin below it.
_SIMS_BINS = {"acc2": (0.0,), "acc3": (-0.1, 0.1), "acc5": (-0.7, -0.1, 0.1, 0.7)}


def intensity_scores(
    truth: np.ndarray, predicted: np.ndarray, *, scale: Scale = "mosi"
) -> dict[str, float | None]:
    """Every metric of :data:`INTENSITY_METRICS` that belongs to ``scale``.

    A score that is undefined (the correlation of a constant, a binary score where every
    truth is 0) is None.

    Args:
        truth: (N,) intensities.
        predicted: (N,) predictions.
        scale: ``"mosi"`` for [-3, 3] (MOSI, MOSEI), ``"ch-sims"`` for [-1, 1]; the latter
            clips predictions and truth to its range first, as published.

    Raises:
        ValueError: if the two differ in length or there are no rows.
    """
    # The bins are applied in single precision: a label of 0.1 must fall where it fell there.
    y = np.asarray(truth, dtype=np.float32).reshape(-1)
    p = np.asarray(predicted, dtype=np.float32).reshape(-1)
    if len(y) != len(p) or not len(y):
        raise ValueError(f"{len(p)} predictions for {len(y)} labels")
    return _sims_scores(y, p) if scale == "ch-sims" else _mosi_scores(y, p)


def _mosi_scores(y: np.ndarray, p: np.ndarray) -> dict[str, float | None]:
    signed = y != 0
    return {
        **_error_and_correlation(y, p),
        "acc2_has0": _accuracy(y >= 0, p >= 0),
        "f1_has0": _weighted_f1(y >= 0, p >= 0),
        "acc2_non0": _accuracy(y[signed] > 0, p[signed] > 0),
        "f1_non0": _weighted_f1(y[signed] > 0, p[signed] > 0),
        "acc5": _accuracy(_rounded(y, 2), _rounded(p, 2)),
        "acc7": _accuracy(_rounded(y, 3), _rounded(p, 3)),
    }


def _sims_scores(y: np.ndarray, p: np.ndarray) -> dict[str, float | None]:
    y, p = y.clip(-1, 1), p.clip(-1, 1)
    ends = {name: np.asarray(values, dtype=np.float32) for name, values in _SIMS_BINS.items()}
    bins = {name: (np.searchsorted(e, y), np.searchsorted(e, p)) for name, e in ends.items()}
    return {
        **_error_and_correlation(y, p),
        **{name: _accuracy(*steps) for name, steps in bins.items()},
        "f1": _weighted_f1(bins["acc2"][0] > 0, bins["acc2"][1] > 0),
    }


def _error_and_correlation(y: np.ndarray, p: np.ndarray) -> dict[str, float | None]:
    error = np.abs(y.astype(np.float64) - p).mean()
    return {"mae": float(error) if np.isfinite(error) else None, "corr": _correlation(y, p)}


def _correlation(y: np.ndarray, p: np.ndarray) -> float | None:
    if not np.isfinite(p).all() or np.ptp(y) == 0 or np.ptp(p) == 0:
        return None
    a, b = (v.astype(np.float64) - v.mean(dtype=np.float64) for v in (y, p))
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else None


def _rounded(values: np.ndarray, most: int) -> np.ndarray:
    return np.round(values.clip(-most, most))


def _accuracy(truth: np.ndarray, predicted: np.ndarray) -> float | None:
    return float((truth == predicted).mean()) if len(truth) else None


def _weighted_f1(truth: np.ndarray, predicted: np.ndarray) -> float | None:
    """Mean F1 of both sides, weighted by their rows in the truth."""
    if not len(truth):
        return None
    total = 0.0
    for side in (False, True):
        true, pred = truth == side, predicted == side
        either = int(true.sum() + pred.sum())
        f1 = 2.0 * int((true & pred).sum()) / either if either else 0.0
        total += f1 * int(true.sum())
    return total / len(truth)


def signed(metric: str, value: float) -> float:
    """The value, negated where lower is better; so of two, the larger is the better."""
    info = INTENSITY_METRICS.get(metric)
    return -value if info is not None and info.better == "low" else value
