"""Which rows to label next: the table :data:`STRATEGIES`. A new one is a function and an entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from valence.errors import UnknownNameError
from valence.labeling.evidence import (
    class_probs,
    given_evidence,
    score_evidence,
    word_evidence,
)

TINY = 1e-12
GAIN_EXPONENT = 1.5
"""F1 of a class rises about as 1 − b / √n, so that the n-th label adds about n to the −1.5."""
WORDS_SHARPNESS = 1.5
"""Before the first fit: weight of a row's similarity with a label's words, in standard units."""


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
        scores: (N, C) scores of the model, of labeled rows by a model without them; None before
            the first fit.
        given: (N, C) probabilities of a model that there was before; None without one.
        sample_counts: (C,) labels per class in the random sample; of all labels when None.
    """

    candidates: np.ndarray
    embeddings: np.ndarray
    labeled: np.ndarray
    labels: np.ndarray
    class_count: int
    probs: np.ndarray | None = None
    affinity: np.ndarray | None = None
    distance: np.ndarray = field(default_factory=lambda: np.zeros(0))
    scores: np.ndarray | None = None
    given: np.ndarray | None = None
    sample_counts: np.ndarray | None = None

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
    has. So often a class is drawn, and then a row in proportion to its probability of the class.
    The probabilities are those that the labels so far bear out
    (:func:`~valence.labeling.evidence.class_probs`): where nothing is known of the classes, all
    rows have the same ones, and the draw is a random one.
    """
    keys = np.log(class_density(pool)[pool.candidates] + TINY)
    keys += rng.gumbel(size=len(keys))
    return pool.candidates[np.argsort(-keys)[:count]]


def class_density(pool: PoolView) -> np.ndarray:
    """(N,) odds of drawing each row, relative to a random one: their mean is 1."""
    value = (pool.counts + 1.0) ** -GAIN_EXPONENT
    probs = _class_probs(pool)
    density: np.ndarray = (probs / np.maximum(probs.mean(axis=0), TINY)) @ (value / value.sum())
    return density


def _class_probs(pool: PoolView) -> np.ndarray:
    """(N, C) what is known of the class of every row, up to a factor by class."""
    words = None if pool.affinity is None else word_evidence(pool.affinity)
    if pool.scores is None:  # no labels yet
        if pool.given is not None:
            return pool.given
        if words is None:
            return np.ones((len(pool.embeddings), pool.class_count))
        return np.exp(np.clip(WORDS_SHARPNESS * words.values, -30, 30))
    sources = [score_evidence(pool.scores)]
    if pool.given is not None:
        sources.append(given_evidence(pool.given))
    if words is not None:
        sources.append(words)
    counts = pool.counts if pool.sample_counts is None else pool.sample_counts
    return class_probs(sources, pool.labeled, pool.labels, counts)


def _largest(pool: PoolView, worth: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Candidates of the largest worth; ties in random order."""
    order = np.lexsort((rng.random(len(worth)), -worth))
    return pool.candidates[order[:count]]


def _distances(rows: np.ndarray, row: np.ndarray) -> np.ndarray:
    """(M,) distances of vectors of length 1 to one of them."""
    distances: np.ndarray = np.sqrt(np.maximum(2.0 - 2.0 * (rows @ row), 0.0))
    return distances


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
