"""Cells in this process, or in several of this machine.

The processes of a pool are started anew and not forked, with their share of the threads in the
environment: a library that is loaded already does not look there again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from queue import SimpleQueue
from threading import Thread

from valence.comparison.executors.base import FINAL, RETRIES, Batch, OnEvent, RunEvent, Sizes
from valence.comparison.executors.cells import CellRunner, DependencyQueue
from valence.distributed.ray_cluster import THREAD_VARIABLES
from valence.models.cpu import usable_cores


class InProcess:
    """One cell after another, here."""

    def run(self, batch: Batch, hear: OnEvent) -> None:
        """As :class:`valence.comparison.executors.base.Executor`."""
        runner = CellRunner(batch.root, batch.data_dir)
        for number, spec in enumerate(batch.specs):
            runner.run(spec, lambda news, number=number: hear(number, news))  # type: ignore[misc]


@dataclass(frozen=True)
class ProcessPool:
    """So many cells at a time, each in a process of its own.

    Attributes:
        workers: Processes; the usable cores are shared out among them.
    """

    workers: int

    def run(self, batch: Batch, hear: OnEvent) -> None:
        """As :class:`valence.comparison.executors.base.Executor`."""
        shift = _Shift(batch, hear, self.workers)
        try:
            shift.work()
        finally:
            shift.stop()


class _Shift:
    """The workers of a pool while they work on a batch."""

    def __init__(self, batch: Batch, hear: OnEvent, most: int) -> None:
        self.batch = batch
        self.hear = hear
        self.most = most
        self.threads = max(1, usable_cores() // most)
        self.lanes = DependencyQueue(batch.specs)
        self.inbox: SimpleQueue[tuple[_Worker, RunEvent | None]] = SimpleQueue()
        self.workers: list[_Worker] = []
        self.lost: dict[int, int] = {}

    def work(self) -> None:
        self._hand_out()
        while any(worker.number is not None for worker in self.workers):
            worker, news = self.inbox.get()
            if news is None:
                self._lose(worker)
            elif worker.number is not None:
                self._hear(worker.number, news)
                if news.kind in FINAL:
                    worker.number = None
            self._hand_out()

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()

    def _hear(self, number: int, news: RunEvent) -> None:
        self.hear(number, news)
        if news.kind in FINAL:
            self.lanes.finished(number)

    def _hand_out(self) -> None:
        """Give every idle worker a cell, and begin a worker where one is missing for a cell."""
        while self.lanes.ready:
            worker = next((w for w in self.workers if w.number is None), None)
            if worker is None and len(self.workers) == self.most:
                return
            if worker is None:
                worker = _Worker(self.batch, self.threads, self.inbox)
                self.workers.append(worker)
            number = self.lanes.take()
            assert number is not None
            worker.give(number, self.batch)

    def _lose(self, worker: _Worker) -> None:
        """The cell of a lost worker waits again, unless it was the end of several."""
        self.workers.remove(worker)
        number, reason = worker.number, worker.stop()
        if number is None:
            return
        self.lost[number] = self.lost.get(number, 0) + 1
        if self.lost[number] > RETRIES:
            words = f"its worker was lost {self.lost[number]} times, at last: {reason}"
            self._hear(number, RunEvent("failed", words=words))
            return
        self._hear(number, RunEvent("again", words=f"worker lost ({reason}), run again"))
        self.lanes.ready.appendleft(number)


class _Worker:
    """A process that runs cells; see ``valence.comparison.executors.worker`` for what it does."""

    def __init__(
        self, batch: Batch, threads: int, inbox: SimpleQueue[tuple[_Worker, RunEvent | None]]
    ) -> None:
        self.number: int | None = None
        self.inbox = inbox
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the worker is stopped
        self.process = subprocess.Popen(
            [sys.executable, "-m", "valence.comparison.executors.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            encoding="utf-8", start_new_session=True,  # Ctrl-C is for the one that decides
            env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))},
        )  # fmt: skip
        data_dir = None if batch.data_dir is None else str(batch.data_dir)
        self._send({"root": str(batch.root), "data_dir": data_dir})
        self.reader = Thread(target=self._read, daemon=True)
        self.reader.start()

    def give(self, number: int, batch: Batch) -> None:
        self.number = number
        self._send({"spec": batch.specs[number].model_dump_json()})

    def stop(self) -> str:
        """Kill the process if it still runs; how it ended."""
        if self.process.poll() is None and self.reader.is_alive():
            self.process.kill()
        code = self.process.wait()
        self.reader.join()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(OSError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.errors.seek(0)
        said = self.errors.read().decode("utf-8", "replace").strip().splitlines()
        self.errors.close()
        return f"signal {-code}" if code < 0 else f"exit {code}: {(said or ['no words'])[-1]}"

    def _send(self, message: dict[str, str | None]) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # that it is gone is seen at the other pipe
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.inbox.put((self, parse_event(line)))
        self.inbox.put((self, None))


def parse_event(line: str) -> RunEvent:
    """The news of a line that :func:`write_event` wrote."""
    values = json.loads(line)
    if values["sizes"] is not None:
        values["sizes"] = Sizes(*values["sizes"])
    return RunEvent(**values)


def write_event(news: RunEvent) -> str:
    """RunEvent as a line."""
    return json.dumps(asdict(news)) + "\n"
