"""Explanations as one page: no network, light and dark, readable without color."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from valence.inference.explain.explain import Explanation
from valence.pages.page import render_page
from valence.storage import atomic


def write_page(explanations: Sequence[Explanation], path: Path, *, title: str) -> Path:
    """Write a page of explanations.

    Args:
        explanations: What to show.
        path: The file; its folder is made.
        title: Heading.

    Raises:
        RunError: if the file cannot be written.
    """
    items = [
        (item, _runs(item), [(f"{n.similarity:.3f}", n.label, n.text) for n in item.neighbors])
        for item in explanations
    ]
    values = {"title": title, "items": items}
    page = render_page("valence.inference.explain", "explain.html.j2", values)
    atomic.write_text(path, page)
    return path


def _runs(explanation: Explanation) -> list[dict[str, Any]]:
    """The text in runs: what is between tokens, and tokens with the strength of their color."""
    most = max((abs(token.score) for token in explanation.tokens), default=0.0) or 1.0
    runs: list[dict[str, Any]] = []
    at = 0
    for token in explanation.tokens:
        if token.start > at:
            runs.append({"text": explanation.text[at : token.start], "part": None})
        start = max(at, token.start)
        if token.end > start:
            runs.append({"text": explanation.text[start : token.end], "part": token.score / most,
                         "score": token.score})  # fmt: skip
        at = max(at, token.end)
    if at < len(explanation.text):
        runs.append({"text": explanation.text[at:], "part": None})
    return runs
