"""Rows in memory: :class:`Split`, :class:`Dataset`, and :class:`TrainingData` without test rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from valence.data.examples import Examples
from valence.data.features.archive import FeatureView
from valence.evaluation.regression import Scale as Scale
from valence.evaluation.task import Classification, Regression, Task

SECOND_VIEW = "aug_text"
"""The column in which corpora carry second views of their training texts."""


@dataclass(frozen=True)
class Split:
    """Rows of one split.

    Attributes:
        texts: The texts, N of them.
        labels: (N,) int64 class ids; float32 numbers where the target is an intensity.
        ids: (N,) row names, unique within the data set.
        extra: Further columns of the source, one row per text (language, second view …).
        features: Audio and vision of the same rows, where there are some.
    """

    texts: list[str]
    labels: np.ndarray
    ids: np.ndarray
    extra: pd.DataFrame = field(default_factory=pd.DataFrame)
    features: FeatureView | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int] | np.ndarray) -> Split:
        """The rows at ``indices``, in that order."""
        rows = np.asarray(indices, dtype=np.int64)
        extra = self.extra.iloc[rows].reset_index(drop=True) if len(self.extra) else self.extra
        texts = [self.texts[row] for row in rows]
        features = None if self.features is None else self.features.take(rows)
        return Split(texts, self.labels[rows], self.ids[rows], extra, features)

    def examples(self, group: str = "") -> Examples:
        """The rows without their labels.

        Args:
            group: The column of :attr:`extra` that names the rows' groups; none when empty.
        """
        groups = self.extra[group].to_numpy(dtype=str) if group in self.extra else None
        return Examples(self.texts, self.features, groups, self.ids)

    def counts(self, class_count: int) -> np.ndarray:
        """(C,) rows per class; none where the target is an intensity."""
        if not class_count:
            return np.zeros(0, dtype=np.int64)
        return np.bincount(self.labels, minlength=class_count)


@dataclass(frozen=True)
class TrainingData:
    """What a trainer or a tuner is given: no test rows, by construction.

    Attributes:
        classes: Label names; a row's label is an index into them. Empty for an intensity.
        tail: Ids of the tail classes.
        train: Training rows.
        validation: Rows on which everything is chosen.
        scale: How an intensity is scored; see ``valence.evaluation.regression``.
        group: Column of the rows' ``extra`` that names their group; empty without one.
        row_weights: (N,) positive weights of the training rows; None where all count alike.
    """

    classes: tuple[str, ...]
    tail: tuple[int, ...]
    train: Split
    validation: Split
    scale: Scale = "mosi"
    group: str = ""
    row_weights: np.ndarray | None = None

    @cached_property
    def train_counts(self) -> np.ndarray:
        """(C,) training rows per class."""
        return self.train.counts(len(self.classes))

    @cached_property
    def task(self) -> Task:
        """What is predicted, with the sizes of the training classes."""
        if not self.classes:
            return Regression.of_scale(self.scale)
        counts = tuple(int(n) for n in self.train_counts)
        return Classification(self.classes, counts, self.tail)


@dataclass(frozen=True)
class Dataset:
    """A corpus with its three splits, already subsampled as its ``DataSpec`` says.

    Attributes:
        name: Card name, or the path or hub id it came from.
        classes: Label names in their order; empty where the target is an intensity.
        tail: Ids of the tail classes.
        train, validation, test: The rows.
        synthetic: True where the texts were generated; every report says so.
        notes: Lines the user should see (splits made here, rows left out).
        scale: How an intensity is scored; see ``valence.evaluation.regression``.
        group: Column of the rows' ``extra`` that names their group; empty without one.
        columns: Settings of the ``DataSpec`` that were guessed, with their values.
    """

    name: str
    classes: tuple[str, ...]
    tail: tuple[int, ...]
    train: Split
    validation: Split
    test: Split
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    scale: Scale = "mosi"
    group: str = ""
    columns: tuple[tuple[str, str], ...] = ()

    def groups(self, split: Split) -> np.ndarray | None:
        """(N,) the group name of every row of a split; None where there are no groups."""
        if not self.group:
            return None
        names: np.ndarray = split.extra[self.group].to_numpy(dtype=str)
        return names

    def group_names(self) -> tuple[str, ...]:
        """The groups of the training rows, sorted."""
        names = self.groups(self.train)
        return () if names is None else tuple(sorted(set(names.tolist())))

    def without_test(self) -> TrainingData:
        """The training and validation rows: all that a training may see."""
        return TrainingData(
            self.classes, self.tail, self.train, self.validation, self.scale, self.group
        )

    @cached_property
    def task(self) -> Task:
        """What is predicted, with the sizes of the training classes."""
        return self.without_test().task

    @cached_property
    def fingerprint(self) -> str:
        """Hash of classes, tail, texts, labels and groups: the rows a result belongs to."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        digest.update(repr(self.tail).encode())
        for split in (self.train, self.validation, self.test):
            digest.update(split.labels.astype(self.task.label_format).tobytes())
            digest.update("\0".join(split.texts).encode("utf-8", "surrogatepass"))
            groups = self.groups(split)
            if groups is not None:
                digest.update("\0".join([self.group, *groups]).encode("utf-8", "surrogatepass"))
            if split.features is not None:
                digest.update(split.features.source.encode() + split.features.rows.tobytes())
        if SECOND_VIEW in self.train.extra:
            views = self.train.extra[SECOND_VIEW].fillna("").astype(str)
            digest.update("\0".join(views).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]


def tail_classes(counts: np.ndarray) -> tuple[int, ...]:
    """The third of the classes (at least one) with the fewest rows; ties by id.

    Args:
        counts: (C,) training rows per class.
    """
    size = max(1, round(len(counts) / 3)) if len(counts) > 1 else 0
    return tuple(sorted(int(i) for i in np.argsort(counts, kind="stable")[:size]))
