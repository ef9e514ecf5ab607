"""The whole batch in every process: losses see it all, whoever computed it.

With several processes each computes a part of a batch. Before the loss all parts are brought
together, so that every process computes the same loss of the same rows, and what a loss
remembers stays the same everywhere. The gradient is that of one process: a process sends back
that of its own rows only, times the number of processes, and ``DistributedDataParallel``
takes the mean; what a loss itself learns has the whole gradient in every process already.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, distributed

from valence.data.collate import IGNORE_INDEX
from valence.losses.base import Loss, ModelOutput


def several() -> bool:
    """Whether this process trains together with others."""
    return distributed.is_available() and distributed.is_initialized() and _count() > 1


def _count() -> int:
    return distributed.get_world_size()


def gather_rows(rows: Tensor) -> Tensor:
    """The rows (N, …) of all processes in their order; of one process, its own.

    The gradient is right for a loss that every process computes alike from all rows.

    Args:
        rows: (n, …) of this process; n may differ between processes, and be 0.
    """
    if not several():
        return rows
    gathered: Tensor = _Gathered.apply(rows, _sizes(rows))  # type: ignore[no-untyped-call]
    return gathered


def _sizes(rows: Tensor) -> list[int]:
    own = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.zeros_like(own) for _ in range(_count())]
    distributed.all_gather(sizes, own)
    return [int(size) for size in sizes]


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.begin = sum(sizes[: distributed.get_rank()])
        padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
        padded[: len(rows)] = rows
        ctx.size = len(rows)
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        own = grads[0][ctx.begin : ctx.begin + ctx.size]
        return own * _count(), None


def whole_loss(loss: Loss, output: ModelOutput, labels: Tensor, *, views: int = 1) -> Tensor:
    """The loss of the whole batch, a scalar, the same in every process.

    Args:
        loss: Called with the rows of all processes, in the order one process would give them.
        output: What this process computed for its B rows. Of several processes, the loss gets
            logits, features and class rows; token states stay where they are.
        labels: (B,) class ids; rows with ``IGNORE_INDEX`` take no part.
        views: How often a text is in the batch: all first views, then all second ones.
    """
    if not several():
        alone: Tensor = loss(output, labels)
        return alone
    kept = torch.ones_like(labels, dtype=torch.bool)
    if not labels.is_floating_point():  # an intensity may have any value
        kept = labels != IGNORE_INDEX
    whole = replace(
        output,
        logits=_in_order(output.logits.float()[kept], views),
        features=_in_order(output.features.float()[kept], views),
        token_states=None,
        attention_mask=None,
    )
    truth = _in_order(labels[kept], views)
    with same_draws(labels.device):
        together: Tensor = loss(whole, truth)
    return together


def _in_order(rows: Tensor, views: int) -> Tensor:
    """The gathered rows, the first views of all texts before the second ones."""
    if not len(rows):  # nothing to cut in parts, but a part of each view all the same
        return torch.cat([gather_rows(rows) for _ in range(views)])
    return torch.cat([gather_rows(part) for part in rows.chunk(views)])


@contextmanager
def same_draws(device: torch.device) -> Iterator[None]:
    """Let random draws in the block be those of process 0, in every process.

    The others go on afterwards where their own generators were.
    """
    first = distributed.get_rank() == 0
    cuda = device.type == "cuda"
    own = torch.get_rng_state()
    own_cuda = torch.cuda.get_rng_state(device) if cuda else None
    state = own.clone()
    distributed.broadcast(state, src=0)
    torch.set_rng_state(state)
    if own_cuda is not None:
        moved = own_cuda.clone()
        distributed.broadcast(moved, src=0)
        torch.cuda.set_rng_state(moved, device)
    try:
        yield
    finally:
        if not first:
            torch.set_rng_state(own)
            if own_cuda is not None:
                torch.cuda.set_rng_state(own_cuda, device)
