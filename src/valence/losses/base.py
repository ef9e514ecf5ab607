"""Inputs and base class of all losses: :class:`ModelOutput`, :class:`Loss`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from valence.config.ranges import Range


@dataclass
class ModelOutput:
    """What a classifier computed for a batch of B texts.

    Attributes:
        logits: (B, C).
        features: (B, H) the pooled vector that contrastive losses act on.
        token_states: (B, T, H) the encoder's last layer, or None where it was not returned.
        attention_mask: (B, T) 1 on real tokens, or None.
        class_rows: (C, H) the weight rows of the last linear layer, or None.
    """

    logits: Tensor
    features: Tensor
    token_states: Tensor | None = None
    attention_mask: Tensor | None = None
    class_rows: Tensor | None = None


@dataclass(frozen=True)
class ClassInfo:
    """What a loss may know of the training rows.

    Attributes:
        counts: (C,) training rows per class; a class may have none.
        tail: Ids of the tail classes.
        feature_size: H of :attr:`ModelOutput.features`.
    """

    counts: tuple[int, ...]
    tail: tuple[int, ...]
    feature_size: int


class Loss(nn.Module):
    """Base of all losses; a sub-module of the classifier, which moves and saves it.

    A loss is made from ``(LossSpec, ClassInfo)``; it registers what it learns or stores as
    parameters and buffers. :attr:`reads` names the ``LossSpec`` fields that change it,
    so that a sweep over a field without effect is refused; :attr:`search_space` is where a
    tuner searches some of them.
    """

    reads: frozenset[str] = frozenset()
    search_space: ClassVar[Mapping[str, Range]] = {}
    progress: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("progress", torch.zeros(()))

    def set_progress(self, progress: float) -> None:
        """Set the fraction of the training that is done, in [0, 1]."""
        self.progress.fill_(progress)

    def diagnostics(self) -> dict[str, list[float]]:
        """Statistics of the loss since the last call, by name; empty for most losses."""
        return {}

    def forward(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """The mean loss of a batch, a scalar.

        Args:
            output: What the classifier computed for B texts.
            labels: (B,) int64 class ids.
        """
        raise NotImplementedError
