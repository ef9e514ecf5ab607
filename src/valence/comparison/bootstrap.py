"""Paired bootstrap of the difference of two methods, in bounded memory.

The bootstrap draws test rows anew. Rows with the same truth and the same predictions count
alike in every score, so that only their numbers need to be drawn: multinomially over the
distinct (truth, predictions) of all seeds that share the rows. That is the distribution of
drawn rows, in a memory that does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from scipy import sparse

from valence.errors import UnknownNameError
from valence.evaluation.classification import ClassCounts, mean_defined

RESAMPLES = 2000
LEVEL = 0.95
CHUNK_ROWS = 1 << 18
"""Rows that are looked at together, and the most distinct tuples that are counted."""
CHUNK_NUMBERS = 1 << 21
"""Numbers of an array of draws: 16 MiB."""
Statistic = Callable[[ClassCounts, Sequence[int]], np.ndarray]


def _macro_f1(counts: ClassCounts, tail: Sequence[int]) -> np.ndarray:
    return mean_defined(counts.f1)


def _tail_f1(counts: ClassCounts, tail: Sequence[int]) -> np.ndarray:
    return mean_defined(counts.f1[..., list(tail)])


def _accuracy(counts: ClassCounts, tail: Sequence[int]) -> np.ndarray:
    share: np.ndarray = counts.hits.sum(-1) / counts.true.sum(-1)
    return share


def _balanced_accuracy(counts: ClassCounts, tail: Sequence[int]) -> np.ndarray:
    return mean_defined(counts.recall)


STATISTICS: dict[str, Statistic] = {
    "macro_f1": _macro_f1,
    "tail_f1": _tail_f1,
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
}
"""By metric: counts (…, C) and the tail → (…,) scores, NaN where undefined."""


@dataclass(frozen=True)
class Difference:
    """A difference of two methods, with its interval and two-sided p-value.

    All are None where the metric is not defined for one of them.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None


Rows = np.ndarray | Sequence[np.ndarray]


def paired_bootstrap(
    labels: Rows,
    ours: Rows,
    baseline: Rows,
    *,
    metric: str = "macro_f1",
    class_count: int,
    tail: Sequence[int] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Difference (ours − baseline) of a metric, averaged over seeds, with a 95% interval.

    The p-value is twice the smaller share of resampled differences on one side of zero,
    with one added to both counts so that it is never 0. A draw in which the metric is not
    defined (a tail-F1 without a tail class) is left out of both.

    Args:
        labels: (N,) true ids of rows that all S seeds share: all see the same draws. Or (S, N)
            or S arrays, where every seed has rows of its own, which are drawn by themselves.
        ours: (S, N), or S arrays: predicted ids of every seed.
        baseline: Those of the other method, of the same seeds and rows.
        metric: A name of :data:`STATISTICS`.
        class_count: C.
        tail: Ids of the tail classes, for ``tail_f1``.
        resamples: Draws of test rows.
        seed: Of the draws.

    Raises:
        UnknownNameError: if the metric is not in the table.
    """
    if metric not in STATISTICS:
        raise UnknownNameError("metric with an interval", metric, STATISTICS)
    statistic = STATISTICS[metric]
    random = np.random.default_rng(seed)
    total = np.zeros(resamples + 1)
    for block in _blocks(labels, ours, baseline):
        parts = _Parts(block, class_count)
        done = 0
        for counts in parts.resampled(resamples, random):
            part = total[done : (done := done + counts.length)]
            for of_ours, of_baseline in counts.pairs():
                part += statistic(of_ours, tail) - statistic(of_baseline, tail)
    total /= len(ours)
    return _difference(total[0], total[1:])


def paired_bootstrap_mae(
    labels: Rows,
    ours: Rows,
    baseline: Rows,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Difference (ours − baseline) of the MAE, averaged over seeds, with a 95% interval.

    Args:
        labels: True intensities: (N,) of rows that all seeds share, else (S, N) or S arrays.
        ours: (S, N), or S arrays: predictions of every seed.
        baseline: Those of the other method, of the same seeds and rows.
        resamples: Draws of test rows.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    total = np.zeros(resamples + 1)
    for block in _blocks(labels, ours, baseline):
        chunks = list(block.chunks())
        fractions = np.array([chunk.rows for chunk in chunks]) / block.rows
        drawn = random.multinomial(block.rows, fractions, size=resamples)
        for chunk, numbers in zip(chunks, drawn.T, strict=True):
            gaps = chunk.error_gaps()
            total[0] += gaps.sum() / block.rows
            for i, size in enumerate(numbers):
                total[i + 1] += gaps[random.integers(len(gaps), size=size)].sum() / block.rows
    total /= len(ours)
    return _difference(total[0], total[1:])


def _difference(value: float, draws: np.ndarray) -> Difference:
    draws = draws[~np.isnan(draws)]
    if np.isnan(value) or not len(draws):
        return Difference(None, None, None, None)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    below = (np.sum(draws <= 0) + 1) / (len(draws) + 1)
    above = (np.sum(draws >= 0) + 1) / (len(draws) + 1)
    p = min(1.0, 2 * min(below, above))
    return Difference(float(value), float(low), float(high), float(p))


@dataclass(frozen=True)
class _Block:
    """Rows that are drawn together: (N,) labels and, seed by seed, (N,) predictions of both."""

    labels: np.ndarray
    ours: Sequence[np.ndarray]
    baseline: Sequence[np.ndarray]

    @property
    def length(self) -> int:
        return len(self.labels)

    @property
    def rows(self) -> int:
        return self.length

    def chunks(self) -> Iterator[_Block]:
        for start in range(0, self.length, CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            yield _Block(
                self.labels[part], [own[part] for own in self.ours],
                [own[part] for own in self.baseline],
            )  # fmt: skip

    def columns(self) -> np.ndarray:
        """(1 + 2S, N): the truth, then ours and the baseline's predictions by seed."""
        pairs = zip(self.ours, self.baseline, strict=True)
        return np.stack([self.labels, *(own for pair in pairs for own in pair)]).astype(np.int64)

    def numbers(self) -> np.ndarray:
        return np.ones(self.length, dtype=np.int64)

    def draw(self, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """(R, N) how often each row is drawn, of (R,) rows."""
        picks = (random.integers(self.length, size=size) for size in rows)
        return np.stack([np.bincount(pick, minlength=self.length) for pick in picks])

    def error_gaps(self) -> np.ndarray:
        """(N,) sum over seeds of the difference of the absolute errors."""
        gaps = np.zeros(len(self.labels))
        for own, other in zip(self.ours, self.baseline, strict=True):
            gaps += np.abs(own - self.labels) - np.abs(other - self.labels)
        return gaps


def _blocks(labels: Rows, ours: Rows, baseline: Rows) -> list[_Block]:
    if isinstance(labels, np.ndarray) and labels.ndim == 1:
        return [_Block(labels, list(ours), list(baseline))]
    triples = zip(labels, ours, baseline, strict=True)
    return [_Block(truth, [own], [other]) for truth, own, other in triples]


@dataclass(frozen=True)
class _PairCounts:
    """Counts of R resamples, by seed and method.

    Attributes:
        true: (R, C).
        hits, predicted: (2S, R, C), ours and the baseline's by turns.
    """

    true: np.ndarray
    hits: np.ndarray
    predicted: np.ndarray

    @property
    def length(self) -> int:
        return len(self.true)

    def __add__(self, other: _PairCounts) -> _PairCounts:
        return _PairCounts(
            self.true + other.true, self.hits + other.hits, self.predicted + other.predicted
        )

    def pairs(self) -> Iterator[tuple[ClassCounts, ClassCounts]]:
        both = [ClassCounts(hits, self.true, predicted)
                for hits, predicted in zip(self.hits, self.predicted, strict=True)]  # fmt: skip
        return zip(both[::2], both[1::2], strict=True)


class _Parts:
    """The rows of a block in parts that are drawn from in turn.

    One part of distinct tuples with their numbers as a rule; where there are too many of
    them, chunks of rows.
    """

    def __init__(self, block: _Block, class_count: int) -> None:
        self.rows = len(block.labels)
        self.class_count = class_count
        tuples = _distinct(block, class_count)
        self.parts: list[_Tuples | _Block]
        self.parts = [tuples] if tuples is not None else list(block.chunks())
        widest = max(4 * class_count * len(block.ours), *(part.length for part in self.parts))
        self.step = max(1, CHUNK_NUMBERS // widest)

    def resampled(self, resamples: int, random: np.random.Generator) -> Iterator[_PairCounts]:
        """The counts of the rows as they are, then those of all resamples, some at a time."""
        yield self._counted(part.numbers()[None] for part in self.parts)
        fractions = np.array([part.rows for part in self.parts]) / self.rows
        for start in range(0, resamples, self.step):
            size = min(self.step, resamples - start)
            drawn = random.multinomial(self.rows, fractions, size=size)
            yield self._counted(
                part.draw(rows, random) for part, rows in zip(self.parts, drawn.T, strict=True)
            )

    def _counted(self, weights: Iterable[np.ndarray]) -> _PairCounts:
        """The sum of the counts under (R, length) weights of every part."""
        counts = (
            _counts(part.columns(), own, self.class_count)
            for part, own in zip(self.parts, weights, strict=True)
        )
        return reduce(_PairCounts.__add__, counts)


@dataclass(frozen=True)
class _Tuples:
    """Distinct tuples (1 + 2S, K), and how many rows have each (K,)."""

    tuples: np.ndarray
    often: np.ndarray

    @property
    def length(self) -> int:
        return len(self.often)

    @property
    def rows(self) -> int:
        return int(self.often.sum())

    def columns(self) -> np.ndarray:
        return self.tuples

    def numbers(self) -> np.ndarray:
        return self.often

    def draw(self, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """(R, K) how often each is drawn, of (R,) rows."""
        return random.multinomial(rows, self.often / self.rows)


def _counts(columns: np.ndarray, weights: np.ndarray, class_count: int) -> _PairCounts:
    """The counts of tuples (1 + 2S, K) under weights (R, K)."""
    truth, *predicted = columns
    weighted = np.ascontiguousarray(weights.T)

    def by_class(ids: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        places = np.flatnonzero(chosen)
        ones = np.ones(len(places), np.int64)
        member = sparse.csr_array((ones, (ids[places], places)), (class_count, len(ids)))
        total: np.ndarray = (member @ weighted).T
        return total

    everywhere = np.ones(len(truth), bool)
    return _PairCounts(
        by_class(truth, everywhere),
        np.stack([by_class(own, own == truth) for own in predicted]),
        np.stack([by_class(own, everywhere) for own in predicted]),
    )


def _distinct(block: _Block, class_count: int) -> _Tuples | None:
    """The distinct tuples of a block, counted chunk by chunk; None where they are too many."""
    packing = _Packing(1 + 2 * len(block.ours), class_count)
    words = np.zeros((packing.words, 0), dtype=np.int64)
    numbers = np.zeros(0, dtype=np.int64)
    for chunk in block.chunks():
        more = packing.pack(chunk.columns())
        words, numbers = _unique(
            np.concatenate([words, more], axis=1),
            np.concatenate([numbers, np.ones(more.shape[1], np.int64)]),
        )
        if len(numbers) > CHUNK_ROWS:
            return None
    return _Tuples(packing.unpack(words), numbers)


def _unique(words: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each of the (W, K) columns once, with the sum of its (K,) numbers."""
    order = np.lexsort(words)
    words, numbers = words[:, order], numbers[order]
    new = np.ones(len(numbers), bool)
    new[1:] = (words[:, 1:] != words[:, :-1]).any(axis=0)
    first = np.flatnonzero(new)
    return words[:, first], np.add.reduceat(numbers, first)


@dataclass(frozen=True)
class _Packing:
    """Tuples of class ids in as few whole numbers as hold them."""

    columns: int
    class_count: int

    @cached_property
    def per_word(self) -> int:
        width = 1
        while self.class_count ** (width + 1) < 2**62 and width < self.columns:
            width += 1
        return width

    @property
    def words(self) -> int:
        return -(-self.columns // self.per_word)

    def pack(self, columns: np.ndarray) -> np.ndarray:
        words = []
        for start in range(0, self.columns, self.per_word):
            word = np.zeros(columns.shape[1], dtype=np.int64)
            for column in columns[start : start + self.per_word]:
                word = word * self.class_count + column
            words.append(word)
        return np.stack(words)

    def unpack(self, words: np.ndarray) -> np.ndarray:
        columns = np.empty((self.columns, words.shape[1]), dtype=np.int64)
        for place, word in enumerate(words):
            start = place * self.per_word
            rest = word.copy()
            for column in reversed(range(start, min(start + self.per_word, self.columns))):
                rest, columns[column] = np.divmod(rest, self.class_count)
        return columns
