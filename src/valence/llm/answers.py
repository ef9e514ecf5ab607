"""Answers of a language model: what they name, how sure they are, and which are invalid."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from valence.evaluation.task import CERTAIN
from valence.llm.prompts import PromptRenderer

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
SHOWN = 60  # characters of an invalid answer in a note
SHOWN_REFUSALS = 3
THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
OPEN_THOUGHT = re.compile(r"<(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
END_OF_THOUGHT = re.compile(r".*</(?:think|thinking|thought|reasoning)>", re.DOTALL | re.IGNORECASE)
DASHES = re.compile("[\u2010-\u2015\u2212\ufe58\ufe63\uff0d]")
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese, which are written without spaces."""


@dataclass(frozen=True)
class Answers:
    """What a model answered to N questions.

    Attributes:
        logits: (N, C) float32; not a number in the rows of invalid answers.
        raw: What was generated; empty where labels were scored.
        shortened: How many questions had to be shortened to fit the context.
        notes: Lines for the user.
        refused: Why a server did not answer, by the number of the question.
    """

    logits: np.ndarray
    raw: tuple[str, ...] = ()
    shortened: int = 0
    notes: tuple[str, ...] = ()
    refused: Mapping[int, str] = field(default_factory=dict)

    @property
    def invalid(self) -> np.ndarray:
        """(N,) whether an answer names no label."""
        missing: np.ndarray = ~np.isfinite(self.logits).all(axis=1)
        return missing

    def summary(self, names: Sequence[str] | None = None) -> tuple[str, ...]:
        """The notes, with the fraction of invalid answers and an example of one.

        Args:
            names: Names of the N rows; their numbers, from 1, when None.
        """
        notes = list(self.notes)
        total = len(self.logits)
        if self.shortened:
            notes.append(f"{self.shortened} of {total} prompts were shortened to fit the model's "
                         "context")  # fmt: skip
        if self.refused:
            notes.append(f"{len(self.refused)} of {total} prompts were refused and count as not "
                         f"answered: {self._refusals(names)}")  # fmt: skip
        wrong = [i for i in np.flatnonzero(self.invalid).tolist() if i not in self.refused]
        if wrong:
            rate = len(wrong) / total
            example = f", such as {self.raw[wrong[0]][:SHOWN]!r}" if self.raw else ""
            notes.append(
                f"{len(wrong)} of {total} answers ({rate:.1%}) do not name one label{example}"
            )
        open_ended = sum(without_thoughts(self.raw[i]) is None for i in wrong if self.raw)
        if open_ended:
            notes.append(f"{open_ended} of these answers were cut off while the model was "
            f"thinking; turn thinking off on the server, or raise "
                         "llm.max_new_tokens")  # fmt: skip
        return tuple(notes)

    def _refusals(self, names: Sequence[str] | None) -> str:
        shown = list(self.refused.items())[:SHOWN_REFUSALS]
        parts = [f"row {names[i] if names is not None else i + 1} ({why})" for i, why in shown]
        more = len(self.refused) - len(shown)
        return ", ".join(parts) + (f" and {more} more" if more else "")

    def texts(self) -> tuple[str | None, ...]:
        """What was generated for each question, as JSON; None where labels were scored."""
        if not self.raw:
            return (None,) * len(self.logits)
        return tuple(json.dumps(text, ensure_ascii=False) for text in self.raw)


def parse_answer(raw: str, renderer: PromptRenderer) -> int | None:
    """The class id that an answer names, or None.

    Where the template asks for ids, the numbers of the first line are read, and a label if there
    is none. A label is read as whole words in any of its usual spellings; an answer that names two
    labels names none.
    """
    named = named_labels(raw, renderer)
    return named[0] if len(named) == 1 else None


def named_labels(raw: str, renderer: PromptRenderer) -> tuple[int, ...]:
    """The class ids that an answer names; none where it ends within a thought."""
    answer = without_thoughts(raw)
    if answer is None:
        return ()
    if renderer.template.answers == "id":
        numbers = [float(m) for m in NUMBER.findall(comparable(answer.strip().partition("\n")[0]))]
        if numbers:
            ids = {int(number) for number in numbers if number in range(len(renderer.classes))}
            return tuple(sorted(ids)) if numbers[0] in ids else ()
    forms = [comparable(name) for name in renderer.classes]
    if len(set(forms)) < len(forms):  # labels that differ in case or the like alone
        forms = [unicodedata.normalize("NFC", name) for name in renderer.classes]
        answer = unicodedata.normalize("NFC", answer)
    else:
        answer = comparable(answer)
    spans = [(*span, label) for label, form in enumerate(forms) for span in _places(form, answer)]
    whole = {
        label for start, end, label in spans
        if not any(a <= start and end <= b and (a, b) != (start, end) for a, b, _ in spans)
    }  # fmt: skip
    return tuple(sorted(whole))


def without_thoughts(raw: str) -> str | None:
    """What follows the thoughts of a reasoning model; None where a thought does not end."""
    text = END_OF_THOUGHT.sub("", THOUGHT.sub("", raw))
    return None if OPEN_THOUGHT.search(text) else text


def comparable(text: str) -> str:
    """A text in the form in which labels are compared.

    Compatibility forms, case, dotless i, underscores, dashes and spaces make no difference; a
    minus before a digit does.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = DASHES.sub("-", text.replace("\u0131", "i").replace("i\u0307", "i"))
    text = re.sub(r"(?<![\w])-(?=\d)", "\0", text)  # a minus, kept
    return re.sub(r"[\s_-]+", " ", text).strip().replace("\0", "-")


def _places(name: str, answer: str) -> list[tuple[int, int]]:
    """Where a name stands as a word of its own."""
    if not name:
        return []
    places = []
    start = answer.find(name)
    while start >= 0:
        end = start + len(name)
        before = answer[start - 1] if start else " "
        after = answer[end] if end < len(answer) else " "
        if _parted(before, name[0]) and _parted(name[-1], after):
            places.append((start, end))
        start = answer.find(name, start + 1)
    return places


def _parted(left: str, right: str) -> bool:
    """Whether a word may end between two characters."""
    if left == "-" and right.isdigit():
        return False  # another number
    if unicodedata.category(right).startswith("M"):
        return False  # a mark belongs to the letter before it
    if UNSPACED.match(left) or UNSPACED.match(right):
        return True
    return not (_is_word(left) and _is_word(right))


def _is_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")


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
    the one that the whole answer names, so that probabilities never contradict the answer, and
    where tokens that count for no label have more of the probability than those that do.

    Args:
        tokens: Log-probability by token.
        label: The class id that the whole answer names.
        renderer: Names the labels.
    """
    probs = np.zeros(len(renderer.classes))
    names = [comparable(name) for name in renderer.answers]
    rest = 0.0
    for token, value in tokens.items():
        start, mass = comparable(token), float(np.exp(value))
        whole = renderer.template.answers == "id"
        fits = [
            i for i, name in enumerate(names)
            if start and (name == start if whole else name.startswith(start))
        ]  # fmt: skip
        if len(fits) == 1:
            probs[fits[0]] += mass
        else:
            rest += mass
    if label is None or probs.sum() <= 0 or probs.sum() < rest or int(probs.argmax()) != label:
        return None
    floor = probs[probs > 0].min() * 0.1  # of labels not among the returned tokens
    logits: np.ndarray = np.log(np.maximum(probs, floor)).astype(np.float32)
    return logits
