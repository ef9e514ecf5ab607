"""What a process of a pool does; it loads nothing heavy before its output is put aside.

A worker gets its cells from loky, and sends events on the way over a connection of its own.
When the other end of that is closed, the pool is gone and so is the worker.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from valence.comparison.executors.base import RunEvent
    from valence.comparison.executors.cells import CellRunner
    from valence.config.spec import RunSpec

_pool: list[Connection] = []  # the connection of this process, once it has begun


def begin(connection: Connection, output: str) -> None:
    """Get ready: ignore Ctrl-C, put what libraries print aside, end with the pool.

    Args:
        connection: For events; nothing comes in but its end.
        output: File that gets stdout and stderr.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that decides
    if sys.platform != "win32":
        # Out of the terminal's reach, and with a share of the processor of its own: Linux shares
        # it out among sessions first.
        os.setsid()
    aside = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(aside, stream)
    os.close(aside)
    _pool[:] = [connection]
    Thread(target=_end_with_pool, args=(connection,), daemon=True).start()


def run_cell(spec: RunSpec, root: str, data_dir: str | None, track: str | None = None) -> RunEvent:
    """Run a cell; the events on the way go over the connection, and the last is returned."""
    from valence.comparison.executors.base import FINAL

    final: list[RunEvent] = []

    def emit(event: RunEvent) -> None:
        if event.status in FINAL:
            final.append(event)
            return
        with suppress(OSError):  # the pool is gone, and this process in a moment
            _pool[0].send(event)

    _runner(root, data_dir, track).run(spec, emit)
    return final[0]


@lru_cache(maxsize=1)
def _runner(root: str, data_dir: str | None, track: str | None) -> CellRunner:
    """Kept between the cells of a process, with the rows it has read."""
    from valence.comparison.executors.cells import CellRunner

    return CellRunner(Path(root), data_dir, track)


def _end_with_pool(connection: Connection) -> None:
    with suppress(EOFError, OSError):
        connection.recv()
    os._exit(0)  # in the middle of a cell too: nobody would get its result
