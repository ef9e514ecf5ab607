"""What every trained model can do, whatever it is made of: :class:`TextModel`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

Progress = Callable[[int, int], None]
"""Called with (done, all) rows."""


@dataclass(frozen=True)
class Scores:
    """What a model says of N texts.

    Attributes:
        logits: (N, C) float32.
        features: (N, H) float32 pooled vectors; (N, 0) where a model has none.
        truncated: How many texts were cut at the length limit.
    """

    logits: np.ndarray
    features: np.ndarray
    truncated: int = 0

    @property
    def probabilities(self) -> np.ndarray:
        """(N, C) softmax of the logits."""
        shifted = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        shares: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
        return shares


class TextModel(Protocol):
    """A trained model: scores texts and can be saved."""

    classes: tuple[str, ...]

    @property
    def trainable_parameters(self) -> int:
        """Numbers that the training set."""
        ...

    def score(self, texts: Sequence[str], progress: Progress | None = None) -> Scores:
        """Scores of ``texts``, in their order."""
        ...

    def save(self, folder: Path) -> None:
        """Write what is needed to load the model again into ``folder``."""
        ...
