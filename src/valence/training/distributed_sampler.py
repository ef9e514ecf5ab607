"""Batches divided among processes, which together see the rows one process would see."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from valence.distributed import process_group


class DistributedBatchSampler(Sampler[list[int]]):
    """This process's rows of every batch.

    Process 0 draws the order, as it would alone. Every batch is split into consecutive parts, one
    per process, of which the last may be smaller. A process without a row gets ``~i`` of one,
    which takes no part in the loss (see ``InputCollator``).

    Args:
        sampler: Draws the order of all rows.
        batch_size: Rows of a batch, over all processes.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int) -> None:
        self.sampler = sampler
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        order = process_group.run_on_main_process(lambda: np.fromiter(self.sampler, dtype=np.int64))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            own = np.array_split(batch, process_group.world_size())[process_group.rank()]
            yield own.tolist() or [~int(batch[0])]
