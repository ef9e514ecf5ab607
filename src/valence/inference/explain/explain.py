"""Why a model gave a text its label: what every word adds, and the training texts nearest to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from valence.errors import SpecError, UnknownNameError
from valence.inference.explain.neighbors import Index, Neighbor, find_index
from valence.inference.predictor import Predictor
from valence.models.attribution import MOST_WORDS, log_odds
from valence.models.base import Attribution

INTENSITY = "intensity"


@dataclass(frozen=True)
class Token:
    """A word, or a part of one, with what it adds.

    Attributes:
        text: Its letters as they are in the text.
        start, end: Its place in the text, in characters; ``end`` is behind the last.
        score: What it adds to the target, in :attr:`Explanation.unit`; below 0 it speaks
            against it.
    """

    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Explanation:
    """What is said of one text.

    Attributes:
        text: The text.
        label: The label that is explained: the target, or else the most probable one;
            ``intensity`` of a model that has no labels.
        probabilities: By label; of a model without labels, its intensity.
        tokens: Words in the order of the text; those that the model cut away are missing.
        neighbours: Nearest training texts, the nearest first.
        modalities: What each modality adds to the label, for models of several; else None.
        method: How the scores were found.
        unit: What they are measured in.
        error: How far the sum of the scores is from what it should be: the difference that
            the whole text makes; None where the method promises no sum.
        note: What a reader should know; empty for most.
    """

    text: str
    label: str
    probabilities: dict[str, float]
    tokens: list[Token] = field(default_factory=list)
    neighbours: list[Neighbor] = field(default_factory=list)
    modalities: dict[str, float] | None = None
    method: str = ""
    unit: str = ""
    error: float | None = None
    note: str = ""


def explain(
    predictor: Predictor,
    texts: Sequence[str],
    *,
    target: str | None = None,
    steps: int = 32,
    neighbours: int = 5,
    index: Index | None = None,
) -> list[Explanation]:
    """Explain texts one by one.

    Token scores are integrated gradients (Sundararajan, Taly & Yan 2017) over the token
    embeddings for models with an encoder, from a text whose tokens are all padding;
    coefficient × value for TF-IDF; what leaving the word out changes for all others.

    Args:
        predictor: The model.
        texts: N texts.
        target: The label that is explained; each text's most probable one when None.
        steps: Points of the integral; more make :attr:`Explanation.error` smaller.
        neighbours: How many training texts; 0 for none.
        index: The training texts; when None, those kept in the model's folder, or else what
            the model's prototype memory remembers of them.

    Raises:
        SpecError: if a number is too small.
        UnknownNameError: if the target is no label.
        ModelError: if the extra is missing.
    """
    if steps < 1 or neighbours < 0:
        raise SpecError(f"{steps} steps and {neighbours} neighbours are not possible; give more")
    if target is not None and target not in predictor.classes:
        raise UnknownNameError("label", target, predictor.classes)
    if not texts:
        return []
    shares = predictor.predict_proba(texts)
    wanted = [
        int(row.argmax()) if target is None else predictor.classes.index(target) for row in shares
    ]
    near: list[list[Neighbor]] = [[] for _ in texts]
    found = (index or find_index(predictor)) if neighbours else None
    if found is not None:
        near = found.nearest(predictor.model, texts, neighbours)
    return [
        _explanation(
            text, predictor, row, goal, nearest, predictor.model.attribute(text, goal, steps)
        )
        for text, row, goal, nearest in zip(texts, shares, wanted, near, strict=True)
    ]


def _explanation(
    text: str, predictor: Predictor, shares: np.ndarray, goal: int,
    nearest: list[Neighbor], found: Attribution,
) -> Explanation:  # fmt: skip
    tokens = [Token(text[a:b], a, b, score) for (a, b), score in found.pieces]
    named = {name: float(x) for name, x in zip(predictor.classes, shares, strict=True)}
    return Explanation(
        text, predictor.classes[goal], named, tokens, nearest, None,
        found.method, found.unit, found.error, found.note,
    )  # fmt: skip


def explain_clip(
    predictor: Predictor, clip: str | Path, text: str = "", *, target: str | None = None
) -> Explanation:
    """What words, sound and picture of a file add to its label or intensity.

    A modality's share is the value with it minus the value without it, a word's what leaving it
    out changes; the value is the log-odds of the label, or the intensity itself.

    Args:
        predictor: A model that was trained on clips.
        clip: A sound or video file.
        text: What is said in it; none where that is not known.
        target: The label; the most probable one when None.

    Raises:
        SpecError: if the model cannot read clips.
        DataError: if the file cannot be read.
        UnknownNameError: if the target is no label.
    """
    if target is not None and target not in predictor.classes:
        raise UnknownNameError("label", target, predictor.classes)
    predict = predictor.model.clip_reader(Path(clip))
    spans = [match.span() for match in re.finditer(r"\S+", text)][:MOST_WORDS]
    versions = [text, *(text[:a] + text[b:] for a, b in spans)]
    scores = predictor.calibration.applied(predict(versions, None))
    goal = int(scores.logits[0].argmax()) if target is None else predictor.classes.index(target)
    values = _values(scores.logits, np.full(len(versions), goal))
    effects = {}
    for name in predictor.model.inputs:
        rest = predictor.calibration.applied(predict([text], name))
        effects[name] = float(values[0] - _values(rest.logits, np.array([goal]))[0])
    shares = (
        dict(zip(predictor.classes, scores.probs[0].tolist(), strict=True))
        if predictor.classes
        else {INTENSITY: float(values[0])}
    )
    return Explanation(
        text, predictor.classes[goal] if predictor.classes else INTENSITY, shares,
        [Token(text[a:b], a, b, float(values[0] - x))
         for (a, b), x in zip(spans, values[1:], strict=True)],
        modalities=effects,
        method="each word and each modality left out",
        unit="log-odds" if predictor.classes else "intensity",
    )  # fmt: skip


def _values(logits: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """(N,) intensities of (N, 1), or log-odds of a class each of logits (N, C)."""
    if logits.shape[1] == 1:
        return logits[:, 0].astype(np.float64)
    return np.array(
        [log_odds(row[None], int(goal))[0] for row, goal in zip(logits, goals, strict=True)]
    )


def as_document(found: Explanation) -> dict[str, Any]:
    """An explanation as JSON has it, numbers rounded to six places."""
    from dataclasses import asdict

    document: dict[str, Any] = _rounded(asdict(found))
    return document


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value
