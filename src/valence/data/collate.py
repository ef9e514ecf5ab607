"""From token ids to padded batches, by length so that little is padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

# Sorted by length, small batches stay in the processor's cache: measured best on CPU.
TOKEN_BUDGET = {"cpu": 1024, "mps": 16_384, "cuda": 65_536}


class States(Protocol):
    """Token states (T, H) of every text, float32."""

    def __getitem__(self, row: int, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Encoded:
    """Tokenised texts.

    Attributes:
        input_ids: N lists of token ids, cut to the length limit.
        truncated: How many texts were cut.
        states: Their token states, (T, H) each, where they are at hand already.
    """

    input_ids: list[list[int]]
    truncated: int
    states: States | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    def row(self, index: int) -> Sequence[int] | np.ndarray:
        """What the model reads of a text: its token states, or its token ids."""
        return self.input_ids[index] if self.states is None else self.states[index]


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


class LabelledRows(TorchDataset[dict[str, object]]):
    """Texts with labels, and second views where there are some, as the Trainer reads them."""

    def __init__(self, encoded: Encoded, labels: np.ndarray, second: Encoded | None = None) -> None:
        self.encoded = encoded
        self.labels = labels
        self.second = second

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> dict[str, object]:
        row: dict[str, object] = {
            "text": self.encoded.row(index),
            "labels": int(self.labels[index]),
        }
        return row if self.second is None else {**row, "second": self.second.row(index)}


def length_batches(lengths: Sequence[int], *, token_budget: int) -> Iterator[np.ndarray]:
    """Row indices in batches of similar length, longest first.

    Longest first, so that memory peaks (and fails, if it must) at once.

    Args:
        lengths: Tokens per row.
        token_budget: Most tokens of a padded batch; a longer row is a batch of its own.
    """
    order = np.argsort(np.asarray(lengths), kind="stable")[::-1]
    start = 0
    while start < len(order):
        size = max(1, token_budget // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size
