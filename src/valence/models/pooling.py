"""Pooling: from the token states of a text to one vector. Padding is never read."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ClsPooling(nn.Module):
    """The state of the first token."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, H) from token states (B, T, H); the mask (B, T) is not needed."""
        return states[:, 0]


class LastPooling(nn.Module):
    """The state of the last real token, whichever side is padded."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, H) from token states (B, T, H) and mask (B, T)."""
        positions = torch.arange(mask.shape[1], device=mask.device)
        last = (positions * (mask > 0)).amax(dim=1)
        index = last[:, None, None].expand(-1, 1, states.shape[2])
        return states.gather(1, index).squeeze(1)


class MeanPooling(nn.Module):
    """The mean over real tokens."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, H) from token states (B, T, H) and mask (B, T)."""
        return masked_mean(states, mask)


class MaxPooling(nn.Module):
    """The maximum over real tokens, per dimension."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, H) from token states (B, T, H) and mask (B, T)."""
        return masked_max(states, mask)


class AdaptiveHierarchicalPooling(nn.Module):
    """AHSP of Hy-Mora: attentive, mean and maximum views of the tokens, fused.

    attentive = Σ_t softmax_t(w₂·tanh(W₁h_t)) h_t over real tokens; the three views,
    concatenated in the order attentive, mean, maximum, pass Linear(3H→2H), LayerNorm, GELU,
    Dropout, Linear(2H→H).

    Args:
        hidden_size: H.
        dropout: Rate between the two layers of the fusion.
        compat: ``"reference"`` reproduces the published code: a softmax over all positions,
            padding included, then a masked softmax over its result, which flattens the
            attention.
    """

    def __init__(self, hidden_size: int, dropout: float, *, compat: str | None = None) -> None:
        super().__init__()
        self.compat = compat
        self.attention = nn.Sequential(
            nn.Linear(hidden_size, hidden_size), nn.Tanh(), nn.Linear(hidden_size, 1)
        )
        self.fusion = nn.Sequential(
            nn.Linear(3 * hidden_size, 2 * hidden_size),
            nn.LayerNorm(2 * hidden_size),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * hidden_size, hidden_size),
        )

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, H) from token states (B, T, H) and mask (B, T)."""
        unpadded = _without_padding(states, mask)
        if self.compat == "reference":
            scores = self.attention(states).squeeze(-1).softmax(dim=1)
        else:
            scores = self.attention(unpadded).squeeze(-1)
        weights = scores.masked_fill(mask == 0, torch.finfo(scores.dtype).min).softmax(dim=1)
        attentive = torch.einsum("bt,bth->bh", weights, unpadded)
        views = (attentive, masked_mean(states, mask), masked_max(states, mask))
        fused: Tensor = self.fusion(torch.cat(views, dim=1))
        return fused


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean (B, H) of the states (B, T, H) where mask (B, T) is 1; zero where it never is."""
    count = mask.sum(1, keepdim=True).clamp(min=1)
    return _without_padding(states, mask).sum(1) / count.to(states.dtype)


def masked_max(states: Tensor, mask: Tensor) -> Tensor:
    """Maximum (B, H) of the states (B, T, H) where mask (B, T) is 1; zero where it never is."""
    highest = states.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).amax(dim=1)
    return highest.masked_fill((mask == 0).all(1, keepdim=True), 0.0)


def _without_padding(states: Tensor, mask: Tensor) -> Tensor:
    """The states with zeros at padding; a product would keep NaN there."""
    return states.masked_fill(mask.unsqueeze(-1) == 0, 0.0)


POOLINGS: dict[str, type[nn.Module]] = {
    "cls": ClsPooling,
    "last": LastPooling,
    "mean": MeanPooling,
    "max": MaxPooling,
    "ahsp": AdaptiveHierarchicalPooling,
}
