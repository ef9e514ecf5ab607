"""Scores of a trained multimodal model beyond the usual ones: on test rows, after training.

Each metric at its own best validation epoch, which is how many papers report; and all metrics
while a growing share of the steps is missing, or noise is laid over the features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from valence.data.dataset import Dataset
from valence.data.fusion_rows import MODALITIES, Batch, Missing
from valence.models.fusion_model import Change, FusionModel
from valence.training.fusion_trainer import FusionLog, scores_of

RATES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
"""Missing rates of the table."""
NOISE = (0.5, 1.0, 2.0)
"""Deviations of the noise, in units of a feature's own deviation over the training rows."""


@dataclass(frozen=True)
class OwnBest:
    """Each metric at its own best validation epoch: as many models as metrics.

    Attributes:
        step: Optimiser step of that epoch, by metric.
        test: The metric on test rows with the weights of that step.
    """

    step: dict[str, int]
    test: dict[str, float | None]


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
            draw = torch.Generator().manual_seed(self.seed * 1_000_003 + int(row))
            steps[i] += self.level * self.deviation * torch.randn(steps[i].shape, generator=draw)
        return {**batch, self.modality: steps}


def own_best(model: FusionModel, log: FusionLog, dataset: Dataset) -> OwnBest:
    """Score the weights of every metric's own best epoch; the model keeps its own.

    Args:
        model: The trained model.
        log: With the weights kept in training.
        dataset: With the test rows.
    """
    kept = {name: value.clone() for name, value in model.net.trainable_state_dict().items()}
    test = dataset.test
    rows = model.rows(test.texts, test.features)
    found: dict[str, float | None] = {}
    for step, state in log.states.items():
        model.net.load_trainable_state_dict(state)
        scores = scores_of(dataset.without_test(), test.labels, model.score_rows(rows).logits)
        found |= {name: scores[name] for name, at in log.own_best.items() if at == step}
    model.net.load_trainable_state_dict(kept)
    return OwnBest(log.own_best, {name: found[name] for name in log.own_best})


def robustness(model: FusionModel, dataset: Dataset) -> pd.DataFrame:
    """Test scores while steps are missing or noisy.

    Args:
        model: The trained model.
        dataset: With the test rows.

    Returns:
        One row per change: ``change`` (missing, noise), ``modality`` (one, or all), ``level``
        (rate, or deviation of the noise), and every metric. Only what the model reads.
    """
    test = dataset.test
    rows = model.rows(test.texts, test.features)
    read = modalities(model)
    records = []

    def add(change: str, modality: str, level: float, how: Change | None) -> None:
        logits = model.score_rows(rows, change=how).logits
        scores = scores_of(dataset.without_test(), test.labels, logits)
        records.append({"change": change, "modality": modality, "level": level, **scores})

    groups = {name: (name,) for name in read} | ({"all": read} if len(read) > 1 else {})
    for name, group in groups.items():
        for rate in RATES:
            add("missing", name, rate, Missing(rate, group, seed=model.spec.seed))
    for name in read:
        deviation = feature_deviation(model, name)
        for level in NOISE if deviation is not None else ():
            assert deviation is not None
            add("noise", name, level, Noise(level, name, deviation, seed=model.spec.seed))
    return pd.DataFrame(records)


def modalities(model: FusionModel) -> tuple[str, ...]:
    """The modalities that a model reads."""
    name = model.spec.fusion.name
    return (name.removesuffix("-only"),) if name.endswith("-only") else MODALITIES


def feature_deviation(model: FusionModel, modality: str) -> torch.Tensor | None:
    """(d,) deviation of a modality over the training rows, as the model keeps it."""
    if modality == "text":
        return None
    buffers = dict(model.net.fusion.named_buffers())
    for place in (f"scalers.{modality}", "reader.scaler", f"readers.{modality}.scaler"):
        if f"{place}.deviation" in buffers:
            return buffers[f"{place}.deviation"]
    return None
