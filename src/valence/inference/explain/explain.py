"""Why a model gave a text its label: what every word adds, and the training texts nearest to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from valence.data.examples import Examples
from valence.errors import SpecError, UnknownNameError
from valence.inference.explain.neighbors import Index, Neighbor, find_index
from valence.inference.predictor import Predictor
from valence.models.attribution import MOST_WORDS, Attribution, target_values

JSON_NAMES = {"neighbors": "neighbours"}  # the key that readers of documents know


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
    """The explanation of one text.

    Attributes:
        text: The text.
        label: The label that is explained: the target, or else the most probable one;
            ``intensity`` of a model that has no labels.
        probabilities: By label; of a model without labels, its intensity.
        tokens: Words in the order of the text; those truncated by the model are missing.
        neighbors: Nearest training texts, the nearest first.
        modalities: What each modality adds to the label, for models of several; else None.
        method: How the scores were computed.
        unit: What they are measured in.
        error: How far the sum of the scores is from what it should be: the difference that
            the whole text makes; None where the method guarantees no sum.
        note: What a reader should know; empty for most.
    """

    text: str
    label: str
    probabilities: dict[str, float]
    tokens: list[Token] = field(default_factory=list)
    neighbors: list[Neighbor] = field(default_factory=list)
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
    neighbors: int = 5,
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
        neighbors: How many training texts; 0 for none.
        index: The training texts; when None, those in the model's folder, or else what
            the model's prototype memory remembers of them.

    Raises:
        SpecError: if a number is too small.
        UnknownNameError: if the target is no label.
        ModelError: if the extra is missing.
    """
    if steps < 1 or neighbors < 0:
        raise SpecError(f"{steps} steps and {neighbors} neighbors are not possible; use more")
    if target is not None and target not in predictor.classes:
        raise UnknownNameError("label", target, predictor.classes)
    if not texts:
        return []
    logits = predictor.outputs(Examples(list(texts))).logits
    targets = logits.argmax(axis=1).tolist()
    if target is not None:
        targets = [predictor.classes.index(target)] * len(texts)
    near: list[list[Neighbor]] = [[] for _ in texts]
    nearest = (index or find_index(predictor)) if neighbors else None
    if nearest is not None:
        near = nearest.nearest(predictor.model, texts, neighbors)
    named = predictor.task.named(logits)
    return [
        _explanation(
            text, predictor.task.output_name(goal), probs, neighbors,
            predictor.model.attribute(text, goal, steps),
        )
        for text, goal, probs, neighbors in zip(texts, targets, named, near, strict=True)
    ]  # fmt: skip


def _explanation(
    text: str, label: str, probs: dict[str, float], neighbors: list[Neighbor],
    attribution: Attribution,
) -> Explanation:  # fmt: skip
    tokens = [Token(text[a:b], a, b, score) for (a, b), score in attribution.pieces]
    return Explanation(
        text, label, probs, tokens, neighbors, None, attribution.method, attribution.unit,
        attribution.error, attribution.note,
    )  # fmt: skip


def explain_clip(
    predictor: Predictor, clip: str | Path, text: str = "", *, target: str | None = None
) -> Explanation:
    """What words, sound and picture of a file add to its label or intensity.

    A modality's effect is the value with it minus the value without it, a word's what leaving it
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
    outputs = predictor.calibration.apply(predict(versions, None))
    goal = int(outputs.logits[0].argmax()) if target is None else predictor.classes.index(target)
    values = target_values(outputs.logits, goal)
    effects = {}
    for name in predictor.model.inputs:
        rest = predictor.calibration.apply(predict([text], name))
        effects[name] = float(values[0] - target_values(rest.logits, goal)[0])
    return Explanation(
        text, predictor.task.output_name(goal), predictor.task.named(outputs.logits[:1])[0],
        [Token(text[a:b], a, b, float(values[0] - x))
         for (a, b), x in zip(spans, values[1:], strict=True)],
        modalities=effects,
        method="each word and each modality left out",
        unit="log-odds" if predictor.classes else predictor.target,
    )  # fmt: skip


def as_document(explanation: Explanation) -> dict[str, Any]:
    """An explanation as JSON has it, numbers rounded to six places."""
    from dataclasses import asdict

    document: dict[str, Any] = _rounded(asdict(explanation))
    return {JSON_NAMES.get(name, name): value for name, value in document.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value
