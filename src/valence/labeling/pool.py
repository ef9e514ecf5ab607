"""The state of a pool under labeling, as numbers: labels so far, model, distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from valence.labeling.features import Featurizer, RowFeatures
from valence.labeling.quick_model import (
    QuickModel,
    class_shares,
    fit_quick_model,
    with_shares,
)
from valence.labeling.strategies import PoolView, Strategy


@dataclass
class LabelPool:
    """A pool of N rows and what is known of it.

    Attributes:
        features: Of the rows.
        embeddings: (N, D) of length 1.
        class_count: C.
        affinity: (N, C) similarity of rows and labels' words; None without words.
        given: (N, C) probabilities of a model that there was before; None without one.
        labels: (N,) class ids; −1 where a row has none.
        closed: (N,) rows that are not to be chosen: labeled, skipped or in somebody's hands.
        random: (N,) rows that belong to the random sample.
        model: The last fit.
        probs: (N, C) at the class shares of the pool.
        scores: (N, C).
        shares: (C,) estimated class shares.
        fitted: (n,) rows of the last fit.
    """

    features: RowFeatures
    embeddings: np.ndarray
    class_count: int
    affinity: np.ndarray | None = None
    given: np.ndarray | None = None
    labels: np.ndarray = field(init=False)
    closed: np.ndarray = field(init=False)
    random: np.ndarray = field(init=False)
    model: QuickModel | None = None
    probs: np.ndarray | None = None
    scores: np.ndarray | None = None
    shares: np.ndarray | None = None
    fitted: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        size = len(self.features)
        self.labels = np.full(size, -1, dtype=np.int64)
        self.closed = np.zeros(size, dtype=bool)
        self.random = np.zeros(size, dtype=bool)
        self._nearest = np.full(size, 2.0, dtype=np.float32)
        self._measured = np.zeros(size, dtype=bool)

    @property
    def labeled(self) -> np.ndarray:
        """(n,) row numbers with labels."""
        return np.flatnonzero(self.labels >= 0)

    def set_labels(self, rows: np.ndarray, labels: np.ndarray) -> None:
        """Give rows their labels; −1 takes a label away."""
        self.labels[rows] = labels
        self.closed[rows] = labels >= 0

    def view(self) -> PoolView:
        """What strategies see."""
        labeled = self.labeled
        self._measure(labeled)
        drawn = self.labels[self.random & (self.labels >= 0)]
        return PoolView(
            np.flatnonzero(~self.closed), self.embeddings, labeled, self.labels[labeled],
            self.class_count, self.probs, self.affinity, self._nearest, self._outside_scores(),
            self.given, np.bincount(drawn, minlength=self.class_count),
        )  # fmt: skip

    def choose(self, strategy: Strategy, count: int, rng: np.random.Generator) -> np.ndarray:
        """Row numbers that a strategy wants labeled next."""
        view = self.view()
        if not len(view.candidates):
            return view.candidates
        return strategy.choose(view, count, rng)

    def refit(self) -> bool:
        """Fit the model on all labels; False where two classes have none yet."""
        labeled = self.labeled
        own = self.labels[labeled]
        if len(np.unique(own)) < 2:
            return False
        model = fit_quick_model(self.features.take(labeled), own, self.class_count)
        scores = model.scores(self.features)
        balanced = model.balanced_probs(scores)
        shares = class_shares(balanced, self._first_shares(own))
        self.model, self.scores, self.shares, self.fitted = model, scores, shares, labeled
        probs = with_shares(balanced, shares)
        if self.given is not None:  # the geometric mean of both
            probs = np.sqrt(probs * self.given)
            probs /= np.maximum(probs.sum(axis=1, keepdims=True), 1e-30)
        self.probs = probs
        return True

    def _outside_scores(self) -> np.ndarray | None:
        """(N, C) scores; of the rows that the model was fitted on by a model without them."""
        if self.model is None or self.scores is None:
            return None
        scores = self.scores.copy()
        scores[self.fitted] = np.where(self.model.seen, self.model.out_of_fold, -np.inf)
        return scores

    def _first_shares(self, own: np.ndarray) -> np.ndarray:
        """Class shares as counted on the random sample, one row added for every class."""
        drawn = self.labels[self.random & (self.labels >= 0)]
        counted: np.ndarray = np.bincount(drawn, minlength=self.class_count) + 1.0 * (
            np.bincount(own, minlength=self.class_count) > 0
        )
        counted /= counted.sum()
        return counted

    def _measure(self, labeled: np.ndarray) -> None:
        """Bring the distances to the nearest labeled row up to date."""
        new = labeled[~self._measured[labeled]]
        if len(new):
            inner = (self.embeddings @ self.embeddings[new].T).max(axis=1)
            np.minimum(self._nearest, np.sqrt(np.maximum(2 - 2 * inner, 0)), out=self._nearest)
            self._measured[new] = True


def label_affinity(featurizer: Featurizer, words: Sequence[str]) -> np.ndarray:
    """(N, C) cosine of every row of the pool with the words of every label."""
    cosines: np.ndarray = (
        featurizer.embeddings @ featurizer.embed(featurizer.transform(list(words))).T
    )
    return cosines
