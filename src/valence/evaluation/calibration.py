"""Calibration of probabilities: calibration errors and reliability curves.

They are kept apart from the classification metrics: here lower is better, and they never
select weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from valence.evaluation.classification import MetricInfo

BINS = 15
BIAS_PENALTY = 1e-3  # L2; also fixes the constant that all classes share
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


def fit_scale(
    logits: np.ndarray, labels: np.ndarray, *, with_bias: bool, weights: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """Temperature and biases (C,) of least log loss: a convex fit.

    Temperature scaling (Guo et al. 2017, arXiv 1706.04599), with biases bias-corrected
    (Alexandari, Kundaje & Shrikumar 2020, arXiv 1901.06852).

    Args:
        logits: (N, C).
        labels: (N,) ids.
        with_bias: Fit biases too; they sum to zero.
        weights: (N,) weights of the rows; equal when None.
    """
    count = logits.shape[1]
    truth = np.eye(count)[labels]
    shares = np.full(len(labels), 1 / len(labels)) if weights is None else weights / weights.sum()

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        bias = values[1:] if with_bias else np.zeros(count)
        logs = log_softmax(values[0] * logits + bias, axis=1)
        wrong = (np.exp(logs) - truth) * shares[:, None]
        pull = 2 * BIAS_PENALTY * bias
        slope = np.concatenate([[(wrong * logits).sum()], wrong.sum(axis=0) + pull])
        value = -((logs * truth).sum(axis=1) @ shares) + BIAS_PENALTY * (bias**2).sum()
        return float(value), slope if with_bias else slope[:1]

    start = np.concatenate([[1.0], np.zeros(count if with_bias else 0)])
    bounds = [(0.02, 50.0)] + [(None, None)] * (len(start) - 1)
    done = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    bias = done.x[1:] - done.x[1:].mean() if with_bias else np.zeros(count)
    return float(1 / done.x[0]), bias
