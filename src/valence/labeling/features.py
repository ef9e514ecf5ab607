"""Features of texts for a model that is refitted while people label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from valence.config.sections import AUTO_ENCODER, EncoderSpec

if TYPE_CHECKING:
    from scipy import sparse

    from valence.models.ngrams import Ngrams

TEXT_MIX = 0.3
"""Fraction of the n-grams in the kernel, where there are encoder features too."""
MAX_TERMS = 50_000
"""Of each analyzer."""
NO_ENCODER = "none"
AXES = 128
"""Numbers of an embedding."""
AXES_SAMPLE = 5000


@dataclass(frozen=True)
class TextFeatures:
    """Both views of N texts, scaled so that the kernel is their plain inner product.

    Attributes:
        terms: (N, D₁) n-gram values.
        states: (N, D₂) encoder features; None without an encoder.
    """

    terms: sparse.csr_matrix
    states: np.ndarray | None

    def __len__(self) -> int:
        return int(self.terms.shape[0])

    def take(self, rows: np.ndarray) -> TextFeatures:
        """The rows at some indices."""
        return TextFeatures(self.terms[rows], None if self.states is None else self.states[rows])

    def kernel(self) -> np.ndarray:
        """(N, N) inner products, float64."""
        products = np.asarray((self.terms @ self.terms.T).todense(), dtype=np.float64)
        return products if self.states is None else products + self.states @ self.states.T

    def scores(self, base: TextFeatures, alpha: np.ndarray) -> np.ndarray:
        """(N, C) scores of a model with coefficients ``alpha`` (M, C) on the rows of ``base``."""
        alpha = alpha.astype(np.float32)
        scores: np.ndarray = np.asarray(self.terms @ (base.terms.T @ alpha))
        if self.states is None or base.states is None:
            return scores
        scores += self.states @ (base.states.T @ alpha)
        return scores


@dataclass(frozen=True)
class KernelFeatures:
    """Rows of a corpus whose inner products with its N pool rows are all known.

    Attributes:
        products: (M, N) inner products.
        rows: (M,) their places in the pool; None for other rows.
    """

    products: np.ndarray
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.products)

    @classmethod
    def of(cls, features: TextFeatures, pool: TextFeatures) -> KernelFeatures:
        """All products of some rows with those of a pool."""
        products = np.asarray((features.terms @ pool.terms.T).todense(), dtype=np.float32)
        if features.states is not None and pool.states is not None:
            products = products + features.states @ pool.states.T
        return cls(products, np.arange(len(pool)) if features is pool else None)

    def take(self, rows: np.ndarray) -> KernelFeatures:
        """Some of the rows."""
        return KernelFeatures(self.products[rows], None if self.rows is None else self.rows[rows])

    def kernel(self) -> np.ndarray:
        """(M, M) inner products of the rows, float64."""
        assert self.rows is not None
        return self.products[:, self.rows].astype(np.float64)

    def scores(self, base: KernelFeatures, alpha: np.ndarray) -> np.ndarray:
        """(M, C) scores of a model with coefficients ``alpha`` on the rows of ``base``."""
        assert base.rows is not None
        scores: np.ndarray = self.products[:, base.rows] @ alpha.astype(np.float32)
        return scores


class RowFeatures(Protocol):
    """What a model is fitted on: N rows in any form that gives their inner products."""

    def __len__(self) -> int: ...

    def take(self, rows: np.ndarray) -> Self:
        """The rows at some indices."""

    def kernel(self) -> np.ndarray:
        """(N, N) inner products, float64."""

    def scores(self, base: Self, alpha: np.ndarray) -> np.ndarray:
        """(N, C) scores of a model with coefficients ``alpha`` on the rows of ``base``."""


class Featurizer:
    """Turns texts into features; what it is scaled by comes from the texts it is made of.

    Args:
        texts: The pool.
        encoder: Name of a frozen encoder, ``auto``, or ``none`` for n-grams alone.
        progress: Called with (done, total) texts that are encoded.

    Attributes:
        encoder: The encoder in use, or ``none``.
        pool: Features of the pool.
        embeddings: (N, D) vectors of the pool; see :meth:`embed`.
    """

    def __init__(
        self, texts: Sequence[str], *, encoder: str = AUTO_ENCODER,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:  # fmt: skip
        from valence.models.ngrams import Ngrams

        self.encoder = _encoder_name(encoder, texts)
        self._ngrams: Ngrams = Ngrams.fit(texts, max_terms=MAX_TERMS)
        self._layers = None
        if self.encoder != NO_ENCODER:
            from valence.models.layer_features import LayerFeatures

            spec = EncoderSpec(name=self.encoder, adaptation="frozen")
            self._layers = LayerFeatures(spec, cached=True)
            self._layers.to("auto")
        terms = self._ngrams.transform(texts)
        self._term_scale = _root_mean_square(np.asarray(terms.multiply(terms).sum(axis=1)))
        states = self._encode(texts, progress)
        if states is not None:
            self._mean, self._deviation = states.mean(axis=0), states.std(axis=0) + 1e-6
            states = (states - self._mean) / self._deviation
            self._state_scale = _root_mean_square((states**2).sum(axis=1))
            states /= self._state_scale / np.float32(np.sqrt(1 - TEXT_MIX))
        self.pool = TextFeatures(self._scaled_terms(terms), states)
        self._projection = _principal_axes(self.pool)
        self.embeddings = self.embed(self.pool)

    def embed(self, features: TextFeatures) -> np.ndarray:
        """(N, D) float32 vectors of length 1, whose distances are those of the texts."""
        own = features.terms if features.states is None else features.states
        vectors = np.asarray(own @ self._projection, dtype=np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        scaled: np.ndarray = vectors / np.maximum(lengths, 1e-9)
        return scaled

    def transform(self, texts: Sequence[str]) -> TextFeatures:
        """Features of other texts, on the pool's scales."""
        states = self._encode(texts, None)
        if states is not None:
            factor = np.float32(np.sqrt(1 - TEXT_MIX)) / self._state_scale
            states = (states - self._mean) / self._deviation * factor
        return TextFeatures(self._scaled_terms(self._ngrams.transform(texts)), states)

    def _scaled_terms(self, terms: sparse.csr_matrix) -> sparse.csr_matrix:
        mix = 1.0 if self._layers is None else TEXT_MIX
        scaled: sparse.csr_matrix = (terms * np.float32(np.sqrt(mix) / self._term_scale)).tocsr()
        return scaled

    def _encode(
        self, texts: Sequence[str], progress: Callable[[int, int], None] | None
    ) -> np.ndarray | None:
        if self._layers is None:
            return None
        vectors, _ = self._layers.vectors(list(texts), progress)
        upper: np.ndarray = vectors[:, self._layers.start_of("upper") :]
        return upper


def _encoder_name(name: str, texts: Sequence[str]) -> str:
    if name != AUTO_ENCODER:
        return name
    from valence.models.encoder_choice import choose_encoder

    return choose_encoder(texts).name


def _principal_axes(features: TextFeatures) -> np.ndarray:
    """(D, d) the directions in which a sample of the texts differs most."""
    from sklearn.decomposition import TruncatedSVD

    own = features.terms if features.states is None else features.states
    step = max(1, len(features) // AXES_SAMPLE)
    size = max(1, min(AXES, own.shape[1] - 1, len(features) - 1))
    axes: np.ndarray = TruncatedSVD(size, random_state=0).fit(own[::step]).components_.T
    return axes.astype(np.float32)


def _root_mean_square(squares: np.ndarray) -> np.float32:
    return np.float32(max(1e-9, float(np.sqrt(np.asarray(squares).mean()))))
