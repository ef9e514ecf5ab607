"""How far what is known of unlabeled rows can be trusted: a regression on the labels so far.

The scores of the model, the words of the labels and a model that was given each say something
about the class of a row, more on one corpus and less on another. :func:`class_probs` weighs them
by a logistic regression on the labels, with scores of models that were fitted without the row.
Its prior says that they tell nothing, so that without evidence all rows have the same
probabilities. Which rows were chosen for labeling does not bias it: it is a model of the class
given these values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from valence.evaluation.task import softmax

BIAS_SPREAD = 1.0
STEPS = 60
COUNT_PRIOR = 0.5
"""Pseudo-rows of every class in the random sample."""
SMALLEST = 1e-9


@dataclass(frozen=True)
class Evidence:
    """One source.

    Attributes:
        values: (N, C) higher where the class is likelier.
        prior: Expected weight.
        spread: Standard deviation of the weight around it.
        class_spread: Of the weight of a single class around the common one.
    """

    values: np.ndarray
    prior: float
    spread: float
    class_spread: float


def score_evidence(scores: np.ndarray) -> Evidence:
    """Scores of the quick model; those of classes without rows (−∞) tell nothing."""
    return Evidence(np.where(np.isfinite(scores), scores, 0.0), 0.0, 5.0, 2.0)


def word_evidence(affinity: np.ndarray) -> Evidence:
    """Similarity of rows and labels' words, on one scale for all classes."""
    scaled = (affinity - affinity.mean(axis=0)) / np.maximum(affinity.std(axis=0), SMALLEST)
    return Evidence(scaled, 0.0, 0.7, 0.4)


def given_evidence(probs: np.ndarray) -> Evidence:
    """Probabilities of a model that there was before; taken as they are until labels say else."""
    return Evidence(np.log(np.maximum(probs, 1e-4)), 1.0, 0.5, 0.2)


def class_probs(
    sources: Sequence[Evidence], rows: np.ndarray, labels: np.ndarray, sample_counts: np.ndarray
) -> np.ndarray:
    """(N, C) class probabilities of all rows.

    Args:
        sources: What is known; at least one.
        rows: (n,) labeled rows. Their values must not come from their own labels.
        labels: (n,) class ids.
        sample_counts: (C,) labels per class in the random sample.
    """
    from scipy.optimize import minimize

    values = np.stack([source.values for source in sources])
    counts = sample_counts + COUNT_PRIOR
    shares = np.log(counts / counts.sum())
    count, _, size = values.shape
    means = np.zeros((count + 1, size + 1))
    means[:count, 0] = [source.prior for source in sources]
    spreads = np.full((count + 1, size + 1), BIAS_SPREAD)
    spreads[:count, 0] = [source.spread for source in sources]
    spreads[:count, 1:] = np.array([source.class_spread for source in sources])[:, None]
    own, targets = values[:, rows], np.eye(size)[labels]

    def logits(weights: np.ndarray, of: np.ndarray) -> np.ndarray:
        both = weights[:count, :1] + weights[:count, 1:]
        result: np.ndarray = shares + weights[count, 1:] + np.einsum("kc,knc->nc", both, of)
        return result

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(means.shape)
        probs = softmax(logits(weights, own))
        off = (weights - means) / spreads
        gap = probs - targets
        gradient = off / spreads
        by_class = np.einsum("nc,knc->kc", gap, own)
        gradient[:count, 0] += by_class.sum(axis=1)
        gradient[:count, 1:] += by_class
        gradient[count, 1:] += gap.sum(axis=0)
        right = np.maximum((probs * targets).sum(axis=1), 1e-30)
        return float(-np.log(right).sum() + 0.5 * (off**2).sum()), gradient.ravel()

    best = minimize(loss, means.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    return softmax(logits(best.x.reshape(means.shape), values))
