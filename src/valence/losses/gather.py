"""The whole batch in every process: rows are gathered before the loss.

With several processes each computes a part of a batch. Before the loss all parts are gathered,
so that every process computes the same loss of the same rows, and the buffers of a loss stay
the same everywhere. The gradient is that of a single process: each process back-propagates to
its own rows only, times the number of processes, and ``DistributedDataParallel`` takes the
mean; the parameters of a loss have the whole gradient in every process already.
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


def is_distributed() -> bool:
    """Whether this process trains together with others."""
    return distributed.is_available() and distributed.is_initialized() and _world_size() > 1


def _world_size() -> int:
    return distributed.get_world_size()


def gather_rows(rows: Tensor) -> Tensor:
    """The rows (N, …) of all processes in rank order; of a single process, its own.

    The gradient is right for a loss that every process computes alike from all rows.

    Args:
        rows: (n, …) of this process; n may differ between processes, and be 0.
    """
    if not is_distributed():
        return rows
    gathered: Tensor = _Gathered.apply(rows, _sizes(rows))  # type: ignore[no-untyped-call]
    return gathered


def _sizes(rows: Tensor) -> list[int]:
    own = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.zeros_like(own) for _ in range(_world_size())]
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
        return own * _world_size(), None


def full_batch_loss(loss: Loss, output: ModelOutput, labels: Tensor, *, views: int = 1) -> Tensor:
    """The loss of the whole batch, a scalar, the same in every process.

    Args:
        loss: Called with the rows of all processes, in the order one process would give them.
        output: What this process computed for its B rows. Of several processes, the loss gets
            logits, features and class rows; token states are not gathered.
        labels: (B,) class ids; rows with ``IGNORE_INDEX`` take no part.
        views: How often a text is in the batch: all first views, then all second ones.
    """
    if not is_distributed():
        local: Tensor = loss(output, labels)
        return local
    labeled = torch.ones_like(labels, dtype=torch.bool)
    if not labels.is_floating_point():  # an intensity may have any value
        labeled = labels != IGNORE_INDEX
    whole = replace(
        output,
        logits=_gather_views(output.logits.float()[labeled], views),
        features=_gather_views(output.features.float()[labeled], views),
        token_states=None,
        attention_mask=None,
    )
    truth = _gather_views(labels[labeled], views)
    with shared_rng(labels.device):
        total: Tensor = loss(whole, truth)
    return total


def _gather_views(rows: Tensor, views: int) -> Tensor:
    """The gathered rows, the first views of all texts before the second ones."""
    if not len(rows):  # nothing to split, but every process must take part in each gather
        return torch.cat([gather_rows(rows) for _ in range(views)])
    return torch.cat([gather_rows(part) for part in rows.chunk(views)])


@contextmanager
def shared_rng(device: torch.device) -> Iterator[None]:
    """Use the random state of process 0 in every process while the block runs.

    The other processes restore their own state afterwards.
    """
    first = distributed.get_rank() == 0
    cuda = device.type == "cuda"
    own = torch.get_rng_state()
    own_cuda = torch.cuda.get_rng_state(device) if cuda else None
    state = own.clone()
    distributed.broadcast(state, src=0)
    torch.set_rng_state(state)
    if own_cuda is not None:
        cuda_state = own_cuda.clone()
        distributed.broadcast(cuda_state, src=0)
        torch.cuda.set_rng_state(cuda_state, device)
    try:
        yield
    finally:
        if not first:
            torch.set_rng_state(own)
            if own_cuda is not None:
                torch.cuda.set_rng_state(own_cuda, device)
