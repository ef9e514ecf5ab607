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
        """The notes, with the share of invalid answers and an example of one."""
        notes = list(self.notes)
        if self.shortened:
            notes.append(f"{self.shortened} of {len(self.logits)} questions were shortened to fit "
                         "the model's context")  # fmt: skip
        wrong = np.flatnonzero(self.invalid)
        if len(wrong):
            share = len(wrong) / len(self.logits)
            example = f", such as {self.raw[wrong[0]][:SHOWN]!r}" if self.raw else ""
            notes.append(
                f"{len(wrong)} of {len(self.logits)} answers ({share:.1%}) name no label{example}"
            )
        return tuple(notes)

    def texts(self) -> tuple[str | None, ...]:
        """What was generated for each question, as JSON; None where labels were scored."""
        if not self.raw:
            return (None,) * len(self.logits)
        return tuple(json.dumps(text, ensure_ascii=False) for text in self.raw)


def parse_answer(raw: str, wording: PromptRenderer) -> int | None:
    """The class id that an answer names, or None.

    A number is read where ids are asked for: the first one. A label is read as whole words,
    in any case: the first one named, of two that begin together the longer.
    """
    if wording.template.answers == "id":
        found = NUMBER.search(raw)
        number = int(found[0]) if found else -1
        return number if 0 <= number < len(wording.classes) else None
    places = []
    for label, name in enumerate(wording.classes):
        match = re.search(rf"(?<!\w){re.escape(name.lower())}(?!\w)", raw.lower())
        if match:
            places.append((match.start(), -len(name), label))
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
    tokens: Mapping[str, float], label: int | None, wording: PromptRenderer
) -> np.ndarray | None:
    """(C,) log shares of the labels from the likeliest first tokens of an answer.

    A token counts for the one label that begins with it. None where that does not agree with
    the label that the whole answer names, so that numbers never contradict words.

    Args:
        tokens: Log-probability by token.
        label: The class id that the whole answer names.
        wording: Names the labels.
    """
    shares = np.zeros(len(wording.classes))
    for token, value in tokens.items():
        start = token.strip().lower()
        fits = [
            i for i, name in enumerate(wording.answers)
            if start and (name.lower().startswith(start) if wording.template.answers == "label"
                          else name == start)
        ]  # fmt: skip
        if len(fits) == 1:
            shares[fits[0]] += float(np.exp(value))
    if label is None or shares.sum() <= 0 or int(shares.argmax()) != label:
        return None
    floor = shares[shares > 0].min() * 0.1  # of labels not among the tokens that were told
    logits: np.ndarray = np.log(np.maximum(shares, floor)).astype(np.float32)
    return logits
