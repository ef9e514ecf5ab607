"""Shared prefixes of prompts and answers, computed once by a causal model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class AnswerTree:
    """All answers after one question, each of which attends to the question and itself.

    Args:
        answers: C lists of token ids.
        device: Device of the tensors.

    Attributes:
        tokens: (A,) all tokens of answers but the last of each, which nothing follows.
        depths: (A,) position of each token in its answer.
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
        """(B, 1, T + A, S + A) additive attention mask: 0, or the lowest number of the type.

        Args:
            seen: (B, S) which tokens are not padding; the last T are new.
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
        mask = torch.zeros(allowed.shape, dtype=dtype, device=seen.device)
        return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]

    def scores(self, logits: Tensor) -> Tensor:
        """(B, C) log-likelihoods from logits (B, 1 + A, V) after the question and each token."""
        # Position by position: in float32 at once, all would take twice the memory of the logits.
        norms = torch.stack([row.float().logsumexp(-1) for row in logits.unbind(1)], dim=1)
        scores: Tensor = logits[:, 0, self.first].float() - norms[:, :1]
        picked = self.later.expand(len(logits), -1)[..., None]
        later = logits[:, 1:].gather(2, picked).squeeze(2).float() - norms[:, 1:]
        return scores.index_add(1, self.owner, later)


def common_prefix_length(rows: Sequence[list[int]]) -> int:
    """Number of first tokens that all rows share; at least one token of every row is left."""
    low, high = min(rows), max(rows)  # rows between these two share at least their prefix
    most = min(len(ids) for ids in rows) - 1
    same = (i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b)
    return min(next(same, most), most)


def base_network(model: Any) -> Any:
    """The causal model itself; of one with an adapter of peft the model it was put into."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def supports_prefix_sharing(model: Any, longest: int) -> bool:
    """Whether cached keys stay valid and the model accepts a custom attention mask.

    A sliding window is no hindrance while it holds all tokens. Models that do not use the
    attention interface of transformers (ALiBi, state spaces) build masks of their own.
    """
    base = base_network(model)
    config = base.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    return (
        bool(getattr(base, "_supports_attention_backend", False))
        and kinds <= {"full_attention", "sliding_attention"}
        and (window is None or longest < window)
    )
