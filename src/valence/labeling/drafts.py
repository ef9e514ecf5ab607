"""Drafts of a language model: what it would label, before there are labels to learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from valence.config.llm import LlmSpec

MOST_DRAFTS = 1000
"""Texts that are prompted; of a larger pool, evenly spread ones."""
ONE_HOT_TRUST = 0.8
"""Probability of the label of a draft that has no probabilities of its own."""


def draft_probs(
    texts: Sequence[str], meanings: Sequence[str], llm: LlmSpec,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:  # fmt: skip
    """(N, C) probabilities by a language model that has seen no labeled text.

    Rows that are not prompted, and those whose answer is no label, have equal ones.

    Args:
        texts: The pool.
        meanings: Every label with what it means, C of them.
        llm: Model and server; it is prompted without demonstrations.
        progress: Called with (done, total) answers.

    Raises:
        SpecError, ModelError, RunError: if model or server cannot be used.
    """
    from valence.data.dataset import Split, TrainingData
    from valence.data.examples import Examples
    from valence.evaluation.task import softmax
    from valence.llm.backends import PromptSettings
    from valence.llm.classify import prompted_model

    no_rows = Split([], np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    data = TrainingData(tuple(meanings), (), no_rows, no_rows)
    rows = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), MOST_DRAFTS)).astype(int))
    model = prompted_model(PromptSettings(llm.model_copy(update={"shots": "zero"})), data, {})
    try:
        logits = model.predict(Examples([texts[row] for row in rows]), progress).logits
    finally:
        model.close()
    size = len(meanings)
    own = softmax(np.nan_to_num(logits.astype(np.float64), nan=0.0))
    own = np.minimum(own, ONE_HOT_TRUST)
    probs = np.full((len(texts), size), 1 / size)
    probs[rows] = own / own.sum(axis=1, keepdims=True)
    return probs
