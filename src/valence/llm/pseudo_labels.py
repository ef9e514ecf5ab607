"""Which of a model's own answers become training labels: per language, confident and balanced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
MOST_SETS = 3
FEW_ROWS = 5
"""Selected validation rows below which their share of right answers says nothing."""


class AlignSpec(BaseModel):
    """How pseudo-labels are selected, and when self-alignment stops."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: Count = 3
    sets: Annotated[int, Field(ge=2)] | None = None
    """Sets of demonstrations that must lead to one answer: the nearest, the second nearest …;
    None: for every language so many of 2 to 3 as select the most of its validation rows."""
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Least probability of the answer, in every set; None: for every language the lowest at which
    ``accuracy`` of its selected validation rows are right."""
    accuracy: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of right answers among the selected validation rows of a language."""
    balance: Annotated[float, Field(ge=1)] = 2.0
    """Most selected texts of a label, as a multiple of the rarest label of the language."""
    missing: Literal["one", "ignored"] = "one"
    """What a label without a selected text counts as in that rule: one text, or nothing, so that
    the others are balanced among themselves alone."""
    pool: Literal["language", "all"] = "language"
    """Whether demonstrations are of the text's own language, or of any."""
    least_gain: float = 0.0
    """Of validation macro-F1; a round that gains no more is discarded, and ends the training."""

    @property
    def most_sets(self) -> int:
        """Sets that are computed."""
        return self.sets or MOST_SETS


@dataclass(frozen=True)
class AnswerLimits:
    """What an answer of a language must meet.

    Attributes:
        sets: Sets of demonstrations that must agree.
        threshold: Least probability in each; above 1 where no answer is taken.
        accuracy: Share of right answers among the validation rows that meet them; None where
            the limits do not come from validation rows.
    """

    sets: int
    threshold: float
    accuracy: float | None = None

    @property
    def none_taken(self) -> bool:
        """Whether no answer can meet them."""
        return self.threshold > 1


def agreement(probs: np.ndarray, sets: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,) labels under the first set, whether all sets agree on them, and the least probability.

    Args:
        probs: (S, N, C) label probabilities under S sets of demonstrations.
        sets: How many of the S are read.
    """
    probs = probs[:sets]
    labels = probs.argmax(axis=2)
    confidence = np.take_along_axis(probs, labels[0][None, :, None], axis=2)[..., 0].min(axis=0)
    return labels[0], (labels == labels[0]).all(axis=0), confidence


def language_limits(spec: AlignSpec, probs: np.ndarray, truth: np.ndarray) -> AnswerLimits:
    """The limits of a language, from its validation rows.

    Args:
        spec: Gives the limits that are fixed, and the accuracy that others must reach.
        probs: (S, N, C) label probabilities of its validation rows.
        truth: (N,) their labels.
    """
    if spec.threshold is not None and spec.sets is not None:
        return AnswerLimits(spec.sets, spec.threshold)
    best, most = AnswerLimits(spec.sets or 2, 2.0), 0
    for sets in [spec.sets] if spec.sets is not None else range(2, spec.most_sets + 1):
        labels, agrees, confidence = agreement(probs, sets)
        right = (labels == truth) & agrees
        candidates = [spec.threshold] if spec.threshold is not None else confidence[agrees]
        for threshold in np.unique(candidates):
            taken = agrees & (confidence >= threshold)
            count = int(taken.sum())
            share = float(right[taken].mean()) if count else 0.0
            if count >= FEW_ROWS and share >= spec.accuracy and count > most:
                best, most = AnswerLimits(sets, float(threshold), share), count
    return best


def select_confident(
    probs: np.ndarray, limits: AnswerLimits, *, balance: float, labels: Sequence[int],
    missing: Literal["one", "ignored"] = "one",
) -> np.ndarray:  # fmt: skip
    """Select texts of a language by agreement, confidence and balance of labels.

    Args:
        probs: (S, N, C) label probabilities under S sets of demonstrations.
        limits: Of the language.
        balance: Most texts of a label, as a multiple of the rarest.
        labels: The labels that the rule knows: those of the training records.
        missing: What one of them without a text counts as.

    Returns:
        Selected rows, the most confident first within a label.
    """
    answers, agrees, confidence = agreement(probs, limits.sets)
    usable = agrees & (confidence >= limits.threshold)
    counts = np.bincount(answers[usable], minlength=probs.shape[2])
    if not counts.any():
        return np.zeros(0, dtype=np.int64)
    known = counts[list(labels)]
    rarest = max(1, known.min()) if missing == "one" else counts[counts > 0].min()
    most = int(balance * rarest)
    selected = []
    for label in np.flatnonzero(counts):
        own = np.flatnonzero(usable & (answers == label))
        selected.append(own[np.argsort(-confidence[own], kind="stable")][:most])
    rows: np.ndarray = np.concatenate(selected)
    return rows
