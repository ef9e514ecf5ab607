"""What tests do to worker processes: find this session's own, and kill one."""

from __future__ import annotations

import os
import signal

import psutil


def workers(word: str) -> list[int]:
    """Processes below this one whose command line or title has ``word``."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if word in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue  # it has just ended
    return found


def kill_all(word: str) -> int:
    """SIGKILL to each of :func:`workers`; how many there were."""
    pids = workers(word)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return len(pids)
