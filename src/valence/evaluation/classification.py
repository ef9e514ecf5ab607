"""Scores of a classification: (truth, logits) → numbers by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MetricInfo:
    """How a metric is shown.

    Attributes:
        title: Heading of its column.
        explanation: One line for reports.
    """

    title: str
    explanation: str


METRICS: dict[str, MetricInfo] = {
    "macro_f1": MetricInfo("macro-F1", "mean F1 over classes, each weighted equally"),
    "tail_f1": MetricInfo("tail-F1", "mean F1 of the tail classes"),
    "middle_f1": MetricInfo("middle-F1", "mean F1 of the classes between head and tail"),
    "head_f1": MetricInfo("head-F1", "mean F1 of the largest classes"),
    "worst_f1": MetricInfo("worst-F1", "F1 of the worst class"),
    "weighted_f1": MetricInfo("weighted-F1", "mean F1 weighted by class size"),
    "accuracy": MetricInfo("accuracy", "fraction of correct predictions"),
    "balanced_accuracy": MetricInfo("macro recall", "mean recall over classes"),
    "g_mean": MetricInfo("G-mean", "geometric mean of the recalls; 0 if a class has recall 0"),
    "auc": MetricInfo("AUC", "area under the ROC curve, one class against the rest, mean"),
}

MIN_TEST_ROWS = (
    30  # of a class or a group: below it the 95% interval of a recall is ± 0.18 or wider
)
SOFT_WEIGHT = 0.5  # of soft counts beside decisions, where models are selected


def confusion(labels: np.ndarray, predicted: np.ndarray, class_count: int) -> np.ndarray:
    """(C, C) counts; rows are the truth, columns the prediction.

    Args:
        labels: (N,) true ids.
        predicted: (N,) predicted ids.
        class_count: C.
    """
    cells = np.asarray(labels) * class_count + np.asarray(predicted)
    return np.bincount(cells, minlength=class_count**2).reshape(class_count, class_count)


@dataclass(frozen=True)
class ClassCounts:
    """How often each class is right, in the truth and in the prediction.

    F1, recall and accuracy need no more of a confusion matrix. A class that is in neither the
    truth nor the prediction has no F1, and a class that is not in the truth no recall: both
    are NaN, so that means leave them out.

    Attributes:
        hits: (…, C) rows of the class that are predicted as it.
        true: (…, C) rows of the class.
        predicted: (…, C) rows predicted as the class.
    """

    hits: np.ndarray
    true: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray) -> ClassCounts:
        """The counts of confusion matrices (…, C, C)."""
        hits = np.diagonal(counts, axis1=-2, axis2=-1)
        return cls(hits, counts.sum(-1), counts.sum(-2))

    @property
    def f1(self) -> np.ndarray:
        """(…, C) F1 of every class."""
        return _ratio(2.0 * self.hits, self.true + self.predicted)

    @property
    def recall(self) -> np.ndarray:
        """(…, C) recall of every class."""
        return _ratio(self.hits, self.true)

    @property
    def precision(self) -> np.ndarray:
        """(…, C) precision of every class; NaN for a class that is never predicted."""
        return _ratio(self.hits, self.predicted)


@dataclass(frozen=True)
class ClassTable:
    """A confusion matrix with the names of its classes.

    Attributes:
        classes: C label names.
        counts: (C, C) rows; the truth by row, the prediction by column.
    """

    classes: tuple[str, ...]
    counts: np.ndarray

    def scores(self, label: int) -> dict[str, float | None]:
        """precision, recall, f1 and rows of a class; None where one is undefined."""
        own = ClassCounts.of(self.counts)
        named = {"precision": own.precision, "recall": own.recall, "f1": own.f1}
        rows = float(own.true[label])
        return {name: _or_none(values[label]) for name, values in named.items()} | {"rows": rows}

    def confusions(self) -> list[tuple[int, int, int, float]]:
        """(true, predicted, rows, fraction of the true class) off the diagonal, most rows first."""
        counts = self.counts * ~np.eye(len(self.classes), dtype=bool)
        cells = np.argwhere(counts > 0)
        order = np.argsort(-counts[tuple(cells.T)], kind="stable")
        return [
            (int(t), int(p), int(counts[t, p]), float(counts[t, p] / self.counts[t].sum()))
            for t, p in cells[order]
        ]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio


def mean_defined(values: np.ndarray) -> np.ndarray:
    """(…,) mean over the last axis of what is not NaN; NaN where nothing is left."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(-1), defined.sum(-1))


def class_groups(
    train_counts: Sequence[int], tail: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids of the (head, middle) classes beside the given tail.

    Head is a third of the classes, rounded and at least one: the largest that are not tail.
    Without training rows, as of a model that was trained elsewhere, there are no groups.

    Args:
        train_counts: (C,) training rows per class.
        tail: Ids of the tail classes.
    """
    if not any(train_counts):
        return (), ()
    order = np.argsort(np.asarray(train_counts), kind="stable")[::-1]
    others = [int(c) for c in order if int(c) not in set(tail)]
    size = max(1, round(len(train_counts) / 3))
    return tuple(sorted(others[:size])), tuple(sorted(others[size:]))


def classification_scores(
    labels: np.ndarray,
    logits: np.ndarray,
    *,
    classes: Sequence[str],
    train_counts: Sequence[int],
    tail: Sequence[int],
) -> dict[str, float | None]:
    """Every metric of :data:`METRICS`, and ``f1/<class>`` for each class.

    F1 (macro, tail, middle and head alike) is averaged over the classes that the truth or the
    prediction has, which is scikit-learn's rule; G-mean and macro recall over those in the
    truth. A score that is undefined (tail-F1 where no tail class is in truth or prediction,
    AUC where a class is missing in the truth) is None.

    Args:
        labels: (N,) true ids.
        logits: (N, C) scores; the largest is the prediction.
        classes: C label names.
        train_counts: (C,) training rows per class.
        tail: Ids of the tail classes.
    """
    counts = ClassCounts.of(confusion(labels, logits.argmax(axis=1), len(classes)))
    f1, true, rows = counts.f1, counts.true, len(labels)
    head, middle = class_groups(train_counts, tail)
    seen, present = f1[~np.isnan(f1)], counts.recall[true > 0]
    scores: dict[str, float | None] = {
        "macro_f1": _mean(f1),
        "tail_f1": _mean(f1[list(tail)]),
        "middle_f1": _mean(f1[list(middle)]),
        "head_f1": _mean(f1[list(head)]),
        "worst_f1": float(seen.min()) if len(seen) else None,
        "weighted_f1": float(np.nansum(f1 * true) / rows) if rows else None,
        "accuracy": float(counts.hits.sum() / rows) if rows else None,
        "balanced_accuracy": _mean(present),
        "g_mean": float(np.prod(present) ** (1 / len(present))) if len(present) else None,
        "auc": _auc(labels, logits),
    }
    return scores | {f"f1/{name}": _or_none(f1[i]) for i, name in enumerate(classes)}


def group_scores(
    labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, classes: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Scores of every group of rows, all from one count.

    Args:
        labels: (N,) true ids.
        predicted: (N,) predicted ids.
        groups: (N,) group names.
        classes: C label names.

    Returns:
        By group, sorted: ``rows``, ``macro_f1`` (over the classes that the group's truth or
        prediction has), ``micro_f1`` (where every row has one label, the accuracy),
        ``weighted_f1``, ``accuracy`` and ``f1/<class>``, None for a class that is in neither.
    """
    names, owner = np.unique(groups, return_inverse=True)
    size = len(classes)
    cells = (owner * size + np.asarray(labels)) * size + np.asarray(predicted)
    cube = np.bincount(cells, minlength=len(names) * size**2).reshape(-1, size, size)
    counts = ClassCounts.of(cube)
    f1, rows = counts.f1, counts.true.sum(1)
    macro = mean_defined(f1)
    weighted = np.nansum(f1 * counts.true, axis=1) / rows
    accuracy = counts.hits.sum(1) / rows
    scores = {}
    for i, name in enumerate(names):
        own: dict[str, float | None] = {
            "rows": float(rows[i]), "macro_f1": float(macro[i]), "micro_f1": float(accuracy[i]),
            "weighted_f1": float(weighted[i]), "accuracy": float(accuracy[i]),
        }  # fmt: skip
        own |= {f"f1/{label}": _or_none(f1[i, c]) for c, label in enumerate(classes)}
        scores[str(name)] = own
    return scores


def _mean(values: np.ndarray) -> float | None:
    return _or_none(mean_defined(values))


def _or_none(value: np.ndarray | float) -> float | None:
    return None if np.isnan(value) else float(value)


def _auc(labels: np.ndarray, logits: np.ndarray) -> float | None:
    if len(np.unique(labels)) < logits.shape[1] or not np.isfinite(logits).all():
        return None
    from sklearn.metrics import roc_auc_score  # slow to import

    probs = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    if logits.shape[1] == 2:
        return float(roc_auc_score(labels, probs[:, 1]))
    return float(roc_auc_score(labels, probs, multi_class="ovr", average="macro"))


def expected_macro_f1(probs: np.ndarray, labels: np.ndarray, shares: np.ndarray) -> float:
    """Macro-F1 to be expected on rows with given class shares.

    Each true class of the confusion matrix is scaled to its share.

    Args:
        probs: (N, C) probabilities, or any scores whose largest decides.
        labels: (N,) true ids.
        shares: (C,) expected class shares.
    """
    return _shared_f1(np.eye(probs.shape[1])[probs.argmax(axis=1)], labels, shares)


def joint_score(probs: np.ndarray, labels: np.ndarray, shares: np.ndarray) -> float:
    """:func:`expected_macro_f1` plus half of the same from soft counts, which vary less.

    Args:
        probs: (N, C) probabilities.
        labels: (N,) true ids.
        shares: (C,) expected class shares.
    """
    soft = _shared_f1(probs, labels, shares)
    return expected_macro_f1(probs, labels, shares) + SOFT_WEIGHT * soft


def _shared_f1(predicted: np.ndarray, labels: np.ndarray, shares: np.ndarray) -> float:
    counts = np.eye(predicted.shape[1])[labels].T @ predicted
    rows = counts.sum(axis=1, keepdims=True)
    joint = counts / np.maximum(rows, 1e-12) * shares[:, None]
    return float(mean_defined(ClassCounts.of(joint).f1))
