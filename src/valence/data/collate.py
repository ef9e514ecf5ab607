"""From token ids to padded batches, by length so that little is padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset


@dataclass(frozen=True)
class Encoded:
    """Tokenised texts.

    Attributes:
        input_ids: N lists of token ids, cut to the length limit.
        truncated: How many texts were cut.
    """

    input_ids: list[list[int]]
    truncated: int

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class Collator:
    """Pads token ids to the longest of the batch.

    Attributes:
        pad_id: Id of the padding token.
    """

    pad_id: int

    def __call__(self, rows: Sequence[dict[str, object]]) -> dict[str, Tensor]:
        """A batch of ``input_ids``, ``attention_mask`` (B, T) and ``labels`` (B,).

        Second views, where rows have them, are B further rows with the same labels.
        """
        seconds = [row["second"] for row in rows if "second" in row]
        batch = self.pad([row["input_ids"] for row in rows] + seconds)  # type: ignore[arg-type]
        labels = torch.tensor([row["labels"] for row in rows])
        batch["labels"] = torch.cat([labels, labels]) if seconds else labels
        return batch

    def pad(self, input_ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask``, both (B, T) int64."""
        lengths = np.array([len(ids) for ids in input_ids])
        mask = np.arange(lengths.max()) < lengths[:, None]
        padded = np.full(mask.shape, self.pad_id, dtype=np.int64)
        padded[mask] = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in input_ids])
        return {
            "input_ids": torch.from_numpy(padded),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
        }


class LabelledRows(TorchDataset[dict[str, object]]):
    """Token ids with labels, and second views where there are some, as the Trainer reads them."""

    def __init__(self, encoded: Encoded, labels: np.ndarray, second: Encoded | None = None) -> None:
        self.encoded = encoded
        self.labels = labels
        self.second = second

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> dict[str, object]:
        row = {"input_ids": self.encoded.input_ids[index], "labels": int(self.labels[index])}
        return row if self.second is None else {**row, "second": self.second.input_ids[index]}


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
