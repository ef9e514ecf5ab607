"""Processor cores of this machine, and work distributed over them."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

QUOTA = Path("/sys/fs/cgroup/cpu.max")
BULK = 4
"""Batches per thread from which whole batches are distributed over the threads."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Cores this process may use: a container's quota and ``OMP_NUM_THREADS`` count.

    Libraries that count the cores of the machine instead start too many threads, which then
    wait for each other.
    """
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads) > 0:
        return int(threads)
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = QUOTA.read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    return cores


def is_bulk(batches: int, threads: int) -> bool:
    """Whether to give every thread batches of its own rather than a part of each batch.

    Threads that share a batch wait for each other after every operation, which costs a tenth on
    an idle machine and half on a busy one; with few batches some threads would have none.
    """
    return threads > 1 and batches >= BULK * threads


def thread_map(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int
) -> Iterator[Result]:
    """Results of ``work`` in the order of ``items``, computed by ``threads`` threads.

    At most ``threads + 2`` items are in flight; an error cancels the rest.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, "valence-batch") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
