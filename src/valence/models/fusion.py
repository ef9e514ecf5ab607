"""Baselines of ALMT: one modality alone, early fusion and late fusion.

All have the inputs and outputs of :class:`~valence.models.multimodal.ALMT`. A modality is read
as the mean of its real steps; one without a real step reads as zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from valence.errors import UnknownNameError
from valence.losses.base import ModelOutput
from valence.models.multimodal import ALMT, MODALITIES, FeatureScaler, FusionSettings
from valence.models.pooling import masked_mean

DROPOUT = 0.1  # of the simple models; the published ALMT has none


class ModalityEncoder(nn.Module):
    """One modality: scaled, averaged over its real steps, and passed through a perceptron.

    Args:
        settings: Sizes.
        name: One of ``MODALITIES``.
    """

    def __init__(self, settings: FusionSettings, name: str) -> None:
        super().__init__()
        width = settings.width(name)
        scales = settings.standardize
        self.scaler = FeatureScaler(width, scales=scales) if name != "text" else nn.Identity()
        self.layers = _perceptron(width, settings.dim)

    def mean(self, steps: Tensor, mask: Tensor | None) -> Tensor:
        """(B, d) the mean of the real steps (B, L, d)."""
        steps = self.scaler(steps)
        return masked_mean(steps, _all_real(steps) if mask is None else mask)

    def forward(self, steps: Tensor, mask: Tensor | None) -> Tensor:
        """(B, dim) of steps (B, L, d) with mask (B, L)."""
        features: Tensor = self.layers(self.mean(steps, mask))
        return features


class SingleModality(nn.Module):
    """Text, audio or vision alone; the other modalities are ignored.

    Args:
        settings: Sizes.
        modality: Which one.
    """

    def __init__(self, settings: FusionSettings, modality: str) -> None:
        super().__init__()
        self.settings, self.modality = settings, modality
        self.reader = ModalityEncoder(settings, modality)
        self.output = nn.Linear(settings.dim, settings.outputs)

    def forward(
        self, text: Tensor, audio: Tensor, vision: Tensor, *,
        text_mask: Tensor | None = None, audio_mask: Tensor | None = None,
        vision_mask: Tensor | None = None,
    ) -> ModelOutput:  # fmt: skip
        """Outputs (B, outputs) and pooled features (B, dim); inputs as ALMT's."""
        steps = {"text": text, "audio": audio, "vision": vision}[self.modality]
        masks = {"text": text_mask, "audio": audio_mask, "vision": vision_mask}
        features = self.reader(steps, masks[self.modality])
        return ModelOutput(self.output(features), features, text, text_mask, self.output.weight)


class EarlyFusion(nn.Module):
    """The means of the three modalities, joined and passed through one perceptron.

    Args:
        settings: Sizes.
    """

    def __init__(self, settings: FusionSettings) -> None:
        super().__init__()
        self.settings = settings
        self.scalers = nn.ModuleDict(
            {
                name: FeatureScaler(settings.width(name), scales=settings.standardize)
                for name in ("audio", "vision")
            }
        )
        width = sum(settings.width(name) for name in MODALITIES)
        self.layers = _perceptron(width, settings.dim)
        self.output = nn.Linear(settings.dim, settings.outputs)

    def forward(
        self, text: Tensor, audio: Tensor, vision: Tensor, *,
        text_mask: Tensor | None = None, audio_mask: Tensor | None = None,
        vision_mask: Tensor | None = None,
    ) -> ModelOutput:  # fmt: skip
        """Outputs (B, outputs) and pooled features (B, dim); inputs as ALMT's."""
        inputs = (
            (text, text_mask),
            (self.scalers["audio"](audio), audio_mask),
            (self.scalers["vision"](vision), vision_mask),
        )
        means = [masked_mean(x, _all_real(x) if mask is None else mask) for x, mask in inputs]
        features = self.layers(torch.cat(means, dim=1))
        return ModelOutput(self.output(features), features, text, text_mask, self.output.weight)


class LateFusion(nn.Module):
    """A model per modality; outputs and features are the mean over those present.

    Args:
        settings: Sizes.
    """

    def __init__(self, settings: FusionSettings) -> None:
        super().__init__()
        self.settings = settings
        self.readers = nn.ModuleDict({name: ModalityEncoder(settings, name) for name in MODALITIES})
        self.outputs = nn.ModuleDict(
            {name: nn.Linear(settings.dim, settings.outputs) for name in MODALITIES}
        )

    def forward(
        self, text: Tensor, audio: Tensor, vision: Tensor, *,
        text_mask: Tensor | None = None, audio_mask: Tensor | None = None,
        vision_mask: Tensor | None = None,
    ) -> ModelOutput:  # fmt: skip
        """Outputs (B, outputs) and pooled features (B, dim); inputs as ALMT's."""
        steps = {"text": text, "audio": audio, "vision": vision}
        masks = {"text": text_mask, "audio": audio_mask, "vision": vision_mask}
        features, outputs, has_steps = [], [], []
        for name in MODALITIES:
            mask = masks[name]
            features.append(self.readers[name](steps[name], mask))
            outputs.append(self.outputs[name](features[-1]))
            real = _all_real(steps[name]) if mask is None else mask
            has_steps.append((real != 0).any(dim=1))
        present = torch.stack(has_steps, dim=1)
        pooled = masked_mean(torch.stack(features, dim=1), present)
        return ModelOutput(
            masked_mean(torch.stack(outputs, dim=1), present), pooled, text, text_mask
        )


FUSIONS: dict[str, str] = {
    "almt": "language-guided fusion by attention (ALMT)",
    "text-only": "the text alone",
    "audio-only": "the audio alone",
    "vision-only": "the vision alone",
    "early": "the three means joined before one perceptron",
    "late": "a model per modality, outputs averaged",
}
"""The multimodal models by name, one line each."""


def build_fusion(name: str, settings: FusionSettings, *, compat: str | None = None) -> nn.Module:
    """The model ``name`` of :data:`FUSIONS`.

    Args:
        name: Which one.
        settings: Sizes; the simple models read those they need.
        compat: As for ALMT; the simple models know no other reading.

    Raises:
        UnknownNameError: if the name is in no table.
    """
    if name not in FUSIONS:
        raise UnknownNameError("fusion", name, FUSIONS)
    if name == "almt":
        return ALMT(settings, compat=compat)
    if name == "early":
        return EarlyFusion(settings)
    if name == "late":
        return LateFusion(settings)
    return SingleModality(settings, name.removesuffix("-only"))


def set_feature_statistics(model: nn.Module, statistics: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Give every scaler of a model the mean and deviation (d,) of the training rows.

    Args:
        model: One of :data:`FUSIONS`.
        statistics: By modality, as ``FeatureSplit.statistics`` gives them.
    """
    for name, module in model.named_modules():
        if isinstance(module, FeatureScaler):
            owner = model.modality if isinstance(model, SingleModality) else name
            modality = next(m for m in MODALITIES if m in owner.split("."))
            module.set(*statistics[modality])


def _perceptron(width: int, dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, dim), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(dim, dim), nn.GELU()
    )


def _all_real(steps: Tensor) -> Tensor:
    return torch.ones(steps.shape[:2], dtype=torch.bool, device=steps.device)
