"""SharpReCL's contrast: hard mixup and simple sampling around class prototypes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from valence.config.sections import LossSpec
from valence.losses.base import ClassInfo, Loss, ModelOutput
from valence.losses.contrastive import CONTRAST_SPACE, supcon_losses
from valence.losses.supervised import effective_weights


class ProjectionHead(nn.Module):
    """Linear(H→H), BatchNorm, ReLU, Linear(H→D), then normalization to unit length."""

    def __init__(self, size: int, projected: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(size, size)
        self.norm = nn.BatchNorm1d(size)
        self.out = nn.Linear(size, projected)

    def forward(self, rows: Tensor) -> Tensor:
        """Unit vectors (N, D) of rows (N, H)."""
        hidden = self.hidden(rows)
        if len(rows) > 1 or not self.training:
            hidden = self.norm(hidden)
        else:  # a single row has no variance; use the running statistics
            norm = self.norm
            hidden = functional.batch_norm(
                hidden, norm.running_mean, norm.running_var, norm.weight, norm.bias
            )
        return functional.normalize(self.out(torch.relu(hidden)), dim=1)


class SharpContrast(Loss):
    """Rebalanced contrast of SharpReCL (arXiv 2405.11524).

    The rows of the classifier's last layer, projected, are the classes' prototypes; they
    join the batch, so that no class is absent from it. Of every class, the ``hard_count``
    own candidates least similar to its prototype and the ``hard_count`` others most similar
    to it are hard. Synthetic samples are normalized mixtures of two hard ones with a ratio
    drawn from Beta(½, ½); the rest is drawn uniformly, with replacement, from all candidates
    of that side. Every anchor is contrasted with all other candidates and with its own
    class's synthetic samples (supervised contrast); the mean over anchors is weighted by
    the effective number of rows of their class.

    Second views are further rows of the batch. Everything is a fixed number of tensor
    operations for any C; randomness comes from torch's generator of the CPU or device.
    """

    reads = frozenset(
        {
            "temperature", "projection_dim", "positives", "negatives", "hard_count", "mixing",
            "prototypes", "anchor_weights", "beta", "weight_clamp", "compat",
        }
    )  # fmt: skip
    search_space = CONTRAST_SPACE
    row_weight: Tensor
    seen_sum: Tensor
    seen: Tensor
    guides: Tensor
    observed: Tensor

    def __init__(self, spec: LossSpec, info: ClassInfo) -> None:
        super().__init__()
        classes = len(info.counts)
        self.spec = spec
        self.features = ProjectionHead(info.feature_size, spec.projection_dim)
        self.prototypes = ProjectionHead(info.feature_size, spec.projection_dim)
        self.register_buffer("row_weight", _anchor_weights(spec, info), persistent=False)
        # For diagnostics: statistics since the last call.
        for name, shape in (
            ("seen_sum", (classes, spec.projection_dim)), ("seen", (classes,)),
            ("guides", (classes, spec.projection_dim)), ("observed", (4,)),
        ):  # fmt: skip
            self.register_buffer(name, torch.zeros(shape), persistent=False)

    def forward(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            output: Features (B, H), and class rows (C, H) unless ``prototypes`` is "none".
            labels: (B,) class ids.
        """
        with torch.autocast(output.features.device.type, enabled=False):
            features = self.features(output.features.float())
            if self.spec.prototypes == "none" or output.class_rows is None:
                guides = self._class_means(features, labels)
                candidates, owners = features, labels
            else:
                guides = self.prototypes(output.class_rows.float())
                candidates = torch.cat([features, guides])
                classes = torch.arange(len(guides), device=labels.device)
                owners = torch.cat([labels, classes])
            synthetic, valid = self.synthesize(guides, candidates, owners)
            self._observe(features.detach(), labels, guides.detach(), synthetic.detach())
            return self.contrast(candidates, owners, synthetic, valid)

    def synthesize(
        self, guides: Tensor, candidates: Tensor, owners: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Synthetic samples of every class, positives first.

        Args:
            guides: (C, D) prototypes.
            candidates: (M, D) unit vectors.
            owners: (M,) their classes.

        Returns:
            Unit vectors (C, P + N, D), and (C, P + N) True where candidates
            exist to make them from.
        """
        own = owners == torch.arange(len(guides), device=owners.device)[:, None]
        similarity = (guides @ candidates.T).detach()
        sides = [
            self._side(candidates, own, -similarity, self.spec.positives),
            self._side(candidates, ~own, similarity, self.spec.negatives),
        ]
        return torch.cat([s for s, _ in sides], 1), torch.cat([t for _, t in sides], 1)

    def _side(
        self, candidates: Tensor, member: Tensor, hardness: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """``count`` samples per class from the candidates where ``member`` (C, M)."""
        classes, device = len(member), candidates.device
        mixed = round(self.mixed_fraction() * count)
        hard = hardest(hardness, member, self.spec.hard_count)
        sizes = member.sum(1)
        draws = torch.rand(classes, mixed, 2, device=device)
        picks = (draws * sizes.clamp(1, hard.shape[1])[:, None, None]).long()
        chosen = hard.gather(1, picks.flatten(1))
        pairs = candidates[chosen].view(classes, mixed, 2, candidates.shape[1])
        # sin² of a uniform angle is Beta(½, ½).
        ratio = torch.sin(torch.rand(classes, mixed, 1, device=device) * (math.pi / 2)) ** 2
        blends = functional.normalize(ratio * pairs[:, :, 0] + (1 - ratio) * pairs[:, :, 1], dim=2)
        draws = torch.rand(classes, count - mixed, device=device)
        ranks = (draws * sizes.clamp(min=1)[:, None]).long() + 1
        places = torch.searchsorted(member.long().cumsum(1), ranks)
        uniform = candidates[places.clamp(max=len(candidates) - 1)]
        valid = (sizes > 0)[:, None].expand(classes, count)
        return torch.cat([blends, uniform], 1), valid

    def mixed_fraction(self) -> float:
        """Fraction of the synthetic samples that mixup makes, by the progress of the training."""
        if self.spec.mixing == "growing":
            return min(0.5 + 0.5 * float(self.progress), 1.0)
        return {"half": 0.5, "always": 1.0, "never": 0.0}[self.spec.mixing]

    def contrast(
        self, candidates: Tensor, owners: Tensor, synthetic: Tensor, valid: Tensor
    ) -> Tensor:
        """The weighted mean over anchors, a scalar.

        Args:
            candidates: (M, D) unit vectors, each an anchor.
            owners: (M,) their classes.
            synthetic: (C, P + N, D) unit vectors, positives first.
            valid: (C, P + N) which of them take part.
        """
        scaled, positive = self.similarities(candidates, owners, synthetic, valid)
        losses = supcon_losses(scaled / self.spec.temperature, positive)
        weights = self.row_weight[owners]
        active = positive.any(1)
        if _has_one_weight(self.spec):
            return (losses * weights).sum() / active.sum().clamp(min=1)
        return (losses * weights).sum() / (weights * active).sum().clamp(min=1e-12)

    def similarities(
        self, candidates: Tensor, owners: Tensor, synthetic: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cosines (M, M + P + N) of anchors to candidates and synthetic samples of their class.

        Returns:
            The cosines, −inf for the anchor itself and invalid samples; and True where they
            are of the anchor's class.
        """
        itself = torch.eye(len(owners), dtype=torch.bool, device=owners.device)
        batch = (candidates @ candidates.T).masked_fill(itself, -torch.inf)
        made = torch.einsum("md,mnd->mn", candidates, synthetic[owners])
        made = made.masked_fill(~valid[owners], -torch.inf)
        first = torch.arange(synthetic.shape[1], device=owners.device) < self.spec.positives
        same = (owners[:, None] == owners) & ~itself
        return torch.cat([batch, made], 1), torch.cat([same, valid[owners] & first], 1)

    def _class_means(self, features: Tensor, labels: Tensor) -> Tensor:
        """(C, D) directions of the batch's class means; zero for an absent class."""
        member = functional.one_hot(labels, len(self.row_weight)).to(features.dtype)
        return functional.normalize(member.T @ features, dim=1)

    @torch.no_grad()
    def _observe(self, features: Tensor, labels: Tensor, guides: Tensor, synthetic: Tensor) -> None:
        member = functional.one_hot(labels, len(guides)).to(features.dtype)
        self.seen_sum += member.T @ features
        self.seen += member.sum(0)
        self.guides.copy_(guides)
        near = torch.einsum("cd,cnd->cn", guides, synthetic)
        count = self.spec.positives
        made = synthetic[:, :count]
        # Mean cosine of distinct pairs, from the length of their sum.
        pairs = (made.sum(1).square().sum(1) - count) / max(1, count * (count - 1))
        values = [near[:, :count].mean(), near[:, count:].mean(), 1 - pairs.mean()]
        self.observed += torch.stack([*values, torch.ones_like(pairs[0])])

    def diagnostics(self) -> dict[str, list[float]]:
        """Means since the last call.

        Returns:
            C cosines of the prototypes with their class's mean feature (−2 for a class
            without rows), the cosine of synthetic positives and of negatives to the prototype,
            and the diversity of synthetic positives (1 − mean cosine of pairs).
        """
        cosine = functional.cosine_similarity(self.guides, self.seen_sum, dim=1)
        cosine = torch.where(self.seen > 0, cosine, -2.0)
        means = (self.observed[:3] / self.observed[3].clamp(min=1)).tolist()
        self.seen_sum.zero_()
        self.seen.zero_()
        self.observed.zero_()
        return {
            "prototype_cosine": [round(x, 4) for x in cosine.tolist()],
            "positive_similarity": [means[0]],
            "negative_similarity": [means[1]],
            "diversity": [means[2]],
        }


def hardest(hardness: Tensor, member: Tensor, count: int) -> Tensor:
    """Indices (C, K) of the hardest members of every class, hardest first.

    Args:
        hardness: (C, M) higher is harder.
        member: (C, M) which may be chosen; the others come last.
        count: K is this, or M if that is less.
    """
    ranked = hardness.masked_fill(~member, -torch.inf)
    return ranked.topk(min(count, ranked.shape[1]), dim=1).indices


def _has_one_weight(spec: LossSpec) -> bool:
    """Whether all anchors have the same weight, as in the published code."""
    return spec.anchor_weights == "constant" or spec.compat == "reference"


def _anchor_weights(spec: LossSpec, info: ClassInfo) -> Tensor:
    """(C,) weights by class; the same for all with ``constant``, as published."""
    if not _has_one_weight(spec):
        return effective_weights(info.counts, spec.beta, spec.weight_clamp)
    sizes = torch.tensor(info.counts, dtype=torch.float64).clamp(min=1)
    numbers = (1 - spec.beta**sizes) / (1 - spec.beta)
    return (numbers.mean() / numbers[0]).float().expand(len(sizes)).clone()
