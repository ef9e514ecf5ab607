"""Opening SQLite files to read them, wherever they lie."""

from __future__ import annotations

import os
from urllib.parse import quote

WAL_MARK = slice(18, 20)
"""Two bytes of the header; both are 2 under write-ahead logging."""


def is_sealed(file: str) -> bool:
    """Whether a file needs a log beside it that cannot be made, and has none."""
    if os.access(os.path.dirname(os.path.abspath(file)), os.W_OK):
        return False
    log = f"{file}-wal"
    with open(file, "rb") as stream:
        header = stream.read(WAL_MARK.stop)
    return header[WAL_MARK] == b"\x02\x02" and not (os.path.exists(log) and os.path.getsize(log))


def reading_uri(file: str) -> str:
    """A ``file:`` URI under which SQLite opens a file to read it, wherever it lies.

    Where the folder can be written, SQLite may: it clears away the log and the index that reading
    a file under write-ahead logging needs. Set ``PRAGMA query_only`` on the connection.
    """
    path = os.path.abspath(file)
    if os.access(path, os.W_OK) and os.access(os.path.dirname(path), os.W_OK):
        return f"file:{quote(path)}?mode=rw"
    return f"file:{quote(path)}?mode=ro{'&immutable=1' if is_sealed(path) else ''}"
