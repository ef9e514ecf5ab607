"""Missing or noisy modalities, to test the robustness of a multimodal model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from valence.data.collate import Batch
from valence.data.fusion_rows import MODALITIES, Missing
from valence.models.scoring import Change

RATES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
"""Missing rates of the table."""
NOISE = (0.5, 1.0, 2.0)
"""Deviations of the noise, in units of a feature's own deviation over the training rows."""


@dataclass(frozen=True)
class Noise:
    """Gaussian noise on audio or vision.

    Attributes:
        level: Its deviation in units of each feature's deviation.
        modality: Which one.
        deviation: (d,) of the training rows.
        seed: Of the draws, which belong to the row.
    """

    level: float
    modality: str
    deviation: torch.Tensor
    seed: int = 0

    def __call__(self, batch: Batch, rows: np.ndarray) -> Batch:
        """The batch with noise on its real steps."""
        steps = batch[self.modality].clone()
        for i, row in enumerate(rows):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(row))
            noise = torch.randn(steps[i].shape, generator=generator)
            steps[i] += self.level * self.deviation * noise
        return {**batch, self.modality: steps}


def perturbations(
    fusion: nn.Module, name: str, seed: int
) -> Iterator[tuple[Mapping[str, Any], Change]]:
    """Every perturbation with its columns: change (missing, noise), modality (one, or all), level.

    Args:
        fusion: The trained fusion, for the deviations of its features.
        name: Its name in ``FUSIONS``; only modalities that it reads are changed.
        seed: Of the draws.
    """
    read = modalities(name)
    groups = {one: (one,) for one in read} | ({"all": read} if len(read) > 1 else {})
    for modality, group in groups.items():
        for rate in RATES:
            about = {"change": "missing", "modality": modality, "level": rate}
            yield about, Missing(rate, group, seed=seed)
    for modality in read:
        deviation = feature_deviation(fusion, modality)
        for level in NOISE if deviation is not None else ():
            assert deviation is not None
            about = {"change": "noise", "modality": modality, "level": level}
            yield about, Noise(level, modality, deviation, seed=seed)


def modalities(name: str) -> tuple[str, ...]:
    """The modalities that a fusion reads."""
    return (name.removesuffix("-only"),) if name.endswith("-only") else MODALITIES


def feature_deviation(fusion: nn.Module, modality: str) -> torch.Tensor | None:
    """(d,) deviation of a modality over the training rows, a buffer of the fusion."""
    if modality == "text":
        return None
    buffers = dict(fusion.named_buffers())
    for place in (f"scalers.{modality}", "reader.scaler", f"readers.{modality}.scaler"):
        if f"{place}.deviation" in buffers:
            return buffers[f"{place}.deviation"]
    return None
