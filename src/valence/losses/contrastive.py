"""Contrastive losses beside the supervised one: prototype memory and supervised contrast."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from valence.config.ranges import Range
from valence.config.sections import LossSpec
from valence.losses.base import ClassInfo, Loss, ModelOutput

CONTRAST_SPACE = MappingProxyType(
    {"weight": Range(0.01, 1.0, log=True), "temperature": Range(0.05, 1.0, log=True)}
)


def supcon_losses(scaled: Tensor, positive: Tensor) -> Tensor:
    """Mean over an anchor's positives of −log softmax (Khosla et al. 2020, eq. 2).

    Args:
        scaled: (A, K) similarities of A anchors to K others, over the temperature; −inf
            where the other does not take part (the anchor itself).
        positive: (A, K) True where the other is of the anchor's class and takes part.

    Returns:
        (A,) losses; zero for an anchor without positives.
    """
    count = positive.sum(1)
    # For a row without any other, the gradient of the logarithm would be NaN.
    alone = scaled.isneginf().all(1, keepdim=True)
    total = scaled.masked_fill(alone, 0.0).logsumexp(1)
    own = scaled.masked_fill(~positive, 0.0).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, total - own, 0.0)


class SupervisedContrast(Loss):
    """Supervised contrastive loss over a batch (SupCon, Khosla et al. 2020).

    Features pass Linear(H→H), ReLU, Linear(H→``projection_dim``) and are normalized to z; the
    positives of row i are all other rows p of its class, including its second view. Its
    loss is the mean over p of −log(exp(z_i·z_p/τ) / Σ_{a ≠ i} exp(z_i·z_a/τ)). A row without
    positives contributes nothing; the mean is over the rows that have some.
    """

    reads = frozenset({"temperature", "projection_dim"})
    search_space = CONTRAST_SPACE

    def __init__(self, spec: LossSpec, info: ClassInfo) -> None:
        super().__init__()
        self.temperature = spec.temperature
        self.projector = nn.Sequential(
            nn.Linear(info.feature_size, info.feature_size),
            nn.ReLU(),
            nn.Linear(info.feature_size, spec.projection_dim),
        )

    def forward(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """The mean over the rows of a batch that have positives, a scalar."""
        with torch.autocast(output.features.device.type, enabled=False):
            projected = functional.normalize(self.projector(output.features.float()), dim=1)
            itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
            scaled = (projected @ projected.T / self.temperature).masked_fill(itself, -torch.inf)
            positive = (labels[:, None] == labels) & ~itself
            active = positive.any(1).sum().clamp(min=1)
            return supcon_losses(scaled, positive).sum() / active


class PrototypeMemory(Loss):
    """Tail-aware prototype memory of Hy-Mora (TPMB).

    One ring of ⌊memory_size / C⌋ vectors per class keeps the latest projected features. A
    row of class y whose ring holds ``min_samples`` vectors, while another class's does too,
    is contrasted with all vectors of such classes: the mean over its own class's vectors of
    −log softmax at ``temperature`` (supervised contrast, Khosla et al. 2020, eq. 2), times
    ``tail_weight`` if y is a tail class; the mean over the rows that have a loss. The
    batch enters the rings afterwards. Steps count from 1: storing begins with step
    ``memory_warmup_steps``, the loss with the step after it.

    Everything is a fixed number of tensor operations, whatever the batch size and C.

    Args:
        spec: Sizes, temperature and weights. ``compat="reference"`` reproduces the published
            code: of a row's own class only the vector in slot 0 counts as positive, all others
            as negatives.
        info: Class sizes, tail classes, and the feature size H.
    """

    reads = frozenset(
        {
            "temperature", "memory_size", "memory_warmup_steps", "projection_dim", "tail_weight",
            "min_samples", "compat",
        }
    )  # fmt: skip
    search_space = CONTRAST_SPACE
    bank: Tensor
    sizes: Tensor
    pointers: Tensor
    step: Tensor
    row_weight: Tensor

    def __init__(self, spec: LossSpec, info: ClassInfo) -> None:
        super().__init__()
        classes = len(info.counts)
        self.capacity = max(1, spec.memory_size // classes)
        self.temperature = spec.temperature
        self.min_samples = min(spec.min_samples, self.capacity)
        self.warmup_steps = spec.memory_warmup_steps
        self.compat = spec.compat
        self.projector = nn.Sequential(
            nn.Linear(info.feature_size, info.feature_size),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(info.feature_size, spec.projection_dim),
        )
        # One slot more than the capacity: rows that are not stored are written there.
        self.register_buffer("bank", torch.zeros(classes, self.capacity + 1, spec.projection_dim))
        self.register_buffer("sizes", torch.zeros(classes, dtype=torch.long))
        self.register_buffer("pointers", torch.zeros(classes, dtype=torch.long))
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        weight = torch.ones(classes)
        weight[list(info.tail)] = spec.tail_weight
        self.register_buffer("row_weight", weight, persistent=False)

    def forward(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """The loss of a batch, a scalar; zero in evaluation mode, which stores nothing."""
        if not self.training:
            return output.features.float().sum() * 0.0
        with torch.autocast(output.features.device.type, enabled=False):
            projected = functional.normalize(self.projector(output.features.float()), dim=1)
            return self.contrast_and_store(projected, labels)

    def contrast_and_store(self, features: Tensor, labels: Tensor) -> Tensor:
        """One step on unit vectors (B, D): compute their loss, then store them in the rings."""
        self.step += 1
        loss = self.contrast(features, labels) * (self.step > self.warmup_steps)
        self.store(features.detach(), labels)
        return loss

    def contrast(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss of unit vectors (B, D) against the rings as they are, a scalar."""
        ready = self.sizes >= self.min_samples
        active = ready[labels] & (ready.sum() > 1)
        # A copy: the backward pass needs the rings as they were before the update.
        rings = self.bank[:, : self.capacity].clone()
        scaled = features / self.temperature
        # Finite, so that the gradient of a row without any vector is not NaN.
        absent = torch.finfo(scaled.dtype).min / 2
        bias = torch.where(self._stored() & ready[:, None], 0.0, absent).flatten()
        total = torch.addmm(bias, scaled, rings.flatten(0, 1).T).logsumexp(1)
        own = (scaled * self._positives(rings)[labels]).sum(1)
        losses = torch.where(active, total - own, 0.0) * self.row_weight[labels]
        return losses.sum() / active.sum().clamp(min=1)

    def _stored(self) -> Tensor:
        """(C, capacity) where a vector is stored; a ring fills from slot 0."""
        return torch.arange(self.capacity, device=self.sizes.device) < self.sizes[:, None]

    def _positives(self, rings: Tensor) -> Tensor:
        """(C, D) vectors whose product with a row is its mean similarity to its own class."""
        if self.compat == "reference":
            return rings[:, 0]
        # Slots that hold nothing are zero and add nothing.
        return rings.sum(1) / self.sizes.clamp(min=1)[:, None]

    @torch.no_grad()
    def store(self, features: Tensor, labels: Tensor) -> None:
        """Write unit vectors (B, D) into the rings of their classes, the oldest going first."""
        classes = self.bank.shape[0]
        # functional.one_hot would synchronize to check the labels.
        member = (labels[:, None] == torch.arange(classes, device=labels.device)).long()
        rank = (member.cumsum(0) - 1).gather(1, labels[:, None]).squeeze(1)
        added = member.sum(0) * (self.step >= self.warmup_steps)
        # Of more rows than a ring holds, only the last ones remain; the rest go to the spare slot.
        stored = (rank >= added[labels] - self.capacity) & (self.step >= self.warmup_steps)
        slot = torch.where(stored, (self.pointers[labels] + rank) % self.capacity, self.capacity)
        self.bank[labels, slot] = features.to(self.bank.dtype)
        self.pointers.copy_((self.pointers + added) % self.capacity)
        self.sizes.copy_((self.sizes + added).clamp(max=self.capacity))
