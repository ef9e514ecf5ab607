"""Tokenized texts, and batches of them by length; nothing here needs PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

# Sorted by length, small batches stay in the processor's cache: measured best on CPU.
TOKEN_BUDGET = {"cpu": 1024, "mps": 16_384, "cuda": 65_536}


MAX_PADDING_FRACTION = 0.08
MIN_BATCH_ROWS = 8
"""Smaller batches are not split to save padding: every batch has a fixed cost."""


class States(Protocol):
    """Token states (T, H) of every text, float32."""

    def __getitem__(self, row: int, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Encoded:
    """Tokenized texts.

    Attributes:
        input_ids: N lists of token ids, truncated to the length limit.
        truncated: How many texts were truncated.
        states: Their token states, (T, H) each, where they are cached.
    """

    input_ids: list[list[int]]
    truncated: int
    states: States | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    def row(self, index: int) -> Sequence[int] | np.ndarray:
        """What the model reads of a text: its token states, or its token ids."""
        return self.input_ids[index] if self.states is None else self.states[index]


def length_batches(lengths: Sequence[int], *, token_budget: int) -> Iterator[np.ndarray]:
    """Row indices in batches of similar length, longest first.

    Longest first, so that memory peaks (and fails, if it must) at once. A batch with more padding
    than ``MAX_PADDING_FRACTION`` ends earlier, which matters where budgets are large.

    Args:
        lengths: Tokens per row.
        token_budget: Most tokens of a padded batch; a longer row is a batch of its own.
    """
    rows = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(rows, kind="stable")[::-1]
    start = 0
    while start < len(order):
        longest = max(1, int(rows[order[start]]))
        part = rows[order[start : start + max(1, token_budget // longest)]]
        full = np.cumsum(part) >= (1 - MAX_PADDING_FRACTION) * longest * np.arange(1, len(part) + 1)
        size = max(int(full.sum()), min(MIN_BATCH_ROWS, len(part)))
        yield order[start : start + size]
        start += size


def rows_done(batches_done: int, batches: int, rows: int) -> int:
    """Rows that count as done, for progress: batches take about the same time, rows do not.

    Batches hold about the same number of tokens, and those of the longest texts come first.
    """
    return rows * batches_done // max(1, batches)
