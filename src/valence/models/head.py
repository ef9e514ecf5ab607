"""The base class of heads: :class:`Head`."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from valence.losses.base import ModelOutput


class Head(nn.Module):
    """From token states to logits; ``feature_size`` is H of the features it gives losses."""

    reads: ClassVar[frozenset[str]] = frozenset()
    """The fields of ``HeadSpec`` that it uses; a sweep over others would repeat itself."""
    reads_first_token: ClassVar[bool] = False
    """Whether it reads the state of the first token beside the pooling."""

    def __init__(self, feature_size: int) -> None:
        super().__init__()
        self.feature_size = feature_size

    def forward(self, states: Tensor, mask: Tensor) -> ModelOutput:
        """Logits and features of token states (B, T, H) and mask (B, T)."""
        raise NotImplementedError

    def init_pooler(self, weights: tuple[Tensor, Tensor] | None, *, trained: bool) -> None:
        """Initialize the pooler from the encoder's pretrained one, where a head has one.

        Args:
            weights: Weight (H, H) and bias (H,), or None where the encoder has no pooler.
            trained: Whether the encoder is trained.

        Raises:
            ModelError: if the head needs a pooler and the encoder has none.
        """
