"""How sure the difference of two models on the same rows is, in macro-F1 and in log loss."""

from __future__ import annotations

import numpy as np

from valence.evaluation.classification import ClassCounts, mean_defined
from valence.evaluation.task import softmax

RESAMPLES = 400
SMALLEST = 1e-12  # probability


def gain_error(
    before: np.ndarray, after: np.ndarray, labels: np.ndarray, shares: np.ndarray, *, seed: int = 0
) -> float:
    """Standard error of the difference of two expected macro-F1, by a paired bootstrap of rows.

    Rows with the same label and the same two predictions are drawn together, so that the cost does
    not grow with the rows.

    Args:
        before: (N, C) scores whose largest decides.
        after: (N, C) the same of the other model.
        labels: (N,) true ids.
        shares: (C,) expected class shares, to which every true class is scaled.
        seed: Of the draws.
    """
    count = len(shares)
    triples = np.stack([labels, before.argmax(axis=1), after.argmax(axis=1)])
    kinds, rows = np.unique(triples, axis=1, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(rows.sum(), rows / rows.sum(), RESAMPLES)
    old, new = (_macro_f1(drawn, kinds[0] * count + kinds[i], shares) for i in (1, 2))
    return float(np.std(new - old))


def log_loss_gain(
    before: np.ndarray, after: np.ndarray, labels: np.ndarray, row_weights: np.ndarray
) -> tuple[float, float]:
    """How much log loss a second model has less than a first one, and its standard error.

    Args:
        before: (N, C) logits of the first model.
        after: (N, C) logits of the second.
        labels: (N,) true ids.
        row_weights: (N,) what each row counts.
    """
    rows, counts = np.arange(len(labels)), row_weights / row_weights.sum()
    old, new = (
        -np.log(np.maximum(softmax(logits)[rows, labels], SMALLEST)) for logits in (before, after)
    )
    gain = float(counts @ (old - new))
    return gain, float(np.sqrt(counts**2 @ (old - new - gain) ** 2))


def _macro_f1(drawn: np.ndarray, cells: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(R,) macro-F1 of draws (R, K) of kinds, each at a cell of the confusion matrix."""
    from scipy import sparse

    count = len(shares)
    places = sparse.csr_matrix(
        (np.ones(len(cells)), (np.arange(len(cells)), cells)), shape=(len(cells), count * count)
    )
    counts = (places.T @ drawn.T).T.reshape(len(drawn), count, count)
    rows = counts.sum(axis=-1, keepdims=True)
    joint = counts / np.maximum(rows, 1e-12) * shares[:, None]
    return mean_defined(ClassCounts.of(joint).f1)
