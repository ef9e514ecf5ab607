"""Journals of a tuning study: torn lines of a machine that was switched off are cut off.

A record that was half written has no end, and the next one that a machine appends goes onto its
line; Optuna then reads neither, and the study can never be opened again.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from valence.storage.atomic import reason_of

LOG = logging.getLogger("valence.tuning")
RECORD = b'{"op_code"'
"""The beginning of every record of a journal."""


def open_journal(path: Path) -> Any:
    """Optuna's storage of a journal, whose torn lines are cut off first and said."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and _torn_parts(path.read_bytes()):
        lock = JournalFileSymlinkLock(str(path))
        lock.acquire()  # a line without an end may be one that is just being written
        try:
            torn = cut_torn_lines(path)
        except OSError as error:
            LOG.warning("Incomplete lines of %s cannot be removed: %s", path, reason_of(error))
            torn = 0
        finally:
            lock.release()
        if torn:
            LOG.warning("Note: %d incomplete lines of %s were removed", torn, path)
    return JournalStorage(JournalFileBackend(str(path)))


def cut_torn_lines(path: Path) -> int:
    """Blank what is no record, at the end cut it off; how many pieces there were.

    The file keeps its length up to there: other processes remember places in it.
    """
    raw = path.read_bytes()
    torn = _torn_parts(raw)
    if not torn:
        return 0
    with path.open("r+b") as file:
        for start, end in torn:
            if end == len(raw):
                file.truncate(start)
                continue
            file.seek(start)
            file.write(b" " * (end - start))
        file.flush()
        os.fsync(file.fileno())
    return len(torn)


def _torn_parts(raw: bytes) -> list[tuple[int, int]]:
    """From where to where there is something that belongs to no record."""
    parts: list[tuple[int, int]] = []
    at = 0
    for line in raw.splitlines(keepends=True):
        start, at = at, at + len(line)
        if line.endswith(b"\n") and _is_record(line):
            continue
        # What another machine has appended to a torn record is whole.
        whole = line.find(RECORD, 1)
        while whole >= 0 and not (line.endswith(b"\n") and _is_record(line[whole:])):
            whole = line.find(RECORD, whole + 1)
        parts.append((start, at if whole < 0 else start + whole))
    return parts


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
