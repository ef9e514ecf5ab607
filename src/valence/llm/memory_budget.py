"""Batches within a budget in bytes, and smaller ones where memory ends all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from valence.errors import ModelError

DEFAULT_BYTES = {"cpu": 1 << 30, "mps": 2 << 30}
FREE_SHARE = 0.5  # of a GPU's free memory; the rest is for what the estimate does not know


def default_budget(device: str) -> int:
    """Bytes that batches may take: on a GPU half of what is free."""
    if device != "cuda":
        return DEFAULT_BYTES[device]
    free, _ = torch.cuda.mem_get_info()
    unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return int(FREE_SHARE * (free + unused))


def row_bytes(config: Any, *, item_bytes: int, tokens: int, cached: int, positions: int) -> int:
    """An estimate of the bytes that a question takes in a batch.

    Args:
        config: Of the model's text part.
        item_bytes: Of a number of the model.
        tokens: Computed tokens of the question, those of the answers included.
        cached: Tokens whose keys and values are cached.
        positions: Positions whose logits are read.
    """
    width = int(config.hidden_size)
    heads = int(getattr(config, "num_attention_heads", 1) or 1)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    head = int(getattr(config, "head_dim", None) or width // heads)
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    keys_values = 2 * int(config.num_hidden_layers) * groups * head * cached * item_bytes
    states = tokens * (4 * width + 3 * inner) * item_bytes
    mask = 2 * tokens * cached * item_bytes
    logits = positions * int(config.vocab_size) * item_bytes + 2 * 4 * int(config.vocab_size)
    return keys_values + states + mask + logits


class HalvedBatches:
    """Runs batches, in halves where a whole one does not fit into memory.

    Attributes:
        halvings: How often a batch was halved.
        most_rows: Rows of the largest batch that is still tried.
    """

    def __init__(self) -> None:
        self.halvings = 0
        self.most_rows = 1 << 30

    def run(self, work: Callable[[np.ndarray], object], batch: np.ndarray) -> int:
        """Run ``work`` on all rows of a batch, in as many parts as needed; the number of rows.

        Raises:
            ModelError: if a single row does not fit.
        """
        start = 0
        while start < len(batch):
            rows = batch[start : start + self.most_rows]
            reason = _lack_of_memory(work, rows)
            if reason is None:
                start += len(rows)
                continue
            if len(rows) == 1:
                raise ModelError(
                    f"The model and one prompt do not fit into memory ({reason}); lower the token "
                    f"limit, quantize the model to 4 bits, or use a smaller "
                    "one"
                )
            self.halvings += 1
            self.most_rows = (len(rows) + 1) // 2
        return len(batch)


def _lack_of_memory(work: Callable[[np.ndarray], object], rows: np.ndarray) -> str | None:
    """Run ``work``; what memory error it ended with, or None.

    The error is dropped here: its traceback holds the tensors that filled the memory.
    """
    try:
        work(rows)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or ["out of memory"])[0][:120]
    else:
        return None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return reason


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ended, of a GPU or of the CPU's allocator."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error)
    return any(words in text for words in ("out of memory", "not enough memory"))
