"""Batches of an encoder, on the processor by several threads where that is faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from valence.models.cpu import is_bulk, spread

Batch = TypeVar("Batch")
Result = TypeVar("Result")


def inferred(
    work: Callable[[Batch], Result], batches: Sequence[Batch], *, device: str
) -> Iterator[Result]:
    """Results of ``work`` in the order of ``batches``, without gradients.

    Args:
        work: Runs a network on a batch; called from several threads at once where there are many
            batches and the device is the processor.
        batches: What it is given.
        device: ``cpu``, ``cuda`` or ``mps``.
    """
    autocast = torch.is_autocast_enabled(device)

    def alone(batch: Batch) -> Result:
        # both are settings of a thread
        with (
            torch.inference_mode(),
            torch.autocast(device, dtype=torch.bfloat16, enabled=autocast),
        ):
            return work(batch)

    threads = torch.get_num_threads()
    if device != "cpu" or not is_bulk(len(batches), threads):
        yield from map(alone, batches)
        return
    torch.set_num_threads(1)
    try:
        yield from spread(alone, batches, threads=threads)
    finally:
        torch.set_num_threads(threads)
