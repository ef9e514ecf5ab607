"""TF-IDF of n-grams: of words and letters, or of characters where words are not spaced.

The terms are counted by scikit-learn. A fitted model turns texts into numbers by its own code,
because a program that only predicts would wait a second for the import of scikit-learn.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from safetensors.numpy import save_file

from valence.models.tensors import broken_parts, check_shapes, read_tensors
from valence.storage import atomic
from valence.storage.plain_files import load_json

if TYPE_CHECKING:
    from scipy import sparse

WORD_PATTERN = r"(?u)\b\w+\b"
WORD_CACHE = 20_000  # words of a call whose letter n-grams are looked up once


@dataclass(frozen=True)
class Analyzer:
    """How a text is taken apart into n-grams.

    Attributes:
        unit: ``word``, ``char`` (characters), or ``char_wb`` (characters within a word with a
            space at either end), as scikit-learn calls them.
        shortest: Units of the shortest n-gram.
        longest: Units of the longest.
    """

    unit: Literal["word", "char", "char_wb"]
    shortest: int
    longest: int

    def settings(self) -> dict[str, Any]:
        """The same for a vectorizer of scikit-learn."""
        pattern = {"token_pattern": WORD_PATTERN} if self.unit == "word" else {}
        return {"analyzer": self.unit, "ngram_range": (self.shortest, self.longest), **pattern}

    def pieces(self, text: str) -> list[str]:
        """What n-grams are made of, one after the other: words, or the whole text."""
        if self.unit == "word":
            return re.findall(WORD_PATTERN, text.lower())
        lowered = re.sub(r"\s\s+", " ", text.lower())
        return [lowered] if self.unit == "char" else [f" {word} " for word in lowered.split()]

    def ngrams(self, text: str) -> list[str]:
        """Every n-gram of a text, as often as it occurs."""
        pieces = self.pieces(text)
        if self.unit != "word":
            return [gram for piece in pieces for gram in self.slices(piece)]
        return [
            " ".join(pieces[start : start + size])
            for size in range(self.shortest, self.longest + 1)
            for start in range(len(pieces) - size + 1)
        ]

    def slices(self, piece: str) -> list[str]:
        """The n-grams of characters of a piece."""
        longest = min(self.longest, len(piece))
        if self.unit == "char_wb" and longest < self.shortest:
            return [piece]  # as scikit-learn counts a word shorter than the shortest n-gram
        return [
            piece[start : start + size]
            for size in range(self.shortest, longest + 1)
            for start in range(len(piece) - size + 1)
        ]


# Word pairs see "not good"; letter n-grams see misspellings and word forms.
ANALYZERS: Mapping[str, Analyzer] = {
    "words": Analyzer("word", 1, 2),
    "letters": Analyzer("char_wb", 2, 4),
    "letters-2-5": Analyzer("char_wb", 2, 5),
    "characters-1-3": Analyzer("char", 1, 3),
    "characters-1-5": Analyzer("char", 1, 5),
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


class FittedTfidf:
    """TF-IDF of known terms, as ``TfidfVectorizer(sublinear_tf=True)`` computes it in float32.

    Args:
        analyzer: How texts are taken apart.
        terms: D terms.
        idf: (D,) inverse document frequencies.

    Raises:
        ValueError: if a term occurs twice, or the numbers are not as many.
    """

    def __init__(self, analyzer: Analyzer, terms: Sequence[str], idf: np.ndarray) -> None:
        self.analyzer = analyzer
        self.terms = list(terms)
        self.idf = np.asarray(idf, dtype=np.float32)
        self.column_of = {term: column for column, term in enumerate(self.terms)}
        if not len(self.column_of) == len(self.terms) == len(self.idf):
            raise ValueError(f"{len(self.terms)} terms do not fit {len(self.idf)} frequencies")

    def transform(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """(N, D) values of N texts, float32; the values of a text have length 1."""
        from scipy import sparse

        columns_of = self._columns_by_word() if self.analyzer.unit == "char_wb" else self._columns
        columns = [np.fromiter(columns_of(text), dtype=np.int32) for text in texts]
        starts = np.cumsum([0, *map(len, columns)])
        places = np.concatenate(columns) if columns else np.zeros(0, dtype=np.int32)
        counts = np.ones(len(places), dtype=np.float32)
        shape = (len(columns), len(self.terms))
        rows = sparse.csr_matrix((counts, places, starts), shape=shape)
        rows.sum_duplicates()
        values = (np.log(rows.data) + np.float32(1.0)) * self.idf[rows.indices]
        owner = np.repeat(np.arange(shape[0]), np.diff(rows.indptr))
        norms = np.sqrt(np.bincount(owner, weights=values * values, minlength=shape[0]))
        rows.data = (values / norms[owner]).astype(np.float32)
        return rows

    def _columns(self, text: str) -> Iterable[int]:
        """Columns of the terms of a text, as often as they occur."""
        known = map(self.column_of.get, self.analyzer.ngrams(text))
        return (column for column in known if column is not None)

    def _columns_by_word(self) -> Callable[[str], Iterable[int]]:
        """The same where no n-gram reaches beyond a word: most words occur again and again."""

        @functools.lru_cache(WORD_CACHE)
        def of_word(word: str) -> list[int]:
            known = map(self.column_of.get, self.analyzer.slices(word))
            return [column for column in known if column is not None]

        return lambda text: itertools.chain.from_iterable(map(of_word, self.analyzer.pieces(text)))


@dataclass(frozen=True)
class Ngrams:
    """Fitted vectorizers by the names of their analyzers; their columns stand side by side."""

    vectorizers: Mapping[str, FittedTfidf]

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
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizers = {}
        for name in UNSPACED if is_unspaced(texts) else analyzers:
            counted = TfidfVectorizer(
                max_features=max_terms, dtype=np.float32, **ANALYZERS[name].settings()
            ).fit(texts)
            terms = counted.get_feature_names_out().tolist()
            vectorizers[name] = FittedTfidf(ANALYZERS[name], terms, counted.idf_)
        return cls(vectorizers)

    @property
    def size(self) -> int:
        """Number of terms."""
        return sum(len(one.terms) for one in self.vectorizers.values())

    @property
    def piece(self) -> str:
        """Regular expression of the pieces that n-grams are attributed to: words or characters."""
        spaced = all(one.analyzer.unit != "char" for one in self.vectorizers.values())
        return r"\S+" if spaced else r"\S"

    def transform(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """(N, D) values of N texts, float32."""
        from scipy import sparse

        parts = [one.transform(texts) for one in self.vectorizers.values()]
        rows: sparse.csr_matrix = sparse.hstack(parts, format="csr")
        return rows

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the numbers that :meth:`save` returns."""
        return {f"idf.{name}": (len(one.terms),) for name, one in self.vectorizers.items()}

    def save(self, folder: Path) -> dict[str, np.ndarray]:
        """Write the terms; returns the numbers, which go into the model's tensors."""
        terms = {name: one.terms for name, one in self.vectorizers.items()}
        atomic.write_text(folder / TERMS_FILE, json.dumps(terms, ensure_ascii=False))
        return {f"idf.{name}": one.idf for name, one in self.vectorizers.items()}

    @classmethod
    def load(cls, folder: Path, tensors: Mapping[str, np.ndarray]) -> Ngrams:
        """What :meth:`save` wrote; raises OSError, ValueError or KeyError for a broken folder."""
        terms = load_json(folder / TERMS_FILE)
        if not all(isinstance(term, str) for own in terms.values() for term in own):
            raise ValueError(f"{TERMS_FILE} has terms that are not text")
        return cls({
            name: FittedTfidf(ANALYZERS[name], own, tensors[f"idf.{name}"])
            for name, own in terms.items()
        })  # fmt: skip


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
    def load(cls, folder: Path, *, classes: int) -> NgramLogits:
        """What :meth:`save` wrote, for so many classes.

        Raises:
            ModelError: if a file is missing or broken.
        """
        tensors = read_tensors(folder / NGRAMS_FILE)
        with broken_parts(folder):
            ngrams = Ngrams.load(folder, tensors)
        shapes = {"text": (ngrams.size, classes), **ngrams.shapes()}
        check_shapes(tensors, shapes, folder / NGRAMS_FILE)
        return cls(ngrams, tensors["text"])


def is_unspaced(texts: Sequence[str]) -> bool:
    """Whether words are not separated by spaces, as in Chinese, Japanese or Thai."""
    step = max(1, len(texts) // SAMPLE)
    lengths = [len(part) for text in texts[::step] for part in text.split()]
    return bool(lengths) and statistics.median(lengths) > UNSPACED_LENGTH
