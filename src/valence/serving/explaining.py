"""Explanations for the server, as plain documents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from valence.errors import ValenceError
from valence.serving.refusals import Refusal

Explainer = Callable[..., Sequence[Any]]
"""``explain(predictor, texts, target=None) -> list[Explanation]``."""


def explain_texts(predictor: Any, texts: list[str], target: str | None) -> list[dict[str, Any]]:
    """Explanations of ``texts`` as documents.

    Raises:
        Refusal: 422 for a target that is no label, 501 where this model or this installation
            cannot explain.
    """
    if not predictor.classes:
        raise Refusal(
            501, "not_supported", "This model predicts a number; only labels can be explained"
        )
    if target is not None and target not in predictor.classes:
        known = ", ".join(predictor.classes[:20])
        raise Refusal(422, "validation", f"Unknown label {target!r}; known: {known}")
    explain = find_explainer()
    try:
        explanations = explain(predictor, texts, target=target)
    except (ValenceError, ImportError) as error:
        raise Refusal(501, "not_supported", str(error)) from None
    return [_document(item) for item in explanations]


def find_explainer() -> Explainer:
    """``valence.inference.explain.explain.explain``, whose libraries are optional.

    Raises:
        Refusal: 501 where it cannot be imported.
    """
    try:
        from valence.inference.explain.explain import explain
    except ImportError as error:
        raise Refusal(501, "not_supported", f"Explanations are not available: {error}") from None
    return explain


def _document(item: Any) -> dict[str, Any]:
    return {
        "text": item.text,
        "label": item.label,
        "probabilities": {name: _number(prob) for name, prob in item.probabilities.items()},
        "tokens": [
            {"text": t.text, "start": int(t.start), "end": int(t.end), "score": _number(t.score)}
            for t in item.tokens
        ],
        "neighbours": [
            {"text": n.text, "label": n.label, "similarity": _number(n.similarity)}
            for n in item.neighbors
        ],
    }


def _number(value: Any) -> float:
    """JSON knows no NaN and no infinity."""
    number = float(value)
    return round(number, 7) if math.isfinite(number) else 0.0
