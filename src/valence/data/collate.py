"""From token ids to padded batches of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from valence.data.batches import TOKEN_BUDGET as TOKEN_BUDGET
from valence.data.batches import Encoded as Encoded
from valence.data.batches import length_batches as length_batches

IGNORED = -1
"""Label of a row that takes no part in the loss."""


@dataclass(frozen=True)
class Collator:
    """Pads token ids to the longest of the batch.

    Attributes:
        pad_id: Id of the padding token.
    """

    pad_id: int

    def __call__(self, rows: Sequence[dict[str, object]]) -> dict[str, Tensor]:
        """A batch of ``input_ids`` or ``states``, ``attention_mask`` and ``labels`` (B,).

        Second views, where rows have them, are B further rows with the same labels.
        """
        seconds = [row["second"] for row in rows if "second" in row]
        batch = self.pad([row["text"] for row in rows] + seconds)  # type: ignore[arg-type]
        labels = torch.tensor([row["labels"] for row in rows])
        batch["labels"] = torch.cat([labels, labels]) if seconds else labels
        return batch

    def pad(self, rows: Sequence[Sequence[int] | np.ndarray]) -> dict[str, Tensor]:
        """Padded on the right: ``attention_mask`` (B, T) int64, and what the rows are.

        Args:
            rows: Token ids (``input_ids`` (B, T) int64) or token states (T, H) (``states``
                (B, T, H) float32).
        """
        lengths = np.array([len(row) for row in rows])
        mask = np.arange(lengths.max()) < lengths[:, None]
        attention = torch.from_numpy(mask.astype(np.int64))
        if isinstance(rows[0], np.ndarray):
            states = np.zeros((*mask.shape, rows[0].shape[1]), dtype=np.float32)
            states[mask] = np.concatenate(list(rows))
            return {"states": torch.from_numpy(states), "attention_mask": attention}
        padded = np.full(mask.shape, self.pad_id, dtype=np.int64)
        padded[mask] = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in rows])
        return {"input_ids": torch.from_numpy(padded), "attention_mask": attention}


class LabeledRows(TorchDataset[dict[str, object]]):
    """Texts with labels, and second views where there are some, as the Trainer reads them.

    Row ``~i`` is row ``i`` without its label: it takes no part in the loss.
    """

    def __init__(self, encoded: Encoded, labels: np.ndarray, second: Encoded | None = None) -> None:
        self.encoded = encoded
        self.labels = labels
        self.second = second

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> dict[str, object]:
        label = int(self.labels[index]) if index >= 0 else IGNORED
        index = index if index >= 0 else ~index
        row: dict[str, object] = {"text": self.encoded.row(index), "labels": label}
        return row if self.second is None else {**row, "second": self.second.row(index)}
