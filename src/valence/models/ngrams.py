"""TF-IDF of n-grams: of words and letters, or of characters where words are not spaced."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer

from valence.errors import ModelError
from valence.storage import atomic

if TYPE_CHECKING:
    from scipy import sparse

# Word pairs see "not good"; letter n-grams see misspellings and word forms.
ANALYZERS: Mapping[str, dict[str, Any]] = {
    "words": {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"},
    "letters": {"analyzer": "char_wb", "ngram_range": (2, 4)},
    "letters-2-5": {"analyzer": "char_wb", "ngram_range": (2, 5)},
    "characters-1-3": {"analyzer": "char", "ngram_range": (1, 3)},
    "characters-1-5": {"analyzer": "char", "ngram_range": (1, 5)},
}
"""Analyzers by the name under which model folders store them."""

SPACED = ("words", "letters")
SPACED_LONG = ("words", "letters-2-5")
UNSPACED = ("characters-1-3", "characters-1-5")
UNSPACED_LENGTH = 15
"""Median characters between two spaces above which texts are taken to have no word spaces."""
TERMS_FILE = "terms.json"
NGRAMS_FILE = "ngrams.safetensors"
"""Of an exported model."""
CHUNK = 4096  # texts whose features are in memory at once
SAMPLE = 2000


@dataclass(frozen=True)
class Ngrams:
    """Fitted vectorizers by the names of their analyzers; their columns stand side by side."""

    vectorizers: Mapping[str, TfidfVectorizer]

    @classmethod
    def fit(
        cls, texts: Sequence[str], analyzers: Sequence[str] = SPACED, *, max_terms: int
    ) -> Ngrams:
        """Count the terms of texts.

        Args:
            texts: Training texts.
            analyzers: Names of :data:`ANALYZERS`; :data:`UNSPACED` replaces them where words
                are not spaced.
            max_terms: Most terms of an analyzer; the most frequent ones are used.
        """
        names = UNSPACED if is_unspaced(texts) else analyzers
        return cls({
            name: TfidfVectorizer(
                sublinear_tf=True, max_features=max_terms, dtype=np.float32, **ANALYZERS[name]
            ).fit(texts)
            for name in names
        })  # fmt: skip

    @property
    def size(self) -> int:
        """Number of terms."""
        return sum(len(one.vocabulary_) for one in self.vectorizers.values())

    @property
    def piece(self) -> str:
        """Regular expression of the pieces that n-grams are attributed to: words or characters."""
        spaced = all(ANALYZERS[name]["analyzer"] != "char" for name in self.vectorizers)
        return r"\S+" if spaced else r"\S"

    def transform(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """(N, D) values of N texts, float32."""
        from scipy import sparse

        parts = [one.transform(texts) for one in self.vectorizers.values()]
        rows: sparse.csr_matrix = sparse.hstack(parts).tocsr()
        return rows

    def save(self, folder: Path) -> dict[str, np.ndarray]:
        """Write the terms; returns the numbers, which go into the model's tensors."""
        terms = {name: list(one.get_feature_names_out()) for name, one in self.vectorizers.items()}
        atomic.write_text(folder / TERMS_FILE, json.dumps(terms, ensure_ascii=False))
        return {f"idf.{name}": one.idf_ for name, one in self.vectorizers.items()}

    @classmethod
    def load(cls, folder: Path, tensors: Mapping[str, np.ndarray]) -> Ngrams:
        """What :meth:`save` wrote; raises OSError, ValueError or KeyError for a broken folder."""
        terms = json.loads((folder / TERMS_FILE).read_text(encoding="utf-8"))
        vectorizers = {}
        for name, own in terms.items():
            one = TfidfVectorizer(
                vocabulary=own, sublinear_tf=True, dtype=np.float32, **ANALYZERS[name]
            )
            one.idf_ = tensors[f"idf.{name}"].astype(np.float32)
            vectorizers[name] = one
        return cls(vectorizers)


@dataclass(frozen=True)
class NgramLogits:
    """A linear model on n-grams.

    Attributes:
        ngrams: Makes the features.
        weights: (D, C) float32.
    """

    ngrams: Ngrams
    weights: np.ndarray

    def of(self, texts: Sequence[str]) -> np.ndarray:
        """(N, C) logits of N texts, without a bias."""
        logits = np.zeros((len(texts), self.weights.shape[1]), dtype=np.float32)
        for start in range(0, len(texts), CHUNK):
            part = slice(start, start + CHUNK)
            logits[part] = self.ngrams.transform(texts[part]) @ self.weights
        return logits

    def divided(self, temperature: float) -> NgramLogits:
        """The same with logits divided by a temperature."""
        return replace(self, weights=self.weights / np.float32(temperature))

    def save(self, folder: Path) -> None:
        """Write terms and numbers into an exported model's folder."""
        tensors = {"text": self.weights, **self.ngrams.save(folder)}
        ready = {name: np.ascontiguousarray(v, np.float32) for name, v in tensors.items()}
        with atomic.new_file(folder / NGRAMS_FILE) as path:
            save_file(ready, path)

    @classmethod
    def load(cls, folder: Path) -> NgramLogits:
        """What :meth:`save` wrote.

        Raises:
            ModelError: if a file is missing or broken.
        """
        try:
            tensors = load_file(folder / NGRAMS_FILE)
            ngrams = Ngrams.load(folder, tensors)
            if len(tensors["text"]) != ngrams.size:
                raise ValueError(f"{ngrams.size} terms and {len(tensors['text'])} weights")
        except Exception as error:  # safetensors raises an error of its own kind
            raise ModelError(
                f"{folder / NGRAMS_FILE} or {TERMS_FILE} is missing or broken ({error}); export "
                "the model again"
            ) from None
        return cls(ngrams, tensors["text"])


def is_unspaced(texts: Sequence[str]) -> bool:
    """Whether words are not separated by spaces, as in Chinese, Japanese or Thai."""
    step = max(1, len(texts) // SAMPLE)
    lengths = [len(part) for text in texts[::step] for part in text.split()]
    return bool(lengths) and statistics.median(lengths) > UNSPACED_LENGTH
