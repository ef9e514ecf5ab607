"""Supervised losses of long-tailed classification, and the class weights they use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from valence.config.ranges import Range
from valence.config.sections import LossSpec
from valence.losses.base import ClassInfo, Loss, ModelOutput

_WEIGHTS = frozenset({"class_weights"})


def class_weights(counts: Sequence[int], clamp: float | None = None) -> Tensor:
    """(C,) balanced weights N / (C · n_c), at most ``clamp``; 0 for a class without rows.

    Args:
        counts: (C,) training rows per class.
        clamp: Upper limit, or None for none.
    """
    sizes = torch.tensor(counts, dtype=torch.float32)
    weights = torch.where(sizes > 0, sizes.sum() / (len(sizes) * sizes.clamp(min=1)), 0.0)
    return weights if clamp is None else weights.clamp(max=clamp)


def effective_weights(counts: Sequence[int], beta: float, clamp: float | None = None) -> Tensor:
    """(C,) weights by the effective number of rows, at most ``clamp`` (Cui et al. 2019, eq. 2).

    1 / E_c with E_c = (1 − β^n_c) / (1 − β), scaled to sum to C; 0 for a class without rows.

    Args:
        counts: (C,) training rows per class.
        beta: β in [0, 1): 0 weighs all classes alike, near 1 by the inverse of their size.
        clamp: Upper limit, or None for none.
    """
    sizes = torch.tensor(counts, dtype=torch.float64)
    inverse = torch.where(sizes > 0, (1 - beta) / (1 - beta ** sizes.clamp(min=1)), 0.0)
    weights = (inverse * len(sizes) / inverse.sum().clamp(min=1e-12)).float()
    return weights if clamp is None else weights.clamp(max=clamp)


def log_prior(counts: Sequence[int]) -> Tensor:
    """(C,) log π_c; a class without rows counts as having one, which keeps it finite.

    Args:
        counts: (C,) training rows per class.
    """
    sizes = torch.tensor(counts, dtype=torch.float32).clamp(min=1)
    return torch.log(sizes / sizes.sum())


WEIGHT_FIELDS: dict[str, frozenset[str]] = {
    "none": frozenset(),
    "balanced": frozenset({"weight_clamp"}),
    "effective": frozenset({"weight_clamp", "beta"}),
}
"""The fields each kind of class weights reads."""


def _weights(spec: LossSpec, info: ClassInfo) -> Tensor:
    if spec.class_weights == "balanced":
        return class_weights(info.counts, spec.weight_clamp)
    if spec.class_weights == "effective":
        return effective_weights(info.counts, spec.beta, spec.weight_clamp)
    return torch.ones(len(info.counts))


def _weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Mean of (B,) losses weighted by (B,) weights; zero where all weights are zero."""
    return (losses * weights).sum() / weights.sum().clamp(min=1e-12)


class CrossEntropy(Loss):
    """Cross-entropy with class weights and label smoothing: Σ w_y · (−log p_y) / Σ w_y.

    The weighted mean of PyTorch: the smoothing term of every class is weighted too. Rows
    of a class without training rows weigh nothing under balanced weights.
    """

    reads = _WEIGHTS | {"smoothing"}
    search_space = MappingProxyType({"smoothing": Range(0.0, 0.2)})
    weight: Tensor

    def __init__(self, spec: LossSpec, info: ClassInfo) -> None:
        super().__init__()
        self.smoothing = spec.smoothing
        self.register_buffer("weight", _weights(spec, info), persistent=False)

    def forward(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """The weighted mean over (B, C) logits, a scalar."""
        losses = functional.cross_entropy(
            output.logits.float(), labels, self.weight, reduction="none",
            label_smoothing=self.smoothing,
        )  # fmt: skip
        weight = self.weight[labels]
        # A row of weight 0 would still carry the smoothing term, over a sum that may be 0.
        return (losses * (weight > 0)).sum() / weight.sum().clamp(min=1e-12)


class Focal(Loss):
    """Focal loss: mean of α_y · (1 − p_y)^γ · (−log p_y) (Lin et al. 2017, eq. 5).

    Args:
        spec: ``gamma`` and the class weights α. With ``compat="reference"``, p_y is taken from
            the weighted cross-entropy, as in Hy-Mora's published code; a class weight then
            changes how hard a row appears.
        info: Class sizes.
    """

    reads = _WEIGHTS | {"gamma", "compat"}
    search_space = MappingProxyType({"gamma": Range(0.5, 5.0)})
    weight: Tensor

    def __init__(self, spec: LossSpec, info: ClassInfo) -> None:
        super().__init__()
        self.gamma = spec.gamma
        self.compat = spec.compat
        self.register_buffer("weight", _weights(spec, info), persistent=False)

    def forward(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """The mean over the batch, a scalar."""
        plain = functional.cross_entropy(output.logits.float(), labels, reduction="none")
        weighted = self.weight[labels] * plain
        # 1 − p; away from 0, where the gradient of a power below 1 has no value.
        missing = -torch.expm1(-(weighted if self.compat == "reference" else plain))
        missing = missing.clamp(min=torch.finfo(missing.dtype).eps)
        return (missing**self.gamma * weighted).mean()


class LDAM(Loss):
    """Label-distribution-aware margins with deferred re-weighting (Cao et al. 2019).

    −log softmax_y(s · (z − m_y · 1_y)) of logits z, whose true class is y. The margins are
    m_c = m · n_c^(−1/4) / max_j n_j^(−1/4); a class without rows has the margin of the smallest
    one that has some. After ``deferred_share`` of the training the loss gives way to
    class-weighted cross-entropy; in the published code of Hy-Mora that switch never fires, and
    neither does it with ``compat="reference"``.
    """

    reads = frozenset({"margin", "scale", "deferred_share", "weight_clamp", "compat"})
    search_space = MappingProxyType({"margin": Range(0.1, 1.0), "deferred_share": Range(0.3, 0.9)})
    weight: Tensor
    margins: Tensor

    def __init__(self, spec: LossSpec, info: ClassInfo) -> None:
        super().__init__()
        self.scale = spec.scale
        self.deferred_share = math.inf if spec.compat == "reference" else spec.deferred_share
        sizes = torch.tensor(info.counts, dtype=torch.float32)
        smallest = min((n for n in info.counts if n > 0), default=1)
        margins = sizes.clamp(min=smallest) ** -0.25
        self.register_buffer("margins", spec.margin * margins / margins.max(), persistent=False)
        weight = class_weights(info.counts, spec.weight_clamp)
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """The mean over the batch, a scalar."""
        logits = output.logits.float()
        true = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
        margined = self.scale * (logits - true * self.margins)
        early = functional.cross_entropy(margined, labels)
        late = _weighted_mean(
            functional.cross_entropy(logits, labels, reduction="none"), self.weight[labels]
        )
        return torch.where(self.progress < self.deferred_share, early, late)


class LogitAdjustment(Loss):
    """Cross-entropy of logits + τ·log π in training (Menon et al. 2021, eq. 10).

    π_c = n_c / N are the class priors of the training rows; a class without rows counts as one.
    """

    reads = _WEIGHTS | {"tau"}
    search_space = MappingProxyType({"tau": Range(0.25, 2.0)})
    weight: Tensor
    shift: Tensor

    def __init__(self, spec: LossSpec, info: ClassInfo) -> None:
        super().__init__()
        self.register_buffer("shift", spec.tau * log_prior(info.counts), persistent=False)
        self.register_buffer("weight", _weights(spec, info), persistent=False)

    def forward(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """The weighted mean over the batch, a scalar."""
        logits = output.logits.float() + self.shift
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return _weighted_mean(losses, self.weight[labels])


class SquaredError(Loss):
    """Mean squared error of the one output against an intensity (the loss of ALMT)."""

    def __init__(self, spec: LossSpec, info: ClassInfo) -> None:
        super().__init__()

    def forward(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """The mean over (B, 1) outputs and (B,) float intensities, a scalar."""
        return functional.mse_loss(output.logits[:, 0].float(), labels.float())


class AbsoluteError(Loss):
    """Mean absolute error of the one output against an intensity."""

    def __init__(self, spec: LossSpec, info: ClassInfo) -> None:
        super().__init__()

    def forward(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """The mean over (B, 1) outputs and (B,) float intensities, a scalar."""
        return functional.l1_loss(output.logits[:, 0].float(), labels.float())
