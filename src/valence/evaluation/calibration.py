"""Whether probabilities mean what they say: errors of calibration, and the curve behind them.

They stand beside the classification metrics, not among them: here lower is better, and
nothing chooses weights by them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from valence.evaluation.classification import MetricInfo

BINS = 15
SMALLEST = 1e-12  # share: keeps a logarithm finite

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
class Curve:
    """Bins of equal width of predicted probability that have rows.

    Attributes:
        predicted: (B,) mean probability of each bin.
        happened: (B,) share of its rows in which it came true.
        rows: (B,) how many there are.
    """

    predicted: np.ndarray
    happened: np.ndarray
    rows: np.ndarray

    @property
    def gap(self) -> float:
        """Mean distance of both, weighted by rows; NaN where there are none."""
        distance = np.abs(self.predicted - self.happened)
        return float((distance * self.rows).sum() / self.rows.sum()) if len(self.rows) else np.nan


def curve(shares: np.ndarray, came_true: np.ndarray, bins: int = BINS) -> Curve:
    """The reliability curve of probabilities (N,) of events (N,)."""
    place = np.minimum((shares * bins).astype(np.int64), bins - 1)
    rows = np.bincount(place, minlength=bins)
    kept = rows > 0
    sums = np.bincount(place, weights=shares, minlength=bins)
    hits = np.bincount(place, weights=came_true.astype(np.float64), minlength=bins)
    return Curve(sums[kept] / rows[kept], hits[kept] / rows[kept], rows[kept])


def confidence_curve(labels: np.ndarray, shares: np.ndarray) -> Curve:
    """The curve of the probability of the predicted class: labels (N,), shares (N, C)."""
    return curve(shares.max(axis=1), shares.argmax(axis=1) == labels)


def calibration_scores(labels: np.ndarray, shares: np.ndarray) -> dict[str, float]:
    """Every metric of :data:`CALIBRATION_METRICS`.

    Args:
        labels: (N,) true ids; N at least 1.
        shares: (N, C) probabilities.
    """
    shares = np.asarray(shares, dtype=np.float64)
    truth = np.eye(shares.shape[1])[labels]
    own = [curve(shares[:, c], truth[:, c]).gap for c in range(shares.shape[1])]
    chosen = shares[np.arange(len(labels)), labels]
    return {
        "ece": confidence_curve(labels, shares).gap,
        "classwise_ece": float(np.mean(own)),
        "log_loss": float(-np.log(np.maximum(chosen, SMALLEST)).mean()),
        "brier": float(((shares - truth) ** 2).sum(axis=1).mean()),
    }
