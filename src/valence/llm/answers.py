"""Answers of a language model: what they name, how sure they are, and which are invalid."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from valence.evaluation.task import CERTAIN
from valence.llm.prompts import PromptRenderer

NUMBER = re.compile(r"\d+")
SHOWN = 60  # characters of an invalid answer in a note


@dataclass(frozen=True)
class Answers:
    """What a model answered to N questions.

    Attributes:
        logits: (N, C) float32; not a number in the rows of invalid answers.
        raw: What was generated; empty where labels were scored.
        shortened: How many questions had to be shortened to fit the context.
        notes: Lines for the user.
    """

    logits: np.ndarray
    raw: tuple[str, ...] = ()
    shortened: int = 0
    notes: tuple[str, ...] = ()

    @property
    def invalid(self) -> np.ndarray:
        """(N,) whether an answer names no label."""
        missing: np.ndarray = ~np.isfinite(self.logits).all(axis=1)
        return missing

    def summary(self) -> tuple[str, ...]:
        """The notes, with the fraction of invalid answers and an example of one."""
        notes = list(self.notes)
        if self.shortened:
            notes.append(f"{self.shortened} of {len(self.logits)} questions were shortened to fit "
                         "the model's context")  # fmt: skip
        wrong = np.flatnonzero(self.invalid)
        if len(wrong):
            rate = len(wrong) / len(self.logits)
            example = f", such as {self.raw[wrong[0]][:SHOWN]!r}" if self.raw else ""
            notes.append(
                f"{len(wrong)} of {len(self.logits)} answers ({rate:.1%}) name no label{example}"
            )
        return tuple(notes)

    def texts(self) -> tuple[str | None, ...]:
        """What was generated for each question, as JSON; None where labels were scored."""
        if not self.raw:
            return (None,) * len(self.logits)
        return tuple(json.dumps(text, ensure_ascii=False) for text in self.raw)


def parse_answer(raw: str, renderer: PromptRenderer) -> int | None:
    """The class id that an answer names, or None.

    A number is read where the template asks for ids: the first one. A label is read as whole words,
    in any case: the first one named, of two that begin together the longer.
    """
    if renderer.template.answers == "id":
        match = NUMBER.search(raw)
        number = int(match[0]) if match else -1
        return number if 0 <= number < len(renderer.classes) else None
    places = []
    for label, name in enumerate(renderer.classes):
        named = re.search(rf"(?<!\w){re.escape(name.lower())}(?!\w)", raw.lower())
        if named:
            places.append((named.start(), -len(name), label))
    return min(places)[2] if places else None


def one_hot(labels: Sequence[int | None], class_count: int) -> np.ndarray:
    """(N, C) logits of answers without probabilities; not a number where invalid."""
    logits = np.zeros((len(labels), class_count), dtype=np.float32)
    for i, label in enumerate(labels):
        if label is None:
            logits[i] = np.nan
        else:
            logits[i, label] = CERTAIN
    return logits


def token_logits(
    tokens: Mapping[str, float], label: int | None, renderer: PromptRenderer
) -> np.ndarray | None:
    """(C,) log-probabilities of the labels from the likeliest first tokens of an answer.

    A token counts for the one label that begins with it. None where the likeliest label is not
    the one that the whole answer names, so that probabilities never contradict the answer.

    Args:
        tokens: Log-probability by token.
        label: The class id that the whole answer names.
        renderer: Names the labels.
    """
    probs = np.zeros(len(renderer.classes))
    for token, value in tokens.items():
        start = token.strip().lower()
        fits = [
            i for i, name in enumerate(renderer.answers)
            if start and (name.lower().startswith(start) if renderer.template.answers == "label"
                          else name == start)
        ]  # fmt: skip
        if len(fits) == 1:
            probs[fits[0]] += float(np.exp(value))
    if label is None or probs.sum() <= 0 or int(probs.argmax()) != label:
        return None
    floor = probs[probs > 0].min() * 0.1  # of labels not among the returned tokens
    logits: np.ndarray = np.log(np.maximum(probs, floor)).astype(np.float32)
    return logits
