"""One process of this machine at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from valence.errors import ValenceError


@contextmanager
def locked(path: Path, busy: ValenceError | None = None) -> Iterator[None]:
    """Keep other processes of this machine out while the block runs; a kill lets them in.

    Args:
        path: A file that stands for what is locked; it is gone afterwards.
        busy: Raised where another process is in; when None, it is waited for.

    Raises:
        OSError: if the file cannot be made.
    """
    try:
        import fcntl
    except ImportError:  # Windows: nobody is kept out there
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    how = fcntl.LOCK_EX if busy is None else fcntl.LOCK_EX | fcntl.LOCK_NB
    lock = path.open("a")
    try:
        while True:
            try:
                fcntl.flock(lock, how)
            except BlockingIOError:
                if busy is not None:
                    raise busy from None
                raise
            except OSError:  # a file system without locks
                break
            if _is_at(lock, path):
                break
            lock.close()  # its last owner took it away meanwhile
            lock = path.open("a")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        lock.close()


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
