"""Which rows to label next: the table :data:`STRATEGIES`. A new one is a function and an entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from valence.errors import UnknownNameError

TINY = 1e-12
GAIN_EXPONENT = 1.5
"""F1 of a class rises about as 1 − b / √n, so that the n-th label adds about n to the −1.5."""
SHARPNESS = 4.0
"""Power of a row's worth in the odds that it is drawn."""
REPEAT_POWER = 4
"""Of the cosine of two texts: the part of the worth that the second loses by the first."""
DOUBT_PART = 0.5
"""Weight of a class's doubt 4p(1 − p) beside its probability."""


@dataclass(frozen=True)
class PoolView:
    """What a strategy sees.

    Attributes:
        candidates: (M,) row numbers that may be chosen.
        embeddings: (N, D) vectors of all rows, of length 1.
        labeled: (n,) row numbers that have labels.
        labels: (n,) their class ids.
        class_count: C.
        probs: (N, C) probabilities at the class shares of the pool; None before the first fit.
        affinity: (N, C) similarity of every row with every label's words; None without words.
        distance: (N,) distance to the nearest labeled row; 2 where none is labeled.
    """

    candidates: np.ndarray
    embeddings: np.ndarray
    labeled: np.ndarray
    labels: np.ndarray
    class_count: int
    probs: np.ndarray | None = None
    affinity: np.ndarray | None = None
    distance: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def counts(self) -> np.ndarray:
        """(C,) labels per class."""
        return np.bincount(self.labels, minlength=self.class_count)


Choose = Callable[[PoolView, int, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Strategy:
    """One entry.

    Attributes:
        choose: (pool, how many, generator) → row numbers, all different, all candidates.
        title: One line.
        source: Where it comes from.
        own_start: Whether it chooses the first rows too; else they are random.
    """

    choose: Choose
    title: str
    source: str = ""
    own_start: bool = False


def by_random(pool: PoolView, count: int, rng: np.random.Generator) -> np.ndarray:
    """Any rows."""
    return rng.choice(pool.candidates, min(count, len(pool.candidates)), replace=False)


def by_entropy(pool: PoolView, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of the largest prediction entropy."""
    if pool.probs is None:
        return by_random(pool, count, rng)
    own = pool.probs[pool.candidates]
    return _largest(pool, -(own * np.log(own + TINY)).sum(axis=1), count, rng)


def by_margin(pool: PoolView, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows whose two most probable classes are closest."""
    if pool.probs is None:
        return by_random(pool, count, rng)
    top = np.partition(pool.probs[pool.candidates], -2, axis=1)[:, -2:]
    return _largest(pool, -(top[:, 1] - top[:, 0]), count, rng)


def by_k_center(pool: PoolView, count: int, rng: np.random.Generator) -> np.ndarray:
    """Greedy k-center: the row farthest from all labeled and chosen ones, again and again."""
    own = pool.embeddings[pool.candidates]
    nearest = pool.distance[pool.candidates].astype(np.float64)
    chosen: list[int] = []
    for _ in range(min(count, len(own))):
        if not len(pool.labeled) and not chosen:
            at = int(rng.integers(len(own)))
        else:
            at = int(np.argmax(nearest))
        chosen.append(at)
        nearest = np.minimum(nearest, _distances(own, own[at]))
        nearest[at] = -1.0
    return pool.candidates[chosen]


def by_badge(pool: PoolView, count: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++ over gradient embeddings: the gap of the predicted probabilities, times the text.

    Distances of the outer products are computed from their two factors.
    """
    if pool.probs is None:
        return by_k_center(pool, count, rng)
    probs, texts = pool.probs[pool.candidates], pool.embeddings[pool.candidates]
    gaps = probs.copy()
    gaps[np.arange(len(gaps)), probs.argmax(axis=1)] -= 1.0
    norms = (gaps**2).sum(axis=1) * (texts**2).sum(axis=1)
    at = int(np.argmax(norms))
    chosen = [at]
    squared = np.full(len(gaps), np.inf)
    for _ in range(min(count, len(gaps)) - 1):
        inner = (gaps @ gaps[at]) * (texts @ texts[at])
        squared = np.minimum(squared, np.maximum(norms + norms[at] - 2 * inner, 0.0))
        squared[chosen] = 0.0
        total = squared.sum()
        if total <= 0:
            rest = np.setdiff1d(np.arange(len(gaps)), chosen)
            at = int(rng.choice(rest))
        else:
            at = int(rng.choice(len(gaps), p=squared / total))
        chosen.append(at)
    return pool.candidates[chosen]


def by_tail_first(pool: PoolView, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of a large expected gain for the macro-F1; the classes with few labels first.

    A label of class c is worth what F1 of the class gains by it, which falls with the labels it
    has. A row is worth the sum over classes of its probability times that, more where the class is
    in doubt. Classes without labels are looked for by the words of their labels. Rows are drawn,
    with odds of their worth to a power: where the model knows little, all are worth alike and the
    draw is a random one. Each row lowers the worth of its probable classes and of similar rows.
    """
    candidates = pool.candidates
    if pool.probs is None and pool.affinity is None:
        return by_k_center(pool, count, rng)
    texts, need = pool.embeddings[candidates], pool.counts.astype(float)
    probs = _expected_classes(pool)
    doubt = probs * (1 + DOUBT_PART * (4 * probs * (1 - probs)))
    nearness = np.zeros(len(candidates))
    chosen: list[int] = []
    noise = rng.gumbel(size=len(candidates))
    for _ in range(min(count, len(candidates))):
        worth = (doubt @ ((need + 1.0) ** -GAIN_EXPONENT)) * (1 - nearness)
        keys = SHARPNESS * np.log(worth + TINY) + noise
        keys[chosen] = -np.inf
        at = int(np.argmax(keys))
        chosen.append(at)
        need += probs[at]
        alike = np.clip(texts @ texts[at], 0.0, 1.0) ** REPEAT_POWER
        nearness = np.maximum(nearness, alike)
    return candidates[chosen]


def _expected_classes(pool: PoolView) -> np.ndarray:
    """(M, C) probabilities of the candidates; a class without labels gets them from its words."""
    own = pool.candidates
    unseen = pool.counts == 0
    if pool.probs is None:
        probs = np.zeros((len(own), pool.class_count))
        share = 1.0
    else:
        probs = pool.probs[own].copy()
        share = float(unseen.mean()) / 2
    if not unseen.any():
        return probs
    if pool.affinity is not None:
        likeness = _ranks_by_column(pool.affinity[own][:, unseen]) ** 8
    else:
        likeness = np.repeat(_ranks(pool.distance[own])[:, None], int(unseen.sum()), axis=1)
    probs *= 1 - share
    probs[:, unseen] = share * likeness / int(unseen.sum())
    return probs


def _largest(pool: PoolView, worth: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Candidates of the largest worth; ties in random order."""
    order = np.lexsort((rng.random(len(worth)), -worth))
    return pool.candidates[order[:count]]


def _distances(rows: np.ndarray, row: np.ndarray) -> np.ndarray:
    """(M,) distances of vectors of length 1 to one of them."""
    distances: np.ndarray = np.sqrt(np.maximum(2.0 - 2.0 * (rows @ row), 0.0))
    return distances


def _ranks(values: np.ndarray) -> np.ndarray:
    """(M,) ranks in [0, 1]."""
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks / max(1, len(values) - 1)


def _ranks_by_column(values: np.ndarray) -> np.ndarray:
    return np.stack([_ranks(column) for column in values.T], axis=1)


STRATEGIES: dict[str, Strategy] = {
    "tail-first": Strategy(
        by_tail_first, "expected gain for the macro-F1, rare classes first", own_start=True
    ),
    "random": Strategy(by_random, "any rows"),
    "entropy": Strategy(by_entropy, "largest prediction entropy", "Holub et al. 2008, CVPR"),
    "margin": Strategy(by_margin, "smallest margin of two classes", "Scheffer et al. 2001, IDA"),
    "k-center": Strategy(
        by_k_center, "farthest from what is labeled", "Sener & Savarese 2018, ICLR", own_start=True
    ),
    "badge": Strategy(
        by_badge, "k-means++ over gradient embeddings", "Ash et al. 2020, ICLR"
    ),
}  # fmt: skip
"""Every strategy by name."""
DEFAULT_STRATEGY = "tail-first"


def find_strategy(name: str) -> Strategy:
    """An entry of the table.

    Raises:
        UnknownNameError: if there is none of that name.
    """
    if name not in STRATEGIES:
        raise UnknownNameError("strategy", name, STRATEGIES)
    return STRATEGIES[name]
