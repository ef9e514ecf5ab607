"""Cells in this process, or in several of this machine.

The processes are loky's: started anew and not forked, with their share of the threads in the
environment, since a library that is loaded already does not look there again. Each is an
executor of one process: loky ends all processes of an executor when one of them dies, and
would not say whose work that was.
"""

from __future__ import annotations

import re
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from valence.comparison.executors.base import FINAL, RETRIES, Batch, OnEvent, RunEvent
from valence.comparison.executors.worker import begin, run_cell
from valence.distributed.ray_cluster import THREAD_VARIABLES
from valence.models.cpu import usable_cores

LAST_WORDS_BYTES = 2000


class InProcess:
    """One cell after another, here."""

    def run(self, batch: Batch, on_event: OnEvent) -> None:
        """As :class:`valence.comparison.executors.base.Executor`."""
        from valence.comparison.executors.cells import CellRunner

        runner = CellRunner(batch.root, batch.data_dir, batch.track)
        try:
            for number, spec in enumerate(batch.specs):
                runner.run(spec, lambda event, number=number: on_event(number, event))  # type: ignore[misc]
        finally:
            runner.close()


@dataclass(frozen=True)
class ProcessPool:
    """So many cells at a time, each in a process of its own.

    Attributes:
        workers: Processes; the usable cores are shared out among them.
    """

    workers: int

    def run(self, batch: Batch, on_event: OnEvent) -> None:
        """As :class:`valence.comparison.executors.base.Executor`."""
        pool = _Pool(batch, on_event, self.workers)
        with warnings.catch_warnings():
            # loky says when it renews a process that has grown; no cell is lost by it.
            warnings.filterwarnings("ignore", category=UserWarning, module="loky")
            try:
                pool.work()
            finally:
                pool.stop()


class _Pool:
    """The workers of a pool while they work on a batch."""

    def __init__(self, batch: Batch, on_event: OnEvent, most: int) -> None:
        from valence.comparison.executors.cells import DependencyQueue

        self.batch = batch
        self.on_event = on_event
        self.most = most
        self.threads = max(1, usable_cores() // most)
        self.queue = DependencyQueue(batch.specs)
        self.workers: list[_Worker] = []
        self.lost: dict[int, int] = {}

    def work(self) -> None:
        self._hand_out()
        while busy := [worker for worker in self.workers if worker.number is not None]:
            ready = set(wait([end for worker in busy for end in worker.ends]))
            for worker in busy:
                if not ready.isdisjoint(worker.ends):
                    self._receive(worker)
            self._hand_out()

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()

    def _receive(self, worker: _Worker) -> None:
        """Pass on the events of a worker; take its cell from it at the end."""
        assert worker.number is not None
        number, done = worker.number, worker.is_done()  # its earlier events are there by then
        for event in worker.events():
            self.on_event(number, event)
        if not done:
            return
        worker.number = None
        lost = worker.lost()
        if lost:
            self._lose(worker, number, lost)
        else:
            self._emit(number, worker.result())

    def _emit(self, number: int, event: RunEvent) -> None:
        self.on_event(number, event)
        if event.status in FINAL:
            self.queue.finished(number)

    def _hand_out(self) -> None:
        """Give every idle worker a cell, and begin a worker where one is missing for a cell."""
        while self.queue.ready:
            worker = next((w for w in self.workers if w.number is None), None)
            if worker is None and len(self.workers) == self.most:
                return
            if worker is None:
                worker = _Worker(self.threads)
                self.workers.append(worker)
            number = self.queue.take()
            assert number is not None
            if not worker.give(number, self.batch):  # it died while it had no cell
                self._remove(worker)
                self.queue.ready.appendleft(number)

    def _remove(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        worker.stop()

    def _lose(self, worker: _Worker, number: int, reason: str) -> None:
        """The cell of a lost worker waits again, unless it was the end of several."""
        self._remove(worker)
        self.lost[number] = self.lost.get(number, 0) + 1
        if self.lost[number] > RETRIES:
            message = f"its worker was lost {self.lost[number]} times, last reason: {reason}"
            self._emit(number, RunEvent("failed", message=message))
            return
        self._emit(number, RunEvent("retried", message=f"worker lost ({reason}), run again"))
        self.queue.ready.appendleft(number)


class _Worker:
    """An executor of one process, the cell it is at, and the two connections it sends through."""

    def __init__(self, threads: int) -> None:
        from loky.process_executor import ProcessPoolExecutor

        self.number: int | None = None
        self.future: Future[RunEvent] | None = None
        self.output = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by stop
        self.incoming, self.outgoing = Pipe()
        self.done, self.at_end = Pipe(duplex=False)
        self.ends: tuple[Connection, ...] = (self.incoming, self.done)
        self.executor = ProcessPoolExecutor(
            max_workers=1, initializer=begin, initargs=(self.outgoing, self.output.name),
            env=dict.fromkeys(THREAD_VARIABLES, str(threads)),
        )  # fmt: skip

    def give(self, number: int, batch: Batch) -> bool:
        """Begin a cell; False where the process is gone."""
        from loky.process_executor import BrokenProcessPool

        data_dir = None if batch.data_dir is None else str(batch.data_dir)
        try:
            with _no_interrupt():
                self.future = self.executor.submit(
                    run_cell, batch.specs[number], str(batch.root), data_dir, batch.track
                )
        except BrokenProcessPool:
            return False
        self.number = number
        self.future.add_done_callback(lambda _: self.at_end.send(None))
        return True

    def is_done(self) -> bool:
        """Whether the cell is at its end; read once for each."""
        if not self.done.poll():
            return False
        self.done.recv()
        return True

    def events(self) -> Iterator[RunEvent]:
        """Events that have not been read yet."""
        while self.incoming.poll():
            yield self.incoming.recv()

    def lost(self) -> str:
        """How the process died; empty where it did not."""
        from loky.process_executor import BrokenProcessPool

        assert self.future is not None
        error = self.future.exception()
        if not isinstance(error, BrokenProcessPool):
            return ""
        codes = re.search(r"exit codes of the workers are {(.+)}", str(error))
        how = codes[1] if codes else str(error).partition("\n")[0]
        words = self._last_words() if "EXIT" in how else ""
        return f"{how}: {words}" if words else how

    def result(self) -> RunEvent:
        """The last event of the cell; what broke outside it makes it fail."""
        assert self.future is not None
        error = self.future.exception()
        if error is None:
            return self.future.result()
        return RunEvent("failed", message=f"{type(error).__name__}: {error}".partition("\n")[0])

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.executor.shutdown(wait=True, kill_workers=True)
        for end in (*self.ends, self.outgoing, self.at_end):
            end.close()
        self.output.close()

    def _last_words(self) -> str:
        with open(self.output.name, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - LAST_WORDS_BYTES))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ctrl-C waits while the block runs; a process that is started in it never gets it."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
