"""Which rows: splits, long-tailed subsamples and balanced draws, from labels to indices.

Pure functions of labels and a seed; every index array is sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from valence.errors import DataError


def stratified_split(
    labels: np.ndarray, fraction: float, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows so that every class gives about ``fraction`` of its rows to the second part.

    A class with one row keeps it in the first part; a class with more gives at least one.

    Args:
        labels: (N,) class ids.
        fraction: Fraction of the rows in the second part, in (0, 1).
        seed: Decides which rows.

    Returns:
        Indices (first, second).
    """
    order, rank, sizes = _shuffled_ranks(labels, seed)
    counts = np.clip(np.round(sizes * fraction).astype(int), (sizes > 1).astype(int), sizes - 1)
    second = rank < np.maximum(counts, 0)[labels[order]]
    return np.sort(order[~second]), np.sort(order[second])


def longtail_counts(
    available: Sequence[int] | np.ndarray,
    *,
    ratio: float | None = None,
    total: int | None = None,
    head: int | None = None,
    profile: Literal["exponential", "step"] = "exponential",
) -> np.ndarray:
    """Rows per class after subsampling to an imbalance ratio, a total, or both.

    Classes keep their order of size. Exponential: n_c = n_max · ratio^(−c/(C−1)) from the
    largest to the smallest; step: the larger half keeps n_max, the smaller half n_max /
    ratio. n_max is the largest for which no class needs more rows than it has. A total
    without a ratio thins all classes alike; with one, the whole profile is scaled. A given
    ``head`` is n_max; classes that have fewer rows than the profile asks for keep them all.

    Args:
        available: (C,) rows per class.
        ratio: Ratio of the largest to the smallest class.
        total: Rows in all.
        head: Rows of the largest class.
        profile: Shape of the fall.

    Returns:
        (C,) rows per class, at least 1 wherever there is a row.

    Raises:
        DataError: if ``total`` is more than there are, or fewer than there are classes.
    """
    sizes = np.asarray(available, dtype=np.int64)
    targets = sizes.astype(float)
    if ratio is not None:
        steps = np.linspace(0, 1, len(sizes)) if len(sizes) > 1 else np.zeros(1)
        if profile == "step":
            steps = (np.arange(len(sizes)) >= (len(sizes) + 1) // 2).astype(float)
        targets = np.empty(len(sizes))
        targets[np.argsort(-sizes, kind="stable")] = ratio**-steps
        targets *= np.min(sizes[sizes > 0] / targets[sizes > 0]) if head is None else head
    if total is not None:
        present = int((sizes > 0).sum())
        if total > sizes.sum() or total < present:
            raise DataError(
                f"Subsampling to {total} rows is not possible: there are {sizes.sum()} rows of "
                f"{present} classes; choose a number between"
            )
        if ratio is not None and total > targets.sum() + len(sizes):
            raise DataError(
                f"Subsampling to {total} rows at ratio {ratio:g} is not possible: the rarest "
                f"classes allow {int(targets.sum())}; use fewer rows or a larger ratio"
            )
        return _apportion(targets, total, sizes)
    return np.minimum(np.maximum(np.round(targets).astype(np.int64), sizes > 0), sizes)


def wrong_labels(
    labels: np.ndarray, fraction: float, likelihood: np.ndarray, *, seed: int
) -> np.ndarray:
    """A copy of ``labels`` in which ``fraction`` of the rows have another class.

    Args:
        labels: (N,) class ids.
        fraction: Fraction of the rows, in [0, 1).
        likelihood: (C, C) weight of each wrong class (column) for a true class (row); the
            diagonal does not count.
        seed: Decides which rows and which classes.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(labels))[: round(fraction * len(labels))]
    weights = np.where(np.eye(len(likelihood), dtype=bool), 0.0, likelihood)
    cumulative = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)[labels[rows]]
    noisy = labels.copy()
    # The first class whose cumulative weight passes the draw; rounding keeps the last at hand.
    noisy[rows] = np.argmax(
        cumulative > rng.random(len(rows))[:, None] * cumulative[:, -1:], axis=1
    )
    return noisy


def take_counts(
    labels: np.ndarray,
    counts: Sequence[int] | np.ndarray,
    *,
    seed: int,
    classes: Sequence[str] = (),
) -> np.ndarray:
    """Indices of ``counts[c]`` rows of every class c, drawn without replacement.

    A class's draws are nested: fewer rows are a part of more rows with the same seed.

    Args:
        labels: (N,) class ids.
        counts: (C,) rows requested per class.
        seed: Decides which rows.
        classes: C names, for the error.

    Raises:
        DataError: if a class has fewer rows than requested.
    """
    requested = np.asarray(counts, dtype=np.int64)
    order, rank, sizes = _shuffled_ranks(labels, seed, len(requested))
    for c in np.flatnonzero(requested > sizes):
        name = repr(classes[int(c)]) if len(classes) else str(c)
        raise DataError(
            f"Class {name} has {sizes[c]} rows, {requested[c]} were requested; use fewer"
        )
    rows: np.ndarray = np.sort(order[rank < requested[labels[order]]])
    return rows


def _shuffled_ranks(
    labels: np.ndarray, seed: int, class_count: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows shuffled and sorted by class; each row's rank in its class; (C,) class sizes."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.bincount(labels, minlength=class_count or 0)
    starts = np.cumsum(sizes) - sizes
    return order, np.arange(len(labels)) - starts[labels[order]], np.asarray(sizes)


def _apportion(targets: np.ndarray, total: int, sizes: np.ndarray) -> np.ndarray:
    """Whole numbers that sum to ``total``, near ``targets``, within 1 … sizes."""
    quotas = targets * (total / targets.sum())
    counts: np.ndarray = np.floor(quotas).astype(np.int64)
    counts = np.minimum(np.maximum(counts, sizes > 0), sizes)
    order = np.argsort(-(quotas - np.floor(quotas)), kind="stable")
    while (rest := total - int(counts.sum())) != 0:
        room = (counts < sizes) if rest > 0 else (counts > 1)
        moved = order[room[order]][: abs(rest)]
        if not len(moved):
            break
        counts[moved] += np.sign(rest)
    return counts
