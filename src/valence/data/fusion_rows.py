"""Batches of text, audio and vision, padded; and modalities taken away from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from valence.data.collate import Collator, Encoded
from valence.data.features.archive import FeatureView
from valence.data.missing import blank, kept_steps

MODALITIES = ("text", "audio", "vision")
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Missing:
    """Steps that are taken away at a rate.

    Attributes:
        rate: Share of the real steps.
        modalities: Which lose them.
        seed: Of the draws, which belong to the row.
    """

    rate: float
    modalities: tuple[str, ...]
    seed: int = 0

    def __call__(self, batch: Batch, rows: Sequence[int] | np.ndarray) -> Batch:
        """The batch with zeros and empty mask places where steps are gone.

        Of the text, token states are taken away: the other states still know of the words.
        """
        changed = dict(batch)
        for name in self.modalities:
            mask = batch[f"{name}_mask"].numpy()
            if name == "text":
                kept = kept_steps(mask, self.rate, rows=rows, modality=name, seed=self.seed)
            else:
                steps, kept = blank(
                    batch[name].numpy(), mask, self.rate, rows=rows, modality=name, seed=self.seed
                )
                changed[name] = torch.from_numpy(steps)
            changed[f"{name}_mask"] = torch.from_numpy(kept)
        return changed


@dataclass(frozen=True)
class FusionRows:
    """N rows of three modalities; one without features has no real step in it.

    Attributes:
        encoded: The texts, with their token states where these are kept.
        features: Audio and vision of the same rows, or None.
        widths: Numbers in a step of audio and vision.
        limits: Most steps of audio and vision.
        pad_id: Id of the padding token.
    """

    encoded: Encoded
    features: FeatureView | None
    widths: Mapping[str, int]
    limits: Mapping[str, int]
    pad_id: int

    def __len__(self) -> int:
        return len(self.encoded)

    def sizes(self) -> np.ndarray:
        """(N,) steps of all modalities together, for batches of like length."""
        total = np.array([len(ids) for ids in self.encoded.input_ids], dtype=np.int64)
        if self.features is not None:
            for name, limit in self.limits.items():
                total = total + self.features.lengths(name).clip(max=limit)
        return total

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """A padded batch by the names that a fusion's forward takes.

        ``input_ids`` (B, T) or ``states`` (B, T, H), ``attention_mask`` and ``text_mask``
        (B, T), and of audio and vision the steps (B, L, d) and the mask (B, L).
        """
        batch = Collator(self.pad_id).pad([self.encoded.row(int(i)) for i in rows])
        batch["text_mask"] = batch["attention_mask"] > 0
        found = None
        if self.features is not None:
            found = self.features.batch(rows, limits=self.limits)
        for name, width in self.widths.items():
            if found is None:
                batch[name] = torch.zeros(len(rows), 1, width)
                batch[f"{name}_mask"] = torch.zeros(len(rows), 1, dtype=torch.bool)
            else:
                batch[name] = torch.from_numpy(found.steps[name])
                batch[f"{name}_mask"] = torch.from_numpy(found.masks[name])
        return batch

    def cut(self) -> dict[str, int]:
        """Rows that are longer than a limit, by modality."""
        if self.features is None:
            return {}
        return {m: int((self.features.lengths(m) > n).sum()) for m, n in self.limits.items()}


class RowNumbers(TorchDataset[int]):
    """The numbers of N rows; the collator reads a whole batch of them at once."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


@dataclass(frozen=True)
class FusionCollator:
    """Batches for training.

    Attributes:
        rows: The training rows.
        labels: (N,) class ids or intensities.
        dropout: Chance that a row loses a modality.
    """

    rows: FusionRows
    labels: np.ndarray
    dropout: float

    def __call__(self, numbers: Sequence[int]) -> Batch:
        """A batch with ``labels`` (B,); some rows without a modality, none without all."""
        batch = self.rows.batch(numbers)
        batch["labels"] = torch.from_numpy(self.labels[np.asarray(numbers)])
        if self.dropout:
            kept = torch.rand(len(numbers), len(MODALITIES)) >= self.dropout
            kept[:, 0] |= ~kept.any(dim=1)
            for i, name in enumerate(MODALITIES):
                batch[f"{name}_mask"] = batch[f"{name}_mask"] & kept[:, i : i + 1]
        return batch
