"""How far two models agree on labeled rows, for checking an export against its model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from valence.models.base import Outputs


def compare_scores(
    labels: np.ndarray, before: Outputs, after: Outputs, classes: tuple[str, ...]
) -> dict[str, Any]:
    """How an export differs from its model on N labeled rows.

    Args:
        labels: (N,) class ids.
        before: The model's scores.
        after: The export's.
        classes: Label names.

    Returns:
        ``rows``, ``largest_difference`` of a probability, ``flips`` (fraction of changed labels),
        and pairs (before, after) of ``macro_f1``, ``macro_recall`` and ``worst_f1``.
    """
    from sklearn.metrics import f1_score, recall_score

    first, second = before.logits.argmax(axis=1), after.logits.argmax(axis=1)
    there = np.unique(labels)
    pairs: dict[str, list[float]] = {"macro_f1": [], "macro_recall": [], "worst_f1": []}
    for predicted in (first, second):
        f1 = f1_score(labels, predicted, labels=there, average=None, zero_division=0)
        recall = recall_score(labels, predicted, labels=there, average=None, zero_division=0)
        pairs["macro_f1"].append(float(f1.mean()))
        pairs["macro_recall"].append(float(recall.mean()))
        pairs["worst_f1"].append(float(f1.min()))
    gap = np.abs(before.probs - after.probs).max(initial=0.0)
    flips = float((first != second).mean()) if len(labels) else 0.0
    return {"rows": len(labels), "largest_difference": float(gap), "flips": flips, **pairs}
