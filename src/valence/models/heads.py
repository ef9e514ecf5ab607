"""Heads: from token states to logits and to the features that losses act on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from valence.config.sections import HeadSpec
from valence.errors import UnknownNameError
from valence.losses.base import ModelOutput
from valence.models.head import Head
from valence.models.pooling import POOLINGS, AdaptiveHierarchicalPooling
from valence.models.sentence_folder import SentencePooling, SentenceSpec
from valence.models.sequence import HanHead, LstmHead


class LinearHead(Head):
    """Pooling, dropout and one linear layer."""

    reads = frozenset({"pooling", "dropout", "compat"})

    def __init__(self, spec: HeadSpec, hidden_size: int, class_count: int) -> None:
        super().__init__(hidden_size)
        self.pooling = _pooling(spec, hidden_size)
        self.dropout = nn.Dropout(spec.dropout)
        self.linear = nn.Linear(hidden_size, class_count)

    def forward(self, states: Tensor, mask: Tensor) -> ModelOutput:
        """Logits (B, C) and pooled features (B, H) of token states (B, T, H)."""
        features = self.pooling(states, mask)
        logits = self.linear(self.dropout(features))
        return ModelOutput(logits, features, states, mask, self.linear.weight)


class UnitHead(LinearHead):
    """A linear layer whose logits have length one over the classes (SharpReCL).

    Logits then lie in [−1, 1], so that the class priors added in training weigh more.
    """

    def forward(self, states: Tensor, mask: Tensor) -> ModelOutput:
        """Logits (B, C) of length one and pooled features (B, H) of states (B, T, H)."""
        output = super().forward(states, mask)
        return replace(output, logits=functional.normalize(output.logits, dim=1))


class DenseHead(Head):
    """The usual sequence classification head: a tanh layer between pooling and logits."""

    reads = frozenset({"pooling", "dropout", "compat"})

    def __init__(self, spec: HeadSpec, hidden_size: int, class_count: int) -> None:
        super().__init__(hidden_size)
        self.pooling = _pooling(spec, hidden_size)
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(spec.dropout)
        self.linear = nn.Linear(hidden_size, class_count)

    def forward(self, states: Tensor, mask: Tensor) -> ModelOutput:
        """Logits (B, C) and tanh features (B, H) of token states (B, T, H)."""
        features = torch.tanh(self.dense(self.dropout(self.pooling(states, mask))))
        logits = self.linear(self.dropout(features))
        return ModelOutput(logits, features, states, mask, self.linear.weight)


class GatedHead(Head):
    """Hy-Mora's two paths: base(h_CLS) + sigmoid(g) · extra(pooling(H)).

    ``extra`` starts at zero, so the training starts from the plain classifier; ``gate`` is
    one learned scalar. The features are h_CLS, which the prototype memory acts on.
    """

    reads = frozenset({"pooling", "dropout", "fusion_init", "compat"})
    reads_first_token = True

    def __init__(self, spec: HeadSpec, hidden_size: int, class_count: int) -> None:
        super().__init__(hidden_size)
        self.pooling = _pooling(spec, hidden_size)
        self.dropout = nn.Dropout(spec.dropout)
        self.base = nn.Linear(hidden_size, class_count)
        self.extra = nn.Linear(hidden_size, class_count)
        nn.init.zeros_(self.extra.weight)
        nn.init.zeros_(self.extra.bias)
        self.gate = nn.Parameter(torch.tensor(float(spec.fusion_init)))

    def forward(self, states: Tensor, mask: Tensor) -> ModelOutput:
        """Logits (B, C) and h_CLS (B, H) of token states (B, T, H)."""
        features = states[:, 0]
        pooled = self.pooling(states, mask)
        gate = torch.sigmoid(self.gate)
        logits = self.base(self.dropout(features)) + gate * self.extra(self.dropout(pooled))
        return ModelOutput(logits, features, states, mask, self.base.weight)


HEADS: dict[str, Callable[[HeadSpec, int, int], Head]] = {
    "linear": LinearHead,
    "unit": UnitHead,
    "dense": DenseHead,
    "gated": GatedHead,
    "lstm": LstmHead,
    "han": HanHead,
}


def build_head(
    spec: HeadSpec, hidden_size: int, class_count: int, sentence: SentenceSpec | None = None
) -> Head:
    """The head a spec names.

    Args:
        spec: Head and pooling by name.
        hidden_size: H of the token states.
        class_count: C.
        sentence: What an encoder's folder adds to the pooling.

    Raises:
        UnknownNameError: if ``spec.name`` or ``spec.pooling`` is in no table.
    """
    if spec.name not in HEADS:
        raise UnknownNameError("head", spec.name, HEADS)
    if sentence is None or sentence == SentenceSpec():
        return HEADS[spec.name](spec, hidden_size, class_count)
    head = HEADS[spec.name](spec, sentence.width(hidden_size), class_count)
    head.add_module("pooling", SentencePooling(head.get_submodule("pooling"), sentence))
    return head


def head_reads(name: str) -> frozenset[str]:
    """The fields of ``HeadSpec`` that change the head of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    return _class(name).reads


def follows_reference(spec: HeadSpec) -> bool:
    """Whether the published code computes the head of this spec otherwise than we do.

    Raises:
        UnknownNameError: if there is no such head.
    """
    return spec.pooling == "ahsp" or "pooling" not in head_reads(spec.name)


def reads_first_token(name: str) -> bool:
    """Whether the head of that name reads the first token, whatever the pooling.

    Raises:
        UnknownNameError: if there is none.
    """
    return _class(name).reads_first_token


def _class(name: str) -> type[Head]:
    if name not in HEADS:
        raise UnknownNameError("head", name, HEADS)
    head = HEADS[name]
    assert isinstance(head, type)
    assert issubclass(head, Head)
    return head


def _pooling(spec: HeadSpec, hidden_size: int) -> nn.Module:
    if spec.pooling not in POOLINGS:
        raise UnknownNameError("pooling", spec.pooling, POOLINGS)
    compat = spec.compat
    if POOLINGS[spec.pooling] is AdaptiveHierarchicalPooling:
        return AdaptiveHierarchicalPooling(hidden_size, spec.dropout, compat=compat)
    return POOLINGS[spec.pooling](hidden_size, spec.dropout)
