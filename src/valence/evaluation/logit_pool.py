"""Weights of models whose logits are added: the logarithmic pool of least log loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from valence.evaluation.task import softmax

SMALLEST = 1e-12  # probability
LOWEST = 20.0
"""Times the usual distance from the largest logit of a row: what is further is a class that a model
has not seen, and would drown what it says of the others."""


def pool_weights(
    logits: Sequence[np.ndarray], labels: np.ndarray, row_weights: np.ndarray
) -> np.ndarray:
    """(K,) weights, none negative, with which the sum of logits has the least log loss.

    The problem is convex. The weights calibrate too: their size is an inverse temperature.

    Args:
        logits: K times (N, C), of rows that the models were fitted without.
        labels: (N,) true ids.
        row_weights: (N,) what each row counts.
    """
    from scipy.optimize import minimize

    bounded = [_bounded(one) for one in logits]
    scales = np.array([max(1e-9, float(one.std())) for one in bounded])
    parts = np.stack([one / scale for one, scale in zip(bounded, scales, strict=True)])
    rows, counts = np.arange(len(labels)), row_weights / row_weights.sum()

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        probs = softmax(np.tensordot(weights, parts, 1))
        value = -float(counts @ np.log(np.maximum(probs[rows, labels], SMALLEST)))
        probs[rows, labels] -= 1
        return value, np.tensordot(parts, probs * counts[:, None], 2)

    start = np.full(len(parts), 1 / len(parts))
    fit = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(parts))
    weights: np.ndarray = fit.x / scales
    return weights


def _bounded(logits: np.ndarray) -> np.ndarray:
    """(N, C) logits less the largest of their row, none much lower than is usual."""
    below = logits - logits.max(axis=1, keepdims=True)
    usual = float(np.median(below[below < 0])) if (below < 0).any() else 0.0
    bounded: np.ndarray = np.maximum(below, LOWEST * usual)
    return bounded


def pool_shares(weights: np.ndarray, logits: Sequence[np.ndarray]) -> np.ndarray:
    """(K,) what each model contributes to the spread of the sum; they add up to 1.

    Args:
        weights: (K,).
        logits: K times (N, C).
    """
    spreads = np.array([float(_bounded(one).std()) for one in logits])
    parts = weights * spreads
    total = parts.sum()
    shares: np.ndarray = parts / total if total > 0 else np.full(len(parts), 1 / len(parts))
    return shares
