"""How sure a difference of two macro-F1 on the same rows is."""

from __future__ import annotations

import numpy as np

from valence.evaluation.classification import ClassCounts, mean_defined

RESAMPLES = 400


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
