"""How good the model of the labels is, and what more labels would bring: with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from valence.labeling.pool import LabelPool
from valence.labeling.quick_model import fit_quick_model

DRAWS = 2000
LEVEL = 0.95
PRIOR_ROWS = 1.0
"""Pseudo-rows of the prior, in every predicted class."""
ROW_WEIGHT = 0.5
"""Of a sampled row. At 1 the interval covered the macro-F1 in 79% of 180 fits on six corpora."""
WRONG_ROWS = 0.2
"""Least pseudo-rows that are wrong, in every predicted class: no errors so far are not none."""
SHRINKAGE = 2.0
"""Pseudo-rows that draw the precision of a predicted class to that of all."""
FEWEST_ROWS = 20
"""Of the random sample, before anything is estimated."""
CURVE_PARTS = (0.25, 0.4, 0.6, 0.8, 1.0)
CURVE_DRAWS = 300
MORE_LABELS = 100
MISFIT = 0.7
"""Over √n: what the curve itself is off by. In 201 forecasts on seven corpora, an interval of the
drawn rows alone held the gain in 52%, with this term in 96%."""


@dataclass(frozen=True)
class Estimate:
    """Macro-F1 of the current model on the pool.

    Attributes:
        value, low, high: Median and bounds of 95%.
        rows: Rows of the random sample.
    """

    value: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class Forecast:
    """What more labels would bring.

    Attributes:
        labels: How many more.
        gain: Expected change of the macro-F1.
        margin: Half of the width of its interval of 95%.
    """

    labels: int
    gain: float
    margin: float

    def __str__(self) -> str:
        return f"{self.labels} more labels: {self.gain:+.2f} ± {self.margin:.2f}"


def estimate_macro_f1(pool: LabelPool, rng: np.random.Generator) -> Estimate | None:
    """Macro-F1 of the model on the pool, from the rows of the random sample.

    The predictions of all rows are known, so that only the true classes within every predicted
    class are estimated: a Dirichlet posterior. Its prior is one row, right as often as the labeled
    rows that are predicted so. Labeled rows count by the prediction of a model fitted without
    them. Rows that a strategy chose enter by the prior, and bound the size of a class from below.
    A class that nothing is predicted as has an F1 of 0, also where no row of it is labeled yet.

    Returns:
        None where there is no model, or the random sample has fewer than 20 labels.
    """
    sample = np.flatnonzero(pool.random & (pool.labels >= 0))
    if pool.model is None or len(sample) < FEWEST_ROWS:
        return None
    predicted, labeled, size = predictions(pool), pool.labeled, pool.class_count
    totals = np.bincount(predicted, minlength=size)
    known = _joint(predicted[sample], pool.labels[sample], size)
    seen = _joint(predicted[labeled], pool.labels[labeled], size)
    weights = _prior(known, seen) + ROW_WEIGHT * known
    gamma = rng.standard_gamma(np.broadcast_to(np.maximum(weights, 1e-6), (DRAWS, size, size)))
    mixture = gamma / np.maximum(gamma.sum(axis=2, keepdims=True), 1e-300)
    rest = np.maximum(totals - known.sum(axis=1), 0)
    joint = np.maximum(known + rest[:, None] * mixture, seen)
    scores = _macro_f1(joint, totals)
    low, value, high = np.quantile(scores, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    return Estimate(float(value), float(low), float(high), len(sample))


def _prior(known: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(C, C) pseudo-rows of the true class (column) of a predicted one (row).

    Args:
        known: (C, C) rows of the random sample.
        seen: (C, C) all labeled rows.
    """
    size = len(known)
    overall = (np.trace(known) + 1) / (known.sum() + 2)
    precision = (np.diag(seen) + SHRINKAGE * overall) / (seen.sum(axis=1) + SHRINKAGE)
    shares = (known.sum(axis=0) + 0.5) / (known.sum() + 0.5 * size)
    wrong = np.tile(shares, (size, 1))
    np.fill_diagonal(wrong, 0.0)
    wrong /= wrong.sum(axis=1, keepdims=True)
    mass = np.maximum(PRIOR_ROWS * (1 - precision), WRONG_ROWS)
    prior: np.ndarray = wrong * mass[:, None]
    np.fill_diagonal(prior, PRIOR_ROWS * precision)
    return prior


def predictions(pool: LabelPool) -> np.ndarray:
    """(N,) predicted classes; of labeled rows by a model fitted without them."""
    assert pool.scores is not None
    assert pool.model is not None
    predicted: np.ndarray = pool.scores.argmax(axis=1)
    predicted[pool.labeled] = pool.model.out_of_fold.argmax(axis=1)
    return predicted


def forecast(pool: LabelPool, order: Sequence[int], rng: np.random.Generator) -> Forecast | None:
    """The gain of 100 more labels: the learning curve of the labels so far, continued.

    Models are fitted on the first quarter of the labels, and on more of them; each is scored on the
    random sample (rows it was fitted on, by a model without them). The scores are fitted by
    a − b / √n. The interval is that of the drawn rows, for which the curve is fitted anew to
    resampled ones, and of the curve itself.

    Args:
        pool: The pool, with its labels.
        order: The labeled rows in the order in which they were labeled.
        rng: Of the resampling.

    Returns:
        None where there are too few labels for a curve, or a class has none: its first one lifts
        the macro-F1 by more than the curve knows of.
    """
    sample = np.flatnonzero(pool.random & (pool.labels >= 0))
    rows = np.asarray(order, dtype=np.int64)
    rows = rows[pool.labels[rows] >= 0]
    if len(sample) < FEWEST_ROWS or len(rows) < 2 * FEWEST_ROWS:
        return None
    if len(np.unique(pool.labels[rows])) < pool.class_count:
        return None
    sizes, correct = [], []
    for part in CURVE_PARTS:
        own = rows[: round(part * len(rows))]
        if len(np.unique(pool.labels[own])) < 2:
            continue
        model = fit_quick_model(pool.features.take(own), pool.labels[own], pool.class_count)
        predicted = np.full(len(pool.labels), -1, dtype=np.int64)
        predicted[sample] = model.scores(pool.features.take(sample)).argmax(axis=1)
        inside = np.isin(own, sample)
        predicted[own[inside]] = model.out_of_fold[inside].argmax(axis=1)
        sizes.append(len(own))
        correct.append(predicted[sample])
    if len(sizes) < 3:
        return None
    gains = _gains(np.array(sizes), np.stack(correct), pool.labels[sample], pool.class_count, rng)
    drawn = 1.96 * float(gains[1:].std())
    margin = float(np.hypot(drawn, MISFIT / np.sqrt(sizes[-1])))
    return Forecast(MORE_LABELS, float(gains[0]), margin)


def _gains(
    sizes: np.ndarray, predicted: np.ndarray, labels: np.ndarray, class_count: int,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """(1 + R,) gains of more labels: of the rows as they are, and of R resamples."""
    count = len(labels)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=CURVE_DRAWS)
    weights = np.concatenate([np.ones((1, count), dtype=np.int64), weights])
    truth = np.eye(class_count)[labels]
    scores = []
    for own in predicted:
        guess = np.eye(class_count)[own]
        hits = weights @ (truth * guess)
        both = weights @ (truth + guess)
        defined = (weights @ truth) > 0
        f1 = np.where(defined, 2 * hits / np.maximum(both, 1e-12), 0.0)
        scores.append(f1.sum(axis=1) / np.maximum(defined.sum(axis=1), 1))
    curve = np.stack(scores, axis=1)
    steps = sizes**-0.5
    centered = steps - steps.mean()
    slope = (curve - curve.mean(axis=1, keepdims=True)) @ centered / (centered @ centered)
    now, then = sizes[-1] ** -0.5, (sizes[-1] + MORE_LABELS) ** -0.5
    gains: np.ndarray = slope * (then - now)
    return gains


def _joint(predicted: np.ndarray, labels: np.ndarray, size: int) -> np.ndarray:
    """(C, C) rows by predicted and true class."""
    counts = np.bincount(predicted * size + labels, minlength=size * size)
    joint: np.ndarray = counts.reshape(size, size).astype(float)
    return joint


def _macro_f1(joint: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """(S,) macro-F1 of S tables (S, C, C) of predicted and true classes."""
    hits = np.diagonal(joint, axis1=1, axis2=2)
    truth = joint.sum(axis=1)
    f1 = 2 * hits / np.maximum(totals + truth, 1e-12)
    mean: np.ndarray = f1.mean(axis=1)
    return mean
