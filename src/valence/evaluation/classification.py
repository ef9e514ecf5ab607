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
    "macro_f1": MetricInfo("macro-F1", "mean F1 of the classes, each counting alike"),
    "tail_f1": MetricInfo("tail-F1", "mean F1 of the tail classes"),
    "middle_f1": MetricInfo("middle-F1", "mean F1 of the classes between head and tail"),
    "head_f1": MetricInfo("head-F1", "mean F1 of the largest classes"),
    "worst_f1": MetricInfo("worst-F1", "F1 of the class that does worst"),
    "weighted_f1": MetricInfo("weighted-F1", "mean F1 weighted by class size in the truth"),
    "accuracy": MetricInfo("accuracy", "share of rows that are right"),
    "balanced_accuracy": MetricInfo("macro recall", "mean recall of the classes in the truth"),
    "g_mean": MetricInfo("G-mean", "geometric mean of the recalls; 0 if one class is never found"),
    "auc": MetricInfo("AUC", "area under the ROC curve, one class against the rest, mean"),
}


def confusion(labels: np.ndarray, predicted: np.ndarray, class_count: int) -> np.ndarray:
    """(C, C) counts; rows are the truth, columns the prediction.

    Args:
        labels: (N,) true ids.
        predicted: (N,) predicted ids.
        class_count: C.
    """
    cells = np.asarray(labels) * class_count + np.asarray(predicted)
    return np.bincount(cells, minlength=class_count**2).reshape(class_count, class_count)


def f1_of_classes(counts: np.ndarray) -> np.ndarray:
    """(…, C) F1 of every class of confusion counts (…, C, C); 0 where it is undefined."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    either = counts.sum(-1) + counts.sum(-2)
    f1: np.ndarray = np.divide(2.0 * hits, either, out=np.zeros(hits.shape), where=either > 0)
    return f1


def recall_of_classes(counts: np.ndarray) -> np.ndarray:
    """(…, C) recall of every class of counts (…, C, C); NaN for a class not in the truth."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    true = counts.sum(-1)
    recall: np.ndarray = np.divide(hits, true, out=np.full(hits.shape, np.nan), where=true > 0)
    return recall


def class_groups(
    train_counts: Sequence[int], tail: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids of the (head, middle) classes beside the given tail.

    Head is a third of the classes, rounded and at least one: the largest that are not tail.

    Args:
        train_counts: (C,) training rows per class.
        tail: Ids of the tail classes.
    """
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

    F1 is averaged over the classes that the truth or the prediction has, which is
    scikit-learn's rule; G-mean and macro recall over those in the truth. A score that is
    undefined (AUC where a class is missing in the truth) is None.

    Args:
        labels: (N,) true ids.
        logits: (N, C) scores; the largest is the prediction.
        classes: C label names.
        train_counts: (C,) training rows per class.
        tail: Ids of the tail classes.
    """
    counts = confusion(labels, logits.argmax(axis=1), len(classes))
    f1 = f1_of_classes(counts)
    recall = recall_of_classes(counts)
    seen = (counts.sum(0) + counts.sum(1)) > 0
    true = counts.sum(1)
    head, middle = class_groups(train_counts, tail)
    present = recall[true > 0]
    scores: dict[str, float | None] = {
        "macro_f1": _mean(f1[seen]),
        "tail_f1": _mean(f1[list(tail)]),
        "middle_f1": _mean(f1[list(middle)]),
        "head_f1": _mean(f1[list(head)]),
        "worst_f1": float(f1[seen].min()) if seen.any() else None,
        "weighted_f1": float((f1 * true).sum() / true.sum()) if true.sum() else None,
        "accuracy": float(np.trace(counts) / counts.sum()) if counts.sum() else None,
        "balanced_accuracy": _mean(present),
        "g_mean": float(np.prod(present) ** (1 / len(present))) if len(present) else None,
        "auc": _auc(labels, logits),
    }
    return scores | {f"f1/{name}": float(f1[i]) for i, name in enumerate(classes)}


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
    counts = np.bincount(cells, minlength=len(names) * size**2).reshape(-1, size, size)
    f1, true = f1_of_classes(counts), counts.sum(2)
    seen = (true + counts.sum(1)) > 0
    rows = true.sum(1)
    macro = np.where(seen, f1, 0.0).sum(1) / seen.sum(1)
    weighted = (f1 * true).sum(1) / rows
    accuracy = np.trace(counts, axis1=1, axis2=2) / rows
    found = {}
    for i, name in enumerate(names):
        own: dict[str, float | None] = {
            "rows": float(rows[i]), "macro_f1": float(macro[i]), "micro_f1": float(accuracy[i]),
            "weighted_f1": float(weighted[i]), "accuracy": float(accuracy[i]),
        }  # fmt: skip
        for c, label in enumerate(classes):
            own[f"f1/{label}"] = float(f1[i, c]) if seen[i, c] else None
        found[str(name)] = own
    return found


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _auc(labels: np.ndarray, logits: np.ndarray) -> float | None:
    if len(np.unique(labels)) < logits.shape[1] or not np.isfinite(logits).all():
        return None
    from sklearn.metrics import roc_auc_score  # takes longer to import than many a model to load

    shares = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    if logits.shape[1] == 2:
        return float(roc_auc_score(labels, shares[:, 1]))
    return float(roc_auc_score(labels, shares, multi_class="ovr", average="macro"))
