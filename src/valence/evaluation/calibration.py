"""Calibration of probabilities: calibration errors and reliability curves.

They are kept apart from the classification metrics: here lower is better, and they never
select weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from valence.evaluation.classification import MetricInfo

BINS = 15
EPS = 1e-12  # smallest probability: keeps the logarithm finite

CALIBRATION_METRICS: dict[str, MetricInfo] = {
    "ece": MetricInfo(
        "ECE", "gap between confidence and accuracy, mean over rows (Guo et al. 2017)"
    ),
    "classwise_ece": MetricInfo(
        "class-wise ECE", "the gap of every class's own probability, mean over classes (Kull 2019)"
    ),
    "log_loss": MetricInfo("log loss", "mean of −log probability of the true class"),
    "brier": MetricInfo("Brier", "mean squared distance of the probabilities from the truth"),
}


@dataclass(frozen=True)
class CalibrationCurve:
    """Non-empty bins of equal width of predicted probability.

    Attributes:
        predicted: (B,) mean probability of each bin.
        observed: (B,) fraction of positives in each bin.
        rows: (B,) rows of each bin.
    """

    predicted: np.ndarray
    observed: np.ndarray
    rows: np.ndarray

    @property
    def gap(self) -> float:
        """Mean absolute difference of the two, weighted by rows; NaN without rows."""
        distance = np.abs(self.predicted - self.observed)
        return float((distance * self.rows).sum() / self.rows.sum()) if len(self.rows) else np.nan


def calibration_curve(
    probs: np.ndarray, outcomes: np.ndarray, bins: int = BINS
) -> CalibrationCurve:
    """The calibration curve of probabilities (N,) of binary outcomes (N,)."""
    place = np.minimum((probs * bins).astype(np.int64), bins - 1)
    rows = np.bincount(place, minlength=bins)
    filled = rows > 0
    sums = np.bincount(place, weights=probs, minlength=bins)
    hits = np.bincount(place, weights=outcomes.astype(np.float64), minlength=bins)
    return CalibrationCurve(sums[filled] / rows[filled], hits[filled] / rows[filled], rows[filled])


def confidence_curve(labels: np.ndarray, probs: np.ndarray) -> CalibrationCurve:
    """The curve of the probability of the predicted class: labels (N,), probs (N, C)."""
    return calibration_curve(probs.max(axis=1), probs.argmax(axis=1) == labels)


def calibration_scores(labels: np.ndarray, probs: np.ndarray) -> dict[str, float]:
    """Every metric of :data:`CALIBRATION_METRICS`.

    Args:
        labels: (N,) true ids; N at least 1.
        probs: (N, C) probabilities.
    """
    probs = np.asarray(probs, dtype=np.float64)
    truth = np.eye(probs.shape[1])[labels]
    own = [calibration_curve(probs[:, c], truth[:, c]).gap for c in range(probs.shape[1])]
    true_probs = probs[np.arange(len(labels)), labels]
    return {
        "ece": confidence_curve(labels, probs).gap,
        "classwise_ece": float(np.mean(own)),
        "log_loss": float(-np.log(np.maximum(true_probs, EPS)).mean()),
        "brier": float(((probs - truth) ** 2).sum(axis=1).mean()),
    }
