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
EVENT_SECONDS = 1.0  # between two events of a cell, which cross the network


@dataclass(frozen=True)
class RayTasks:
    """Every cell a task; Ray decides where and when.

    Attributes:
        cluster: Which, and what a cell asks of it.
    """

    cluster: Cluster

    def run(self, batch: Batch, on_event: OnEvent) -> None:
        """As :class:`valence.comparison.executors.base.Executor`.

        Raises:
            RunError: if there is no Ray, no cluster or no room for a cell.
        """
        with connected(self.cluster) as ray:
            self.cluster.room(ray)
            tasks = _Tasks(ray, self.cluster, batch, on_event)
            try:
                tasks.work()
            finally:
                tasks.stop()


@dataclass(frozen=True)
class _Order:
    """What a task is given: plain values, since another machine reads them."""

    number: int
    spec: str
    root: str
    data_dir: str | None
    folder: str
    threads: int
    track: str | None


class _Tasks:
    """The tasks of a batch."""

    def __init__(self, ray: Any, cluster: Cluster, batch: Batch, on_event: OnEvent) -> None:
        from valence.comparison.executors.cells import DependencyQueue

        self.ray = ray
        self.cluster = cluster
        self.batch = batch
        self.on_event = on_event
        self.queue = DependencyQueue(batch.specs)
        self.running: dict[Any, int] = {}
        self.lost: dict[int, int] = {}
        self.actor = ray.remote(num_cpus=0, max_restarts=-1)(EventQueue).remote()
        # Ray's own retries are off: they would not say which cell was run again.
        self.task = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=0)(work)

    def work(self) -> None:
        self._submit_ready()
        while self.running:
            done, _ = self.ray.wait(list(self.running), timeout=POLL_SECONDS)
            for number, event in self._events():
                if number in self.running.values():
                    self.on_event(number, event)
            for task in done:
                self._end(task)
            self._submit_ready()

    def stop(self) -> None:
        for task in self.running:
            with suppress(Exception):  # one that has just ended cannot be stopped
                self.ray.cancel(task, force=True)
        with suppress(Exception):
            self.ray.kill(self.actor)

    def _submit_ready(self) -> None:
        while (self.cluster.workers is None or len(self.running) < self.cluster.workers) and (
            number := self.queue.take()
        ) is not None:
            self._submit(number)

    def _submit(self, number: int) -> None:
        data_dir = self.batch.data_dir
        order = _Order(
            number, self.batch.specs[number].model_dump_json(),
            str(self.batch.root.absolute()),
            None if data_dir is None else str(Path(data_dir).absolute()),
            os.getcwd(), self.cluster.threads, self.batch.track,
        )  # fmt: skip
        self.running[self.task.remote(order, self.actor)] = number

    def _end(self, task: Any) -> None:
        number = self.running.pop(task)
        try:
            event = self.ray.get(task)
        except self.ray.exceptions.RayTaskError as error:
            # The cell itself never raises, so its machine has no Valence, or another one.
            event = RunEvent("failed", message=_reason(error))
        except self.ray.exceptions.RayError as error:
            self.lost[number] = self.lost.get(number, 0) + 1
            if self.lost[number] <= RETRIES:
                message = f"worker lost ({type(error).__name__}), run again"
                self.on_event(number, RunEvent("retried", message=message))
                self._submit(number)
                return
            message = f"its worker was lost {self.lost[number]} times: {_reason(error)}"
            event = RunEvent("failed", message=message)
        self.on_event(number, event)
        self.queue.finished(number)

    def _events(self) -> list[tuple[int, RunEvent]]:
        """Events since the last call; none where the machine that keeps them is lost."""
        try:
            events: list[tuple[int, RunEvent]] = self.ray.get(self.actor.take.remote(), timeout=30)
        except self.ray.exceptions.RayError:
            return []
        return events


class EventQueue:
    """Events of the tasks, until the driver takes them."""

    def __init__(self) -> None:
        self.events: list[tuple[int, RunEvent]] = []

    def put(self, number: int, event: RunEvent) -> None:
        """Add an event of a cell."""
        self.events.append((number, event))

    def take(self) -> list[tuple[int, RunEvent]]:
        """All events since the last call."""
        events, self.events = self.events, []
        return events


def work(order: _Order, queue: Any) -> RunEvent:
    """Run one cell on the machine Ray chose.

    Args:
        order: The cell.
        queue: The actor that takes the events on the way.

    Returns:
        The final event.
    """
    use_threads(order.threads)
    if os.path.isdir(order.folder):
        os.chdir(order.folder)  # names of files in a spec may be relative
    import torch

    from valence.methods.registry import parse_spec

    torch.set_num_threads(order.threads)  # where an earlier task loaded it with others
    final: list[RunEvent] = []
    last = 0.0

    def emit(event: RunEvent) -> None:
        nonlocal last
        if event.status in FINAL:
            final.append(event)
        elif event.status != "progress" or time.monotonic() - last > EVENT_SECONDS:
            last = time.monotonic()
            queue.put.remote(order.number, event)

    _runner(order.root, order.data_dir, order.track).run(parse_spec(json.loads(order.spec)), emit)
    return final[0]


@lru_cache(maxsize=1)
def _runner(root: str, data_dir: str | None, track: str | None) -> CellRunner:
    """Kept between the tasks of a process, with the rows it has read."""
    from valence.comparison.executors.cells import CellRunner

    return CellRunner(Path(root), data_dir, track)


def _reason(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines() or [repr(cause)]
    return lines[0]
