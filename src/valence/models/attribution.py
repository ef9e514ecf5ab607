"""Attribution of a prediction to words: gradients, coefficients, or leave-one-out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from valence.data.examples import Examples
from valence.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from valence.models.base import Model
    from valence.models.baselines import TfidfModel
    from valence.models.ngrams import Analyzer
    from valence.models.text_model import TextModel

Piece = tuple[tuple[int, int], float]
"""A span of a text, (start, end) in characters, and its score."""
STEP_TOKENS = 4096  # of a batch of interpolated texts, which bounds the memory
LONGEST_WORD = 24  # characters; a longer word of the tokenizer is shown as its tokens
MOST_WORDS = 400  # left out one by one, each at the cost of a forward pass


@dataclass(frozen=True)
class Attribution:
    """Scores of the words of a text for a class.

    Attributes:
        pieces: Spans of the text with their scores.
        method: How the scores were computed.
        unit: What they are measured in.
        error: Difference between their sum and the effect of the whole text; None where the
            method guarantees no sum.
        note: A line for the user; empty for most.
    """

    pieces: list[Piece] = field(default_factory=list)
    method: str = ""
    unit: str = "log-odds of the label"
    error: float | None = None
    note: str = ""


def log_odds(logits: np.ndarray, target: int) -> np.ndarray:
    """(N,) logarithm of p / (1 - p) of a class of logits (N, C)."""
    from scipy.special import logsumexp  # takes long to import

    rest = np.delete(logits.astype(np.float64), target, axis=1)
    odds: np.ndarray = logits[:, target] - logsumexp(rest, axis=1)
    return odds


def target_values(logits: np.ndarray, target: int) -> np.ndarray:
    """(N,) log-odds of a class of logits (N, C), or the numbers of (N, 1)."""
    if logits.shape[1] == 1:
        numbers: np.ndarray = logits[:, 0].astype(np.float64)
        return numbers
    return log_odds(logits, target)


def leave_one_out(model: Model, text: str, target: int) -> Attribution:
    """Leave-one-out attribution by word, for models without gradients.

    Args:
        model: Any model of texts.
        text: One text; only its first 400 words are attributed.
        target: Id of the class.
    """
    spans = [match.span() for match in re.finditer(r"\S+", text)][:MOST_WORDS]
    versions = [text, *(text[:a] + text[b:] for a, b in spans)]
    values = target_values(model.predict(Examples(versions)).logits, target)
    pieces = [(span, float(values[0] - x)) for span, x in zip(spans, values[1:], strict=True)]
    unit = "log-odds of the label" if model.classes else model.task.target
    return Attribution(pieces, "each word left out", unit)


def term_contributions(model: TfidfModel, text: str, target: int) -> Attribution:
    """Coefficient × value of every term, divided evenly among its occurrences.

    Measured against the mean of the other classes, which is linear: the scores sum up to the
    difference of the decision values without the biases.

    Args:
        model: The regression.
        text: One text.
        target: Id of the class.
    """
    others = np.delete(np.arange(len(model.classes)), target)
    weight = model.weight[target] - model.weight[others].mean(axis=0)
    spans = [match.span() for match in re.finditer(model.ngrams.piece, text)]
    scores = np.zeros(len(spans))
    start, total = 0, 0.0
    for vectorizer in model.ngrams.vectorizers.values():
        row = vectorizer.transform([text])
        contributions = {int(i): float(x * weight[start + i])
                         for i, x in zip(row.indices, row.data, strict=True)}  # fmt: skip
        start += row.shape[1]
        total += sum(contributions.values())
        for term, words in _occurrences(vectorizer.analyzer, text, spans).items():
            value = contributions.get(vectorizer.column_of.get(term, -1))
            if value is not None and words:
                np.add.at(scores, words, value / len(words))
    pieces = [(span, float(score)) for span, score in zip(spans, scores, strict=True)]
    unit = "score above the mean of the other labels"
    return Attribution(pieces, "coefficient × value", unit, abs(float(scores.sum()) - total))


def _occurrences(
    analyzer: Analyzer, text: str, spans: Sequence[tuple[int, int]]
) -> dict[str, list[int]]:
    """Indices of the pieces of a text in which every one of its terms occurs."""
    numbers: dict[str, list[int]] = {}
    if analyzer.unit == "char":
        owner = np.full(len(text), -1)
        for number, (a, b) in enumerate(spans):
            owner[a:b] = number
        lowered = re.sub(r"\s", " ", text.lower())
        for size in range(analyzer.shortest, analyzer.longest + 1):
            for at in range(len(lowered) - size + 1):
                inside = {int(n) for n in owner[at : at + size] if n >= 0}
                numbers.setdefault(lowered[at : at + size], []).extend(inside)
        return numbers
    if analyzer.unit == "char_wb":
        for number, (a, b) in enumerate(spans):
            for term in analyzer.ngrams(text[a:b]):
                numbers.setdefault(term, []).append(number)
        return numbers
    words = [(w, n) for n, (a, b) in enumerate(spans) for w in analyzer.pieces(text[a:b])]
    for place, (word, number) in enumerate(words):
        numbers.setdefault(word, []).append(number)
        if place:
            before, earlier = words[place - 1]
            # A pair counts half in each of its words.
            numbers.setdefault(f"{before} {word}", []).extend([earlier, number])
    return numbers


def integrated_gradients(model: TextModel, text: str, target: int, steps: int) -> Attribution:
    """Integrated gradients over the token embeddings, summed over each word.

    The baseline has the padding token in place of every token but the special ones. The
    integral is approximated by Gauss-Legendre quadrature over ``steps`` points.

    Args:
        model: Any model with an encoder.
        text: One text, truncated at the length limit.
        target: Id of the class.
        steps: Steps of integrated gradients.

    Raises:
        ModelError: if captum is missing.
    """
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise ModelError(
            "Explaining this model needs an extra: pip install 'valence[explain]'"
        ) from None
    import torch

    network = model.network
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    ids = model.tokenizer([text]).input_ids[0]
    spans, special = _spans(model, text, ids)
    given = torch.tensor([ids], device=device)
    without = torch.where(torch.tensor([special], device=device), given, model.tokenizer.pad_id)
    embed = model.input_embeddings()
    with torch.no_grad():
        start, end = embed(without), embed(given)
    with torch.enable_grad():
        scores, delta = IntegratedGradients(
            lambda states: _odds_of_embeddings(model, states, target), multiply_by_inputs=True
        ).attribute(
            end, baselines=start, n_steps=steps, return_convergence_delta=True,
            internal_batch_size=max(1, STEP_TOKENS // len(ids)),
        )  # fmt: skip
    network.train(was_training)
    by_token = scores[0].sum(1).detach().cpu().numpy().astype(np.float64)
    pieces = _by_word(spans, by_token)
    note = "The text was truncated at the length limit." if _is_truncated(model, text) else ""
    return Attribution(
        pieces, "integrated gradients", "log-odds of the label", abs(float(delta[0])), note
    )


def _odds_of_embeddings(model: TextModel, states: Tensor, target: int) -> Tensor:
    """(B,) log-odds of a class of token embeddings (B, T, E) without padding."""
    import torch

    mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
    logits = model.logits_of_embeddings(states, mask)
    if model.logit_shift is not None:
        logits = logits + torch.tensor(model.logit_shift, device=logits.device)
    rest = torch.cat([logits[:, :target], logits[:, target + 1 :]], dim=1)
    odds: torch.Tensor = logits[:, target] - rest.logsumexp(1)
    return odds


Span = tuple[int, int, int | None]


def _spans(model: TextModel, text: str, ids: list[int]) -> tuple[list[Span], list[bool]]:
    """(start, end, word) of every token in the text, and which tokens are special ones."""
    backend = model.tokenizer.backend
    prompt = model.tokenizer.prompt
    if not backend.is_fast:
        special = [i in backend.all_special_ids for i in ids]
        spans = _find_tokens(backend.convert_ids_to_tokens(ids), prompt + text, special)
        return _without_prompt(spans, special, len(prompt))
    batch = backend(
        prompt + text, truncation=True, max_length=model.tokenizer.max_length,
        return_offsets_mapping=True, return_special_tokens_mask=True,
    )  # fmt: skip
    special = [bool(mark) for mark in batch["special_tokens_mask"]]
    words = batch.word_ids()
    spans = [(int(a), int(b), w) for (a, b), w in zip(batch["offset_mapping"], words, strict=True)]
    read = [i for i, token in enumerate(batch["input_ids"]) if token != model.tokenizer.skipped_id]
    if not read:
        return [(0, 0, None)], [True]
    spans, special = [spans[i] for i in read], [special[i] for i in read]
    return _without_prompt(spans, special, len(prompt))


def _without_prompt(
    spans: Sequence[Span], special: Sequence[bool], begin: int
) -> tuple[list[Span], list[bool]]:
    """Spans of a text that begins at ``begin``; tokens of the prompt before it are special."""
    if not begin:
        return list(spans), list(special)
    inside = [end > begin for _, end, _ in spans]
    moved: list[Span] = [
        (max(0, start - begin), end - begin, word) if own else (0, 0, None)
        for (start, end, word), own in zip(spans, inside, strict=True)
    ]
    return moved, [mark or not own for mark, own in zip(special, inside, strict=True)]


def _find_tokens(tokens: Sequence[str], text: str, special: Sequence[bool]) -> list[Span]:
    """Spans of tokens of a tokenizer without offsets, searched one after the other."""
    spans: list[Span] = []
    at = 0
    folded = text.lower() if len(text.lower()) == len(text) else text
    for number, (token, mark) in enumerate(zip(tokens, special, strict=True)):
        bare = token.replace("##", "").replace("▁", "").replace("@@", "")
        start = -1 if mark or not bare else max(text.find(bare, at), folded.find(bare.lower(), at))
        if start < 0:
            spans.append((at, at, None))
            continue
        at = start + len(bare)
        spans.append((start, at, number))
    return spans


def _by_word(spans: Sequence[Span], scores: np.ndarray) -> list[Piece]:
    """Tokens of one word joined, their scores summed; special tokens left out."""
    ends: dict[int, tuple[int, int]] = {}
    for start, end, word in spans:
        if word is not None:
            first, last = ends.get(word, (start, end))
            ends[word] = (min(first, start), max(last, end))
    pieces: list[Piece] = []
    before: int | None = None
    for (start, end, word), score in zip(spans, scores, strict=True):
        if word is None or end <= start:
            continue
        first, last = ends[word]
        if word == before and last - first <= LONGEST_WORD:
            (begun, _), sum_ = pieces[-1]
            pieces[-1] = ((begun, end), sum_ + float(score))
        else:
            pieces.append(((start, end), float(score)))
        before = word
    return pieces


def _is_truncated(model: TextModel, text: str) -> bool:
    return model.tokenizer([text]).truncated > 0
