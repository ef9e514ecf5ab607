"""Inference over batches, with several threads on a CPU where that is faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from valence.models.cpu import is_bulk, thread_map

Batch = TypeVar("Batch")
Result = TypeVar("Result")


def run_batches(
    work: Callable[[Batch], Result], batches: Sequence[Batch], *, device: str
) -> Iterator[Result]:
    """Results of ``work`` in the order of ``batches``, without gradients.

    Args:
        work: Runs a network on a batch; called from several threads at once where there are many
            batches and the device is the CPU.
        batches: Arguments of ``work``.
        device: ``cpu``, ``cuda`` or ``mps``.
    """
    autocast = torch.is_autocast_enabled(device)

    def run_batch(batch: Batch) -> Result:
        # both are thread-local settings
        with (
            torch.inference_mode(),
            torch.autocast(device, dtype=torch.bfloat16, enabled=autocast),
        ):
            return work(batch)

    threads = torch.get_num_threads()
    if device != "cpu" or not is_bulk(len(batches), threads):
        yield from map(run_batch, batches)
        return
    torch.set_num_threads(1)
    try:
        yield from thread_map(run_batch, batches, threads=threads)
    finally:
        torch.set_num_threads(threads)
