"""Encoded rows as a network reads them: for the trainer and the evaluation loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from valence.data.batches import TOKEN_BUDGET, Encoded, length_batches

IGNORE_INDEX = -1
"""Label of a row that takes no part in the loss."""

Batch = dict[str, Tensor]
"""Tensors by the names that the network's forward takes."""


class EncodedInputs(Protocol):
    """N encoded rows of one or several modalities."""

    @property
    def views(self) -> int:
        """How often a row is in a batch."""
        ...

    @property
    def truncated(self) -> int:
        """How many texts were truncated at the length limit."""
        ...

    def __len__(self) -> int: ...

    def lengths(self) -> np.ndarray:
        """(N,) steps of each row, for batches of similar length."""
        ...

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """The padded batch of some rows."""
        ...

    def batches(self, device: str, token_budget: int | None = None) -> Iterator[np.ndarray]:
        """Row numbers in batches for evaluation, the longest rows first."""
        ...


@dataclass(frozen=True)
class TextInputs:
    """Tokenized texts.

    Attributes:
        encoded: The token ids, with token states where these are cached.
        pad_id: Id of the padding token.
    """

    encoded: Encoded
    pad_id: int
    views: int = 1

    @property
    def truncated(self) -> int:
        """How many texts were truncated at the length limit."""
        return self.encoded.truncated

    def __len__(self) -> int:
        return len(self.encoded)

    def lengths(self) -> np.ndarray:
        """(N,) tokens of each text."""
        return np.array([len(ids) for ids in self.encoded.input_ids], dtype=np.int64)

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """``input_ids`` (B, T) or ``states`` (B, T, H), and ``attention_mask`` (B, T)."""
        return pad([self.encoded.row(int(i)) for i in rows], self.pad_id)

    def batches(self, device: str, token_budget: int | None = None) -> Iterator[np.ndarray]:
        """Row numbers in batches of at most ``token_budget`` tokens."""
        budget = token_budget or TOKEN_BUDGET.get(device, TOKEN_BUDGET["cpu"])
        return length_batches(self.lengths().tolist(), token_budget=budget)


@dataclass(frozen=True)
class PairedTexts:
    """Texts and a second view of each, for losses that contrast two.

    Attributes:
        first: The texts.
        second: Their second views, in the same order.
    """

    first: TextInputs
    second: TextInputs
    views: int = 2

    @property
    def truncated(self) -> int:
        """How many texts were truncated at the length limit."""
        return self.first.truncated

    def __len__(self) -> int:
        return len(self.first)

    def lengths(self) -> np.ndarray:
        """(N,) tokens of each text."""
        return self.first.lengths()

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """The texts of a batch and, behind them, their second views."""
        both = [part.encoded.row(int(i)) for part in (self.first, self.second) for i in rows]
        return pad(both, self.first.pad_id)

    def batches(self, device: str, token_budget: int | None = None) -> Iterator[np.ndarray]:
        """As :meth:`TextInputs.batches`."""
        return self.first.batches(device, token_budget)


class RowNumbers(TorchDataset[int]):
    """The numbers of N rows; the collator reads a whole batch of them at once."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


@dataclass(frozen=True)
class InputCollator:
    """Batches for training: row numbers in, tensors out.

    Attributes:
        inputs: The training rows.
        labels: (N,) class ids or numbers.
    """

    inputs: EncodedInputs
    labels: np.ndarray

    def __call__(self, numbers: Sequence[int]) -> Batch:
        """A batch with ``labels`` (B · views,).

        Row ``~i`` is row ``i`` without its label: it takes no part in the loss.
        """
        rows = np.array([i if i >= 0 else ~i for i in numbers])
        labels = torch.from_numpy(self.labels[rows])
        if min(numbers) < 0:
            labels[torch.tensor([i < 0 for i in numbers])] = IGNORE_INDEX
        return {**self.inputs.batch(rows), "labels": labels.repeat(self.inputs.views)}


def pad(rows: Sequence[Sequence[int] | np.ndarray], pad_id: int) -> Batch:
    """Rows padded on the right: ``attention_mask`` (B, T) int64, and what the rows are.

    Args:
        rows: Token ids (``input_ids`` (B, T) int64) or token states (T, H) (``states``
            (B, T, H) float32).
        pad_id: Id of the padding token.
    """
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    attention = torch.from_numpy(mask.astype(np.int64))
    if isinstance(rows[0], np.ndarray):
        states = np.zeros((*mask.shape, rows[0].shape[1]), dtype=np.float32)
        states[mask] = np.concatenate(list(rows))
        return {"states": torch.from_numpy(states), "attention_mask": attention}
    padded = np.full(mask.shape, pad_id, dtype=np.int64)
    padded[mask] = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in rows])
    return {"input_ids": torch.from_numpy(padded), "attention_mask": attention}
