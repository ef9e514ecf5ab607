"""The tables of losses, and how a spec becomes one. A new loss is one class and one line."""

from __future__ import annotations

from torch import Tensor

from valence.config.ranges import Range
from valence.config.sections import LossSpec
from valence.errors import UnknownNameError
from valence.losses.base import ClassInfo, Loss, ModelOutput
from valence.losses.contrastive import PrototypeMemory, SupervisedContrast
from valence.losses.sharprecl import SharpContrast
from valence.losses.supervised import (
    LDAM,
    WEIGHT_FIELDS,
    AbsoluteError,
    CrossEntropy,
    Focal,
    LogitAdjustment,
    SquaredError,
)

LOSSES: dict[str, type[Loss]] = {
    "cross-entropy": CrossEntropy,
    "focal": Focal,
    "ldam": LDAM,
    "logit-adjustment": LogitAdjustment,
}

INTENSITY_LOSSES: dict[str, type[Loss]] = {"mse": SquaredError, "mae": AbsoluteError}
"""The losses of a number, where the target is an intensity."""

CONTRASTS: dict[str, type[Loss]] = {
    "memory": PrototypeMemory,
    "supcon": SupervisedContrast,
    "sharprecl": SharpContrast,
}


def losses_of(target: str) -> dict[str, type[Loss]]:
    """The supervised losses that fit a target: ``classes`` or ``intensity``."""
    return INTENSITY_LOSSES if target == "intensity" else LOSSES


_COMBINING = frozenset({"contrast", "weight"})


class CombinedLoss(Loss):
    """A supervised loss plus ``weight`` times a contrastive one.

    Args:
        supervised: The loss of the logits.
        contrast: The loss of the features.
        weight: Factor on ``contrast``.
    """

    def __init__(self, supervised: Loss, contrast: Loss, weight: float) -> None:
        super().__init__()
        self.supervised = supervised
        self.contrast = contrast
        self.weight = weight

    def set_progress(self, progress: float) -> None:
        """Set the fraction of the training that is done, for both losses."""
        super().set_progress(progress)
        self.supervised.set_progress(progress)
        self.contrast.set_progress(progress)

    def diagnostics(self) -> dict[str, list[float]]:
        """Statistics of both losses."""
        return {**self.supervised.diagnostics(), **self.contrast.diagnostics()}

    def forward(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """The weighted sum, a scalar."""
        supervised: Tensor = self.supervised(output, labels)
        contrast: Tensor = self.contrast(output, labels)
        return supervised + self.weight * contrast


def build_loss(spec: LossSpec, info: ClassInfo) -> Loss:
    """The loss a spec names.

    Raises:
        UnknownNameError: if ``spec.name`` or ``spec.contrast`` is in no table.
    """
    supervised = _find("loss", spec.name, LOSSES | INTENSITY_LOSSES)(spec, info)  # type: ignore[call-arg]
    if spec.contrast == "none":
        return supervised
    contrast = _find("contrast", spec.contrast, CONTRASTS)(spec, info)  # type: ignore[call-arg]
    return CombinedLoss(supervised, contrast, spec.weight)


def reads(spec: LossSpec) -> frozenset[str]:
    """The fields of ``LossSpec`` that change the loss this spec names.

    Raises:
        UnknownNameError: if ``spec.name`` or ``spec.contrast`` is in no table.
    """
    fields = _find("loss", spec.name, LOSSES | INTENSITY_LOSSES).reads
    if "class_weights" in fields:
        fields |= WEIGHT_FIELDS[spec.class_weights]
    if spec.contrast == "none":
        return fields
    return fields | _find("contrast", spec.contrast, CONTRASTS).reads | _COMBINING


def search_space(spec: LossSpec) -> dict[str, Range]:
    """The search space of the loss a spec names, by dotted setting.

    Raises:
        UnknownNameError: if ``spec.name`` or ``spec.contrast`` is in no table.
    """
    space = dict(_find("loss", spec.name, LOSSES | INTENSITY_LOSSES).search_space)
    if spec.contrast != "none":
        space |= _find("contrast", spec.contrast, CONTRASTS).search_space
    return {f"loss.{field}": one for field, one in space.items()}


def _find(kind: str, name: str, table: dict[str, type[Loss]]) -> type[Loss]:
    if name not in table:
        raise UnknownNameError(kind, name, table)
    return table[name]
