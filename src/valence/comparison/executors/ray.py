"""Cells as tasks of a Ray cluster.

The run store is a folder that all machines see under the same path, as is what a spec names.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valence.comparison.executors.base import FINAL, RETRIES, Batch, OnEvent, RunEvent
from valence.distributed.ray_cluster import Cluster, connected, use_threads

if TYPE_CHECKING:
    from valence.comparison.executors.cells import CellRunner

POLL_SECONDS = 0.5
NEWS_SECONDS = 1.0  # between two lines of a cell, which cross the network


@dataclass(frozen=True)
class RayTasks:
    """Every cell a task; Ray decides where and when.

    Attributes:
        cluster: Which, and what a cell asks of it.
    """

    cluster: Cluster

    def run(self, batch: Batch, hear: OnEvent) -> None:
        """As :class:`valence.comparison.executors.base.Executor`.

        Raises:
            RunError: if there is no Ray, no cluster or no room for a cell.
        """
        with connected(self.cluster) as ray:
            self.cluster.room(ray)
            tasks = _Tasks(ray, self.cluster, batch, hear)
            try:
                tasks.work()
            finally:
                tasks.stop()


@dataclass(frozen=True)
class _Order:
    """What a task is told: plain values, since another machine reads them."""

    number: int
    spec: str
    root: str
    data_dir: str | None
    folder: str
    threads: int


class _Tasks:
    """The tasks of a batch."""

    def __init__(self, ray: Any, cluster: Cluster, batch: Batch, hear: OnEvent) -> None:
        from valence.comparison.executors.cells import DependencyQueue

        self.ray = ray
        self.cluster = cluster
        self.batch = batch
        self.hear = hear
        self.lanes = DependencyQueue(batch.specs)
        self.running: dict[Any, int] = {}
        self.lost: dict[int, int] = {}
        self.board = ray.remote(num_cpus=0, max_restarts=-1)(ProgressTable).remote()
        # Ray's own retries are off: they would not say which cell was run again.
        self.task = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=0)(work)

    def work(self) -> None:
        self._submit_ready()
        while self.running:
            done, _ = self.ray.wait(list(self.running), timeout=POLL_SECONDS)
            for number, news in self._news():
                if number in self.running.values():
                    self.hear(number, news)
            for task in done:
                self._end(task)
            self._submit_ready()

    def stop(self) -> None:
        for task in self.running:
            with suppress(Exception):  # one that has just ended cannot be stopped
                self.ray.cancel(task, force=True)
        with suppress(Exception):
            self.ray.kill(self.board)

    def _submit_ready(self) -> None:
        while (self.cluster.workers is None or len(self.running) < self.cluster.workers) and (
            number := self.lanes.take()
        ) is not None:
            self._submit(number)

    def _submit(self, number: int) -> None:
        data_dir = self.batch.data_dir
        order = _Order(
            number, self.batch.specs[number].model_dump_json(),
            str(self.batch.root.absolute()),
            None if data_dir is None else str(Path(data_dir).absolute()),
            os.getcwd(), self.cluster.threads,
        )  # fmt: skip
        self.running[self.task.remote(order, self.board)] = number

    def _end(self, task: Any) -> None:
        number = self.running.pop(task)
        try:
            news = self.ray.get(task)
        except self.ray.exceptions.RayTaskError as error:
            # The cell itself never raises, so its machine has no Valence, or another one.
            news = RunEvent("failed", words=_reason(error))
        except self.ray.exceptions.RayError as error:
            self.lost[number] = self.lost.get(number, 0) + 1
            if self.lost[number] <= RETRIES:
                words = f"worker lost ({type(error).__name__}), run again"
                self.hear(number, RunEvent("again", words=words))
                self._submit(number)
                return
            words = f"its worker was lost {self.lost[number]} times: {_reason(error)}"
            news = RunEvent("failed", words=words)
        self.hear(number, news)
        self.lanes.finished(number)

    def _news(self) -> list[tuple[int, RunEvent]]:
        """What the cells said; nothing where the machine that keeps it is lost."""
        try:
            found: list[tuple[int, RunEvent]] = self.ray.get(self.board.take.remote(), timeout=30)
        except self.ray.exceptions.RayError:
            return []
        return found


class ProgressTable:
    """Where tasks leave what they have to say."""

    def __init__(self) -> None:
        self.news: list[tuple[int, RunEvent]] = []

    def tell(self, number: int, news: RunEvent) -> None:
        """Leave news of a cell."""
        self.news.append((number, news))

    def take(self) -> list[tuple[int, RunEvent]]:
        """All news since the last call."""
        found, self.news = self.news, []
        return found


def work(order: _Order, board: Any) -> RunEvent:
    """Run one cell on the machine Ray chose.

    Args:
        order: The cell.
        board: The actor for what is said on the way.

    Returns:
        The final news.
    """
    use_threads(order.threads)
    if os.path.isdir(order.folder):
        os.chdir(order.folder)  # names of files in a spec may be relative
    import torch

    from valence.methods.registry import parse_spec

    torch.set_num_threads(order.threads)  # where an earlier task loaded it with others
    final: list[RunEvent] = []
    last = 0.0

    def tell(news: RunEvent) -> None:
        nonlocal last
        if news.kind in FINAL:
            final.append(news)
        elif news.kind != "going" or time.monotonic() - last > NEWS_SECONDS:
            last = time.monotonic()
            board.tell.remote(order.number, news)

    _desk(order.root, order.data_dir).run(parse_spec(json.loads(order.spec)), tell)
    return final[0]


@lru_cache(maxsize=1)
def _desk(root: str, data_dir: str | None) -> CellRunner:
    """Kept between the tasks of a process, with the rows it has read."""
    from valence.comparison.executors.cells import CellRunner

    return CellRunner(Path(root), data_dir)


def _reason(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines() or [repr(cause)]
    return lines[0]
