"""Texts to a model, and its answer: what batches are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from valence.errors import ModelError

BYTES_PER_TOKEN = 4
"""Of UTF-8: English has more, and scripts of three bytes a character have about one token each."""


class BatchScorer(Protocol):
    """The model's interface, as :class:`~valence.inference.predictor.Predictor` has it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Label names in the order of the probabilities; none of a model that gives a number."""
        ...

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """(N, C) probabilities."""
        ...

    def chosen(self, probs: np.ndarray) -> np.ndarray | None:
        """(N, C) which label is given for probabilities; None where it never abstains."""
        ...

    def columns(self, texts: Sequence[str]) -> Mapping[str, list[Any]]:
        """The numbers of N texts by name, of a model without labels."""
        ...

    @property
    def truncated(self) -> int:
        """Texts of the last call that were truncated."""
        ...


@dataclass(frozen=True)
class Answer:
    """The model's output for one request's N texts.

    Attributes:
        classes: C label names of the model that answered; of one that gives a number, its name.
        probabilities: (N, C); of a model that gives a number, (N, 1) that number.
        chosen: (N, C) which label is given, of a model that may abstain.
        are_probabilities: False of a model that gives a number.
    """

    classes: tuple[str, ...]
    probabilities: np.ndarray
    chosen: np.ndarray | None = None
    are_probabilities: bool = True


def about_tokens(text: str) -> int:
    """About how many tokens a text has; at least one."""
    return 1 + len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN


def score_texts(model: BatchScorer, texts: list[str]) -> Answer:
    """The model's output for texts.

    Raises:
        ModelError: if it is of another shape, or no number.
    """
    classes = model.classes
    if classes:
        scores = np.asarray(model.predict_proba(texts))
    else:
        columns = model.columns(texts)
        classes = tuple(columns)
        scores = np.column_stack([columns[name] for name in classes])
    if scores.shape != (len(texts), len(classes)):
        raise ModelError(f"{len(texts)} texts gave scores of shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ModelError("The model returned a score that is not a number")
    labels = bool(model.classes)
    return Answer(classes, scores, model.chosen(scores) if labels else None, labels)


def joined(answers: list[Answer]) -> Answer:
    """The answers to the pieces of one request, which one model has scored."""
    if len(answers) == 1:
        return answers[0]
    probs = np.concatenate([answer.probabilities for answer in answers])
    chosen = [answer.chosen for answer in answers if answer.chosen is not None]
    return replace(
        answers[0], probabilities=probs, chosen=np.concatenate(chosen) if chosen else None
    )
