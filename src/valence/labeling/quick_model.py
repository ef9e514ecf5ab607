"""The model that is refitted while people label: one ridge regression on cached features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from valence.evaluation.task import softmax
from valence.labeling.features import RowFeatures

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0)
SMALLEST_PRIOR = 1e-3
EM_STEPS = 50
TEMPERATURES = (0.05, 1.0)
"""Bounds: leave-one-out scores of a few rows say that a model knows less than it does."""
PRIOR_ROWS = 5.0
"""Pseudo-rows of the first guess of the class shares, in every step of their estimation."""


@dataclass(frozen=True)
class QuickModel:
    """A fitted model.

    Attributes:
        base: Features of the rows it was fitted on.
        alpha: (n, C) coefficients of these rows.
        bias: (C,).
        temperature: Of the scores, so that their softmax is calibrated for equal class shares.
        out_of_fold: (n, C) scores of its rows, each by a model fitted without it.
        seen: (C,) whether the class has rows.
    """

    base: RowFeatures
    alpha: np.ndarray
    bias: np.ndarray
    temperature: float
    out_of_fold: np.ndarray
    seen: np.ndarray

    def scores(self, features: RowFeatures) -> np.ndarray:
        """(N, C) scores of N rows; the class of the highest one is predicted."""
        raw = features.scores(self.base, self.alpha) + self.bias
        return np.where(self.seen, raw, -np.inf)

    def balanced_probs(self, scores: np.ndarray) -> np.ndarray:
        """(N, C) probabilities where all classes that have rows are equally frequent."""
        return softmax(np.where(self.seen, scores / self.temperature, -1e9))


def fit_quick_model(features: RowFeatures, labels: np.ndarray, class_count: int) -> QuickModel:
    """Fit on n labeled rows; the strength is that of the least leave-one-out error.

    Every row counts N / (C · n_c), so that all classes count alike.

    Args:
        features: Of the rows.
        labels: (n,) class ids, of at least two classes.
        class_count: C.
    """
    from valence.evaluation.calibration import fit_scale
    from valence.training.ridge_path import balanced_weights, dual_path, one_vs_rest

    targets = one_vs_rest(labels, class_count)
    weights = balanced_weights(labels, class_count)
    path = dual_path(features.kernel(), targets, weights, STRENGTHS)
    counts = np.bincount(labels, minlength=class_count)
    judged = np.where(counts[labels] > 1, weights, 0.0)  # a single row has no other to learn from
    if not judged.any():
        judged = weights
    errors = (((path.loo - targets) ** 2).mean(axis=2) * judged).sum(axis=1)
    best = int(errors.argmin())
    seen = counts > 0
    own = np.where(seen, path.loo[best], -1e9)
    temperature, _ = fit_scale(
        np.where(seen, path.loo[best], -30.0), labels, with_bias=False, weights=judged
    )
    return QuickModel(
        features,
        path.weight[best],
        path.bias[best],
        float(np.clip(temperature, *TEMPERATURES)),
        own,
        seen,
    )


def class_shares(probs: np.ndarray, start: np.ndarray) -> np.ndarray:
    """(C,) class shares of a pool: expectation maximization from balanced probabilities.

    Saerens, Latinne & Decaestecker (2002); the first guess counts as a few rows in every step,
    which bounds how far a weak model moves the shares.

    Args:
        probs: (N, C) probabilities for equal class shares.
        start: (C,) first guess, as counted on a random sample.
    """
    start = np.maximum(start, SMALLEST_PRIOR)
    start = start / start.sum()
    shares = start
    weight = PRIOR_ROWS / (PRIOR_ROWS + len(probs) ** 0.5)
    for _ in range(EM_STEPS):
        posterior = with_shares(probs, shares)
        new = (1 - weight) * posterior.mean(axis=0) + weight * start
        moved = float(np.abs(new - shares).max())
        shares = new
        if moved < 1e-5:
            break
    return shares


def with_shares(probs: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(N, C) probabilities for given class shares (C,), of those for equal ones."""
    weighted = probs * shares
    corrected: np.ndarray = weighted / np.maximum(weighted.sum(axis=1, keepdims=True), 1e-30)
    return corrected
