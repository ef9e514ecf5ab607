"""Processes, sockets and signals: from settings to a server that stops in good order."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess

import uvicorn

from valence.errors import RunError
from valence.serving.app import make_app
from valence.serving.connections import bounded_protocol
from valence.serving.guard import Guard
from valence.serving.metrics import SHARED_FOLDER
from valence.serving.settings import ServeSettings

BACKLOG = 4096
EXTRA_SECONDS = 5  # beyond the time limit of a request, before a stopping server gives up on it
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
RESTART_SECONDS = 1.0
SWITCH_SECONDS = 0.0005
"""How long a model may keep Python's lock from the requests that wait to be read; at Python's own
5 ms, a loaded server reads so slowly that even refusals come late."""
MOST_DRAINS = 20  # a client that never pauses cannot keep a stopping server alive

Started = Callable[[str, int], None]
"""Called with the address and port that are listened at."""


class DrainingServer(uvicorn.Server):
    """A server that answers what is on its way to it before it stops.

    ``/ready`` says no at once. For a short while connections that wait at the socket are
    still taken and answered, each for the last time, until none comes any more; then the
    socket closes, and the process ends when the last accepted request has its answer.
    """

    def __init__(self, config: uvicorn.Config, guard: Guard, drain_seconds: float) -> None:
        super().__init__(config)
        self.guard, self.drain_seconds = guard, drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, close, answer, end."""
        self.guard.draining = True
        seen = -1
        for _ in range(MOST_DRAINS):
            if self.guard.taken == seen:
                break
            seen = self.guard.taken
            await asyncio.sleep(self.drain_seconds)
        await super().shutdown(sockets)


def serve(settings: ServeSettings, started: Started) -> None:
    """Serve until SIGTERM or SIGINT; returns when all accepted requests are answered.

    Args:
        settings: What to serve and how.
        started: Called with the address, once the model is loaded and requests are taken.

    Raises:
        ModelError: if the folder holds no model that can be loaded.
        RunError: if the address cannot be listened at, or a worker does not start.
    """
    listening = bind(settings.host, settings.port)
    with listening:
        host, port = listening.getsockname()[:2]
        if settings.workers > 1:
            _serve_many(settings, listening, lambda: started(host, port))
            return
        guard = make_app(settings)
        started(host, port)
        run_one(settings, guard, listening)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens, so that no request is refused while workers start.

    Raises:
        RunError: if the address is taken or not of this machine.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        raise RunError(f"Cannot listen on {host}:{port}: {reason}; use another --port") from None
    listening.set_inheritable(True)
    return listening


def make_server(settings: ServeSettings, guard: Guard) -> DrainingServer:
    """The server of one process, not yet running."""
    config = uvicorn.Config(
        guard, log_config=None, access_log=False, lifespan="on", ws="none", backlog=BACKLOG,
        http=bounded_protocol(settings.connections), server_header=False, proxy_headers=False,
        h11_max_incomplete_event_size=settings.connections.header_bytes,
        timeout_keep_alive=max(1, round(settings.connections.idle_seconds)),
        timeout_graceful_shutdown=int(settings.limits.timeout_seconds) + EXTRA_SECONDS,
    )  # fmt: skip
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    return DrainingServer(config, guard, settings.drain_seconds)


def run_one(settings: ServeSettings, guard: Guard, listening: socket.socket) -> None:
    """Serve in this process until a signal."""
    server = make_server(settings, guard)
    # The server hands a signal on when it has stopped; by then it has had its effect.
    before = {each: signal.signal(each, lambda *_: None) for each in STOP_SIGNALS}
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        server.run(sockets=[listening])
    finally:
        sys.setswitchinterval(interval)
        for each, handler in before.items():
            signal.signal(each, handler)


def _serve_many(
    settings: ServeSettings, listening: socket.socket, started: Callable[[], None]
) -> None:
    """Several processes on one socket; one that dies is replaced."""
    threads = max(1, (os.cpu_count() or 1) // settings.workers)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    with tempfile.TemporaryDirectory(prefix="valence-metrics-") as folder:
        os.environ[SHARED_FOLDER] = folder
        try:
            _Workers(settings, listening).run(started)
        finally:
            os.environ.pop(SHARED_FOLDER, None)


class _Workers:
    def __init__(self, settings: ServeSettings, listening: socket.socket) -> None:
        self.settings, self.listening = settings, listening
        self.context = multiprocessing.get_context("spawn")
        self.ready = self.context.Semaphore(0)
        self.stop = threading.Event()

    def run(self, started: Callable[[], None]) -> None:
        before = {each: signal.signal(each, lambda *_: self.stop.set()) for each in STOP_SIGNALS}
        workers = [self._start() for _ in range(self.settings.workers)]
        try:
            if self._all_ready(workers):
                started()
                self._keep(workers)
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.join()
            for each, handler in before.items():
                signal.signal(each, handler)

    def _start(self) -> SpawnProcess:
        worker = self.context.Process(
            target=_work, args=(self.settings, self.listening, self.ready), daemon=True
        )
        worker.start()
        return worker

    def _all_ready(self, workers: list[SpawnProcess]) -> bool:
        """Wait for all; a worker that ends first means a model that cannot be loaded."""
        missing = len(workers)
        while missing and not self.stop.is_set():
            if self.ready.acquire(timeout=0.2):
                missing -= 1
            elif any(worker.exitcode is not None for worker in workers):
                raise RunError("A worker did not start; see the reason above, or try --workers 1")
        return not self.stop.is_set()

    def _keep(self, workers: list[SpawnProcess]) -> None:
        while not self.stop.is_set():
            wait([worker.sentinel for worker in workers], timeout=0.5)
            for i, worker in enumerate(workers):
                if worker.exitcode is None or self.stop.is_set():
                    continue
                _say(f"Worker {worker.pid} ended with {worker.exitcode} and was replaced")
                # A model that kills its worker must not do so without a pause.
                if not self.stop.wait(RESTART_SECONDS):
                    workers[i] = self._start()


def _work(settings: ServeSettings, listening: socket.socket, ready: threading.Semaphore) -> None:
    """A worker: load, say so, serve; it ends with its parent, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel
    for each in STOP_SIGNALS:  # before the server minds them, a worker just goes
        signal.signal(each, lambda *_: os._exit(0))
    try:
        guard = make_app(settings)
    except Exception as error:
        _say(f"Error: {error}")
        sys.exit(3)
    threading.Thread(target=_end_with, args=(sentinel,), daemon=True).start()
    ready.release()
    run_one(settings, guard, listening)


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
