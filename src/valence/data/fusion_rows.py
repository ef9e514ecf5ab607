"""Padded batches of text, audio and vision, and modalities dropped from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from valence.data.batches import Encoded
from valence.data.collate import Batch, EncodedInputs, pad
from valence.data.features.archive import FeatureView
from valence.data.missing import drop_steps, remaining_mask

MODALITIES = ("text", "audio", "vision")
EVAL_BATCH_SIZE = 64


@dataclass(frozen=True)
class Missing:
    """Steps that are dropped at a rate.

    Attributes:
        rate: Fraction of the real steps.
        modalities: Which lose them.
        seed: Seed of the draws, one per row.
    """

    rate: float
    modalities: tuple[str, ...]
    seed: int = 0

    def __call__(self, batch: Batch, rows: Sequence[int] | np.ndarray) -> Batch:
        """The batch with zeros and an empty mask where steps are dropped.

        Of the text, token states are dropped: the other states still carry the words.
        """
        changed = dict(batch)
        for name in self.modalities:
            mask = batch[f"{name}_mask"].numpy()
            if name == "text":
                remaining = remaining_mask(
                    mask, self.rate, rows=rows, modality=name, seed=self.seed
                )
            else:
                steps, remaining = drop_steps(
                    batch[name].numpy(), mask, self.rate, rows=rows, modality=name, seed=self.seed
                )
                changed[name] = torch.from_numpy(steps)
            changed[f"{name}_mask"] = torch.from_numpy(remaining)
        return changed


@dataclass(frozen=True)
class FusionRows:
    """N rows of three modalities; one without features has no real step in it.

    Attributes:
        encoded: The texts, with their token states where these are cached.
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
    views: int = 1

    @property
    def truncated(self) -> int:
        """How many texts were truncated at the length limit."""
        return self.encoded.truncated

    def __len__(self) -> int:
        return len(self.encoded)

    def batches(self, device: str, token_budget: int | None = None) -> Iterator[np.ndarray]:
        """Row numbers in batches of 64, the longest rows first."""
        order = np.argsort(self.lengths(), kind="stable")[::-1]
        return (
            order[start : start + EVAL_BATCH_SIZE]
            for start in range(0, len(order), EVAL_BATCH_SIZE)
        )

    def lengths(self) -> np.ndarray:
        """(N,) steps of all modalities together, for batches of similar length."""
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
        batch = pad([self.encoded.row(int(i)) for i in rows], self.pad_id)
        batch["text_mask"] = batch["attention_mask"] > 0
        loaded = None
        if self.features is not None:
            loaded = self.features.batch(rows, limits=self.limits)
        for name, width in self.widths.items():
            if loaded is None:
                batch[name] = torch.zeros(len(rows), 1, width)
                batch[f"{name}_mask"] = torch.zeros(len(rows), 1, dtype=torch.bool)
            else:
                batch[name] = torch.from_numpy(loaded.steps[name])
                batch[f"{name}_mask"] = torch.from_numpy(loaded.masks[name])
        return batch

    def shortened(self) -> dict[str, int]:
        """Rows that are longer than a limit, by modality."""
        if self.features is None:
            return {}
        return {m: int((self.features.lengths(m) > n).sum()) for m, n in self.limits.items()}


@dataclass(frozen=True)
class ModalityDropout:
    """Training rows that lose whole modalities by chance, each by itself; never all three.

    Attributes:
        inputs: The rows.
        rate: Chance that a row loses a modality.
    """

    inputs: FusionRows
    rate: float
    views: int = 1

    @property
    def truncated(self) -> int:
        """How many texts were truncated at the length limit."""
        return self.inputs.truncated

    def __len__(self) -> int:
        return len(self.inputs)

    def lengths(self) -> np.ndarray:
        """As those of the rows."""
        return self.inputs.lengths()

    def batches(self, device: str, token_budget: int | None = None) -> Iterator[np.ndarray]:
        """As those of the rows."""
        return self.inputs.batches(device, token_budget)

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """A batch in which some rows have no real step of a modality."""
        batch = self.inputs.batch(rows)
        present = torch.rand(len(rows), len(MODALITIES)) >= self.rate
        present[:, 0] |= ~present.any(dim=1)
        for i, name in enumerate(MODALITIES):
            batch[f"{name}_mask"] = batch[f"{name}_mask"] & present[:, i : i + 1]
        return batch


def with_dropout(rows: FusionRows, rate: float) -> EncodedInputs:
    """The rows as they are trained on."""
    return ModalityDropout(rows, rate) if rate else rows
