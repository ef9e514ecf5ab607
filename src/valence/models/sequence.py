"""Recurrent heads on token states: LSTM with self-attention, and GRU or LSTM with attention.

Padding is not read: a text's result does not depend on the batch it is in. In the published
code the recurrent layers run over it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from valence.config.sections import HeadSpec
from valence.errors import ModelError, SpecError
from valence.losses.base import ModelOutput
from valence.models.head import Head
from valence.models.pooling import masked_max

CELLS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class Recurrence(nn.Module):
    """A bidirectional LSTM or GRU over the real tokens of every text.

    The backward direction reverses each text within its own length, so padding stays at the end;
    with texts of similar length in a batch this is faster than packing them.

    Args:
        size: Size of the token states.
        spec: Cell, hidden size per direction, layers, dropout between layers. With
            ``compat="reference"`` it runs over the padding, as the published code does.
    """

    def __init__(self, size: int, spec: HeadSpec) -> None:
        super().__init__()
        self.compat = spec.compat
        sizes = [size] + [2 * spec.hidden_size] * (spec.layers - 1)
        cell = CELLS[spec.cell]
        self.ahead = nn.ModuleList(cell(n, spec.hidden_size, batch_first=True) for n in sizes)
        self.back = nn.ModuleList(cell(n, spec.hidden_size, batch_first=True) for n in sizes)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, T, 2 · hidden) of states (B, T, H) and mask (B, T), padded on the right.

        Zero at padding, except with ``compat="reference"``.
        """
        positions = torch.arange(mask.shape[1], device=mask.device)
        lengths = torch.full_like(mask[:, :1], mask.shape[1])
        if self.compat != "reference":
            lengths = mask.sum(1, keepdim=True)
        reversed_ = torch.where(positions < lengths, lengths - 1 - positions, positions)
        for number, (ahead, back) in enumerate(zip(self.ahead, self.back, strict=True)):
            states = self.dropout(states) if number else states
            backward = _reorder(back(_reorder(states, reversed_))[0], reversed_)
            states = torch.cat([ahead(states)[0], backward], dim=2)
        return states.masked_fill((positions >= lengths).unsqueeze(2), 0.0)


def _reorder(states: Tensor, positions: Tensor) -> Tensor:
    """States (B, T, H) in the order of positions (B, T)."""
    return states.gather(1, positions.unsqueeze(2).expand(-1, -1, states.shape[2]))


class SelfAttention(nn.Module):
    """Multi-head self-attention over the real tokens (Vaswani et al. 2017).

    Args:
        size: D of the states.
        heads: Number of heads, which must divide D.
        dropout: On the attention weights.
    """

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        if size % heads:
            raise SpecError(
                f"head.attention_heads = {heads} does not divide the {size} features of the "
                "recurrent layer (twice head.hidden_size)"
            )
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.output = (nn.Linear(size, size) for _ in range(4))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) of states (B, T, D) and mask (B, T)."""
        q, k, v = (
            layer(states).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        # A text of no token attends to all positions, which keeps the softmax finite.
        visible = (mask > 0) | (mask == 0).all(1, keepdim=True)
        mixed = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=visible[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )  # fmt: skip
        joined: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return joined


class LstmHead(Head):
    """LSTM-RoBERTa's head: recurrence, self-attention with residual, masked maximum, layers.

    LayerNorm → recurrence → self-attention (+ its input) → LayerNorm → maximum over real
    tokens, with the encoder's pooler output beside it if ``spec.pooler`` → Linear(D→D/2),
    LayerNorm, ReLU, Dropout, Linear(D/2→D/4), LayerNorm, ReLU, Dropout, Linear(D/4→C). The
    features are the D/4 before the last layer.

    Args:
        spec: Sizes and options.
        hidden_size: H of the token states.
        class_count: C.
    """

    reads = frozenset(
        {
            "dropout",
            "cell",
            "hidden_size",
            "layers",
            "attention_heads",
            "norm",
            "residual",
            "pooler",
            "compat",
        }
    )

    def __init__(self, spec: HeadSpec, hidden_size: int, class_count: int) -> None:
        size = 2 * spec.hidden_size
        pooled = size + (hidden_size if spec.pooler else 0)
        super().__init__(pooled // 4)
        self.spec = spec
        self.first_norm = nn.LayerNorm(hidden_size) if spec.norm else nn.Identity()
        self.recurrence = Recurrence(hidden_size, spec)
        self.attention = SelfAttention(size, spec.attention_heads, spec.dropout)
        self.second_norm = nn.LayerNorm(size) if spec.norm else nn.Identity()
        self.pooler = nn.Linear(hidden_size, hidden_size) if spec.pooler else None
        self.layers = nn.Sequential(
            *_layer(pooled, pooled // 2, spec), *_layer(pooled // 2, pooled // 4, spec)
        )
        self.linear = nn.Linear(pooled // 4, class_count)

    def forward(self, states: Tensor, mask: Tensor) -> ModelOutput:
        """Logits (B, C) and features (B, D/4) of token states (B, T, H)."""
        recurrent = self.recurrence(self.first_norm(states), mask)
        mixed = self.attention(recurrent, mask)
        if self.spec.residual:
            mixed = mixed + recurrent
        pooled = masked_max(self.second_norm(mixed), mask)
        if self.pooler is not None:
            pooled = torch.cat([pooled, torch.tanh(self.pooler(states[:, 0]))], dim=1)
        features = self.layers(pooled)
        return ModelOutput(self.linear(features), features, states, mask, self.linear.weight)

    def init_pooler(self, weights: tuple[Tensor, Tensor] | None, *, trained: bool) -> None:
        """Initialize from the encoder's pretrained pooler; train it if the encoder is trained."""
        if self.pooler is None:
            return
        if weights is None:
            raise ModelError("The encoder has no pretrained pooler; set head.pooler=false")
        with torch.no_grad():
            self.pooler.weight.copy_(weights[0])
            self.pooler.bias.copy_(weights[1])
        self.pooler.requires_grad_(trained)


class HanHead(Head):
    """HAN-RoBERTa's head: recurrence and attention with a learned context vector.

    LayerNorm → recurrence → LayerNorm → Σ_t softmax_t(tanh(W h_t)·u) h_t over real tokens
    (Yang et al. 2016, eq. 5–7) → Linear(D→D/2), LayerNorm, ReLU, Dropout, Linear(D/2→C). The
    features are the D/2 before the last layer.

    Args:
        spec: Sizes and options.
        hidden_size: H of the token states.
        class_count: C.
    """

    reads = frozenset({"dropout", "cell", "hidden_size", "layers", "norm", "compat"})

    def __init__(self, spec: HeadSpec, hidden_size: int, class_count: int) -> None:
        size = 2 * spec.hidden_size
        super().__init__(size // 2)
        self.first_norm = nn.LayerNorm(hidden_size) if spec.norm else nn.Identity()
        self.recurrence = Recurrence(hidden_size, spec)
        self.second_norm = nn.LayerNorm(size) if spec.norm else nn.Identity()
        self.attention = nn.Linear(size, size)
        self.context = nn.Parameter(torch.randn(size) / size**0.5)
        self.layers = nn.Sequential(*_layer(size, size // 2, spec))
        self.linear = nn.Linear(size // 2, class_count)

    def forward(self, states: Tensor, mask: Tensor) -> ModelOutput:
        """Logits (B, C) and features (B, D/2) of token states (B, T, H)."""
        recurrent = self.second_norm(self.recurrence(self.first_norm(states), mask))
        scores = torch.tanh(self.attention(recurrent)) @ self.context
        # Finite, so that a text of no token has weights and not a division by zero.
        weights = scores.masked_fill(mask == 0, torch.finfo(scores.dtype).min).softmax(dim=1)
        features = self.layers(torch.einsum("bt,bth->bh", weights, recurrent))
        return ModelOutput(self.linear(features), features, states, mask, self.linear.weight)


def _layer(size: int, smaller: int, spec: HeadSpec) -> list[nn.Module]:
    norm = nn.LayerNorm(smaller) if spec.norm else nn.Identity()
    return [nn.Linear(size, smaller), norm, nn.ReLU(), nn.Dropout(spec.dropout)]
