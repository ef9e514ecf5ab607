"""What questions and answers share, so that a causal model reads it once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class AnswerTree:
    """All answers behind one question, each of which sees the question and itself.

    Args:
        answers: C lists of token ids.
        device: Where they are computed.

    Attributes:
        tokens: (A,) all tokens of answers but the last of each, which nothing follows.
        depths: (A,) how many of its answer come before each.
    """

    def __init__(self, answers: Sequence[list[int]], device: str) -> None:
        sizes = [len(answer) - 1 for answer in answers]
        owner = torch.repeat_interleave(torch.arange(len(answers)), torch.tensor(sizes))
        depths = [i for size in sizes for i in range(size)]
        self.tokens = torch.tensor([i for ids in answers for i in ids[:-1]], device=device).long()
        self.depths = torch.tensor(depths, device=device).long()
        own = owner[:, None] == owner
        self.within = own.tril().to(device)
        self.first = torch.tensor([ids[0] for ids in answers], device=device)
        self.later = torch.tensor([i for ids in answers for i in ids[1:]], device=device).long()
        self.owner = owner.to(device)

    def visible(self, seen: Tensor, width: int, dtype: torch.dtype) -> Tensor:
        """(B, 1, T + A, S + A) what may be attended to: 0, or the least number of the type.

        Args:
            seen: (B, S) which tokens are none of padding; the last T are new.
            width: T.
            dtype: Of the model.
        """
        rows, before = seen.shape
        count = len(self.tokens)
        allowed = seen.new_zeros(rows, width + count, before + count, dtype=torch.bool)
        new = torch.ones(width, width, dtype=torch.bool, device=seen.device).tril()
        allowed[:, :, :before] = seen.bool()[:, None]
        allowed[:, :width, before - width : before] &= new
        allowed[:, width:, before:] = self.within
        shut = torch.zeros(allowed.shape, dtype=dtype, device=seen.device)
        return shut.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]

    def scores(self, shares: Tensor) -> Tensor:
        """(B, C) from log-probabilities (B, 1 + A, V) after the question and each token."""
        found: Tensor = shares[:, 0, self.first]
        later = shares[:, 1:].gather(2, self.later.expand(len(shares), -1)[..., None]).squeeze(2)
        return found.index_add(1, self.owner, later)


def common_start(rows: Sequence[list[int]]) -> int:
    """How many first tokens all rows share; at least one is left to every row."""
    low, high = min(rows), max(rows)  # what these two share, all that lie between share
    most = min(len(ids) for ids in rows) - 1
    same = (i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b)
    return min(next(same, most), most)


def can_share(model: Any, longest: int) -> bool:
    """Whether keys of earlier tokens stay valid and what a token attends to can be said.

    A window that slides over the tokens is no hindrance while it holds all of them. Models that
    do not take their attention from transformers' interface (ALiBi, states) build masks of
    their own.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = base.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    return (
        bool(getattr(base, "_supports_attention_backend", False))
        and kinds <= {"full_attention", "sliding_attention"}
        and (window is None or longest < window)
    )
