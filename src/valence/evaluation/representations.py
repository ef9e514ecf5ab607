"""How well the features of a model separate its classes, whatever layer reads them.

All measures stay the same when the features are shifted, rotated or scaled. Classes weigh alike,
so that a frequent one does not decide. Sources: Papyan, Han, Donoho 2020, arXiv 2008.08186
(variability within classes against that between them); Fang et al. 2021, arXiv 2101.12699 (means
of rare classes that fall together: minority collapse); Roy, Vetterli 2007 (effective rank).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from valence.evaluation.classification import MetricInfo, mean_defined

REPRESENTATIONS: dict[str, MetricInfo] = {
    "within_between": MetricInfo(
        "within/between",
        "scatter of rows about their class mean over that of the class means; lower separates more",
    ),
    "effective_rank": MetricInfo("effective rank", "directions in which the features vary"),
    "margin": MetricInfo(
        "margin", "cosine of a row with its class mean less that with the nearest other one"
    ),
    "tail_margin": MetricInfo("tail margin", "the same, mean of the tail classes"),
    "tail_cosine": MetricInfo(
        "tail cosine", "cosine of a tail class's mean with the nearest other one; 1: collapsed"
    ),
}


@dataclass(frozen=True)
class Representations:
    """Measures of N features of C classes; NaN where one is undefined.

    Attributes:
        within_between: Mean squared distance of rows from their class mean, over that of the class
            means from their own mean.
        effective_rank: Exponential of the entropy of the singular values of the centered features,
            in [1, H].
        margins: (C,) mean over the rows of the class: cosine with the mean of its other rows, less
            the highest cosine with another class's mean; in [−2, 2].
        nearest: (C,) id of the class whose mean has the highest cosine; −1 where there is none.
        cosines: (C,) that cosine: −1/(C−1) where all means are as far apart as they can be, 1
            where two are one.
        tail: Ids of the tail classes.
    """

    within_between: float
    effective_rank: float
    margins: np.ndarray
    nearest: np.ndarray
    cosines: np.ndarray
    tail: tuple[int, ...] = ()

    def summary(self) -> dict[str, float | None]:
        """Every number of :data:`REPRESENTATIONS`; None where it is undefined."""
        tail = list(self.tail)
        values = {
            "within_between": self.within_between,
            "effective_rank": self.effective_rank,
            "margin": float(mean_defined(self.margins)),
            "tail_margin": float(mean_defined(self.margins[tail])),
            "tail_cosine": float(mean_defined(self.cosines[tail])),
        }
        return {name: value if np.isfinite(value) else None for name, value in values.items()}


def representations(
    features: np.ndarray, labels: np.ndarray, class_count: int, *, tail: Sequence[int] = ()
) -> Representations:
    """Measure features (N, H) of rows with class ids (N,).

    Cosines are taken from the mean of the class means. The margin of a row leaves the row itself
    out of its class mean; a class of one row has none.

    Args:
        features: (N, H) pooled vectors, as in ``Outputs.features``.
        labels: (N,) class ids below ``class_count``.
        class_count: C; classes without rows are left out of every mean.
        tail: Ids of the tail classes.

    Raises:
        ValueError: if features and labels are of different lengths.
    """
    if len(features) != len(labels):
        raise ValueError(f"{len(features)} features and {len(labels)} labels")
    rows = np.asarray(features, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.int64)
    counts = np.bincount(labels, minlength=class_count)
    present = counts > 0
    nothing = np.full(class_count, np.nan)
    if present.sum() < 2 or not rows.shape[1]:
        no_class = np.full(class_count, -1)
        return Representations(np.nan, np.nan, nothing, no_class, nothing, tuple(tail))
    sums = np.zeros((class_count, rows.shape[1]))
    np.add.at(sums, labels, rows)
    means = sums / np.maximum(counts, 1)[:, None]
    center = means[present].mean(axis=0)
    squares = np.bincount(labels, ((rows - means[labels]) ** 2).sum(axis=1), class_count)
    within = (squares[present] / counts[present]).mean()
    between = ((means[present] - center) ** 2).sum(axis=1).mean()
    nearest, cosines = _nearest(means - center, present)
    return Representations(
        float(within / between) if between > 0 else np.nan,
        effective_rank(rows),
        _margins(rows - center, labels, means - center, counts),
        nearest,
        cosines,
        tuple(tail),
    )


def effective_rank(rows: np.ndarray) -> float:
    """Exponential of the entropy of the singular values of centered (N, H) rows; NaN of none.

    Takes O(N·H·min(N, H)) time.
    """
    centered = rows - rows.mean(axis=0)
    narrow = centered.T @ centered if rows.shape[1] <= len(rows) else centered @ centered.T
    values = np.sqrt(np.clip(np.linalg.eigvalsh(narrow), 0, None))
    values = values[values > values.max(initial=0.0) * 1e-6]
    if not len(values):
        return float("nan")
    probs = values / values.sum()
    return float(np.exp(-(probs * np.log(probs)).sum()))


def _nearest(means: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of C means (C, H) the id of the nearest other one, and its cosine."""
    unit = _unit(means)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    cosines[:, ~present] = -np.inf
    highest = np.where(present, cosines.max(axis=1), np.nan)
    return np.where(present, cosines.argmax(axis=1), -1), highest


def _margins(
    rows: np.ndarray, labels: np.ndarray, means: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """(C,) mean margin of the rows (N, H) of each class."""
    unit = _unit(rows)
    cosines = unit @ _unit(means).T
    cosines[:, counts == 0] = -np.inf
    own = counts[labels]
    others = (own[:, None] * means[labels] - rows) / np.maximum(own - 1, 1)[:, None]
    to_own = (unit * _unit(others)).sum(axis=1)
    cosines[np.arange(len(rows)), labels] = -np.inf
    margins = np.where(own > 1, to_own - cosines.max(axis=1), np.nan)
    total = np.bincount(labels, np.nan_to_num(margins), len(counts))
    return np.where(counts > 1, total / np.maximum(counts, 1), np.nan)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """(N, H) vectors of length 1; those of no length stay 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit
