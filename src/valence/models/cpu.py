"""What this machine offers a prediction: processor cores, and work spread over them."""

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
"""Batches per thread from which whole batches are spread over the threads."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Cores this process may use: a container's quota and ``OMP_NUM_THREADS`` count.

    Libraries that look at the machine instead start more threads than there are cores, which
    then wait for each other.
    """
    named = os.environ.get("OMP_NUM_THREADS", "")
    if named.isdecimal() and int(named) > 0:
        return int(named)
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = QUOTA.read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    return cores


def is_bulk(batches: int, threads: int) -> bool:
    """Whether to give every thread batches of its own rather than a share of each batch.

    Threads that share a batch wait for each other after every operation, which costs a tenth on
    an idle machine and half on a busy one; with few batches some threads would have none.
    """
    return threads > 1 and batches >= BULK * threads


def spread(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int
) -> Iterator[Result]:
    """Results of ``work`` in the order of ``items``, computed by so many threads.

    At most two items more than threads are held; an error ends the rest.
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
