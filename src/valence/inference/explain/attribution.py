"""What every word of a text adds to a label, by the kind of the model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from valence.errors import ModelError
from valence.inference.predictor import Predictor
from valence.models.base import TextModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from valence.models.baselines import TfidfModel
    from valence.models.classifier import TorchModel

Piece = tuple[tuple[int, int], float]
LOG_ODDS = "log-odds of the label"
STEP_TOKENS = 4096  # of a batch of interpolated texts, which bounds the memory
LONGEST_WORD = 24  # letters; what a tokenizer calls a longer word is shown in its parts
MOST_WORDS = 400  # left out one by one: each costs a run of the model


@dataclass(frozen=True)
class Attribution:
    """Scores of the pieces of a text: ((start, end) in characters, score)."""

    pieces: list[Piece] = field(default_factory=list)
    method: str = ""
    unit: str = LOG_ODDS
    error: float | None = None
    note: str = ""


def log_odds(logits: np.ndarray, goal: int) -> np.ndarray:
    """(N,) logarithm of p / (1 - p) of a class of logits (N, C)."""
    rest = np.delete(logits.astype(np.float64), goal, axis=1)
    found: np.ndarray = logits[:, goal] - logsumexp(rest, axis=1)
    return found


def attribute(predictor: Predictor, text: str, goal: int, steps: int) -> Attribution:
    """What the words of ``text`` add to class ``goal``.

    Args:
        predictor: A model of any kind.
        text: One text.
        goal: Id of the class.
        steps: Points of the integral, where there is one.

    Raises:
        ModelError: if captum is needed and missing.
    """
    model, kind = predictor.model, predictor.config.kind
    if kind == "majority":
        return Attribution(note="This model gives every text the same label and reads no word.")
    if kind == "tfidf":
        from valence.models.baselines import TfidfModel

        assert isinstance(model, TfidfModel)
        return of_terms(model, text, goal)
    if kind == "torch":
        from valence.models.classifier import TorchModel

        assert isinstance(model, TorchModel)
        return integrated_gradients(model, text, goal, steps)
    return left_out(model, text, goal)


def left_out(model: TextModel, text: str, goal: int) -> Attribution:
    """What leaving out each word changes, for models that give no gradients.

    Args:
        model: Scores texts.
        text: One text; of its words the first 400 are looked at.
        goal: Id of the class.
    """
    spans = [found.span() for found in re.finditer(r"\S+", text)][:MOST_WORDS]
    versions = [text, *(text[:a] + text[b:] for a, b in spans)]
    values = log_odds(model.score(versions).logits, goal)
    pieces = [(span, float(values[0] - x)) for span, x in zip(spans, values[1:], strict=True)]
    return Attribution(pieces, "each word left out")


def of_terms(model: TfidfModel, text: str, goal: int) -> Attribution:
    """Coefficient × value of every term, shared evenly among the places where it occurs.

    Measured against the mean of the other classes, which is linear: the scores sum up to the
    difference of the decision values, less that of the biases.

    Args:
        model: The regression.
        text: One text.
        goal: Id of the class.
    """
    others = np.delete(np.arange(len(model.classes)), goal)
    weight = model.weight[goal] - model.weight[others].mean(axis=0)
    spans = [found.span() for found in re.finditer(r"\S+", text)]
    scores = np.zeros(len(spans))
    start, total = 0, 0.0
    for vectorizer in model.vectorizers:
        row = vectorizer.transform([text])
        worth = {int(i): float(x * weight[start + i])
                 for i, x in zip(row.indices, row.data, strict=True)}  # fmt: skip
        start += row.shape[1]
        total += sum(worth.values())
        places = _places(vectorizer, text, spans)
        for term, where in places.items():
            share = worth.get(vectorizer.vocabulary_.get(term, -1))
            if share is not None:
                np.add.at(scores, where, share / len(where))
    pieces = [(span, float(score)) for span, score in zip(spans, scores, strict=True)]
    unit = "decision value against the mean of the other labels"
    return Attribution(pieces, "coefficient × value", unit, abs(float(scores.sum()) - total))


def _places(
    vectorizer: object, text: str, spans: Sequence[tuple[int, int]]
) -> dict[str, list[int]]:
    """The numbers of the words (by spaces) in which every term of a text occurs."""
    found: dict[str, list[int]] = {}
    if vectorizer.analyzer == "char_wb":  # type: ignore[attr-defined]
        analyse = vectorizer.build_analyzer()  # type: ignore[attr-defined]
        for number, (a, b) in enumerate(spans):
            for term in analyse(text[a:b]):
                found.setdefault(term, []).append(number)
        return found
    tokenise = vectorizer.build_tokenizer()  # type: ignore[attr-defined]
    words = [(w, n) for n, (a, b) in enumerate(spans) for w in tokenise(text[a:b].lower())]
    for place, (word, number) in enumerate(words):
        found.setdefault(word, []).append(number)
        if place:
            before, earlier = words[place - 1]
            # A pair counts half in each of its words.
            found.setdefault(f"{before} {word}", []).extend([earlier, number])
    return found


def integrated_gradients(model: TorchModel, text: str, goal: int, steps: int) -> Attribution:
    """Integrated gradients over the token embeddings, summed over each word.

    The text they start from has the padding token in place of every token but the special
    ones. The integral is Gauss-Legendre's over ``steps`` points.

    Args:
        model: Any model with an encoder.
        text: One text, cut at the length limit.
        goal: Id of the class.
        steps: Points of the integral.

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

    classifier = model.classifier
    device = next(classifier.parameters()).device
    was_training = classifier.training
    classifier.eval()
    ids = model.tokenizer([text]).input_ids[0]
    spans, special = _spans(model, text, ids)
    given = torch.tensor([ids], device=device)
    without = torch.where(torch.tensor([special], device=device), given, model.tokenizer.pad_id)
    embed = classifier.encoder.model.get_input_embeddings()
    with torch.no_grad():
        start, end = embed(without), embed(given)
    with torch.enable_grad():
        scores, delta = IntegratedGradients(
            lambda states: _odds_of_embeddings(model, states, goal), multiply_by_inputs=True
        ).attribute(
            end, baselines=start, n_steps=steps, return_convergence_delta=True,
            internal_batch_size=max(1, STEP_TOKENS // len(ids)),
        )  # fmt: skip
    classifier.train(was_training)
    by_token = scores[0].sum(1).detach().cpu().numpy().astype(np.float64)
    pieces = _by_word(spans, by_token)
    note = "The end of the text was cut at the length limit." if _is_cut(model, text) else ""
    return Attribution(pieces, "integrated gradients", LOG_ODDS, abs(float(delta[0])), note)


def _odds_of_embeddings(model: TorchModel, states: Tensor, goal: int) -> Tensor:
    """(B,) log-odds of a class of token embeddings (B, T, E) without padding."""
    import torch

    classifier = model.classifier
    mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
    # The encoder's own forward would shut off gradients where it is frozen.
    hidden = classifier.encoder.model(inputs_embeds=states, attention_mask=mask)
    logits = classifier.head(hidden.last_hidden_state, mask).logits
    if model.logit_shift is not None:
        logits = logits + torch.tensor(model.logit_shift, device=logits.device)
    rest = torch.cat([logits[:, :goal], logits[:, goal + 1 :]], dim=1)
    odds: torch.Tensor = logits[:, goal] - rest.logsumexp(1)
    return odds


Span = tuple[int, int, int | None]


def _spans(model: TorchModel, text: str, ids: list[int]) -> tuple[list[Span], list[bool]]:
    """(start, end, word) of every token in the text, and which tokens are special ones."""
    backend = model.tokenizer.backend
    if not backend.is_fast:
        special = [i in backend.all_special_ids for i in ids]
        return _searched(backend.convert_ids_to_tokens(ids), text, special), special
    batch = backend(
        text, truncation=True, max_length=model.tokenizer.max_length, return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )  # fmt: skip
    special = [bool(mark) for mark in batch["special_tokens_mask"]]
    words = batch.word_ids()
    found = [(int(a), int(b), w) for (a, b), w in zip(batch["offset_mapping"], words, strict=True)]
    return found, special


def _searched(tokens: Sequence[str], text: str, special: Sequence[bool]) -> list[Span]:
    """Places of tokens that a tokenizer without offsets gives, found one after the other."""
    found: list[Span] = []
    at = 0
    folded = text.lower() if len(text.lower()) == len(text) else text
    for number, (token, mark) in enumerate(zip(tokens, special, strict=True)):
        bare = token.replace("##", "").replace("▁", "").replace("@@", "")
        start = -1 if mark or not bare else max(text.find(bare, at), folded.find(bare.lower(), at))
        if start < 0:
            found.append((at, at, None))
            continue
        at = start + len(bare)
        found.append((start, at, number))
    return found


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


def _is_cut(model: TorchModel, text: str) -> bool:
    return model.tokenizer([text]).truncated > 0
