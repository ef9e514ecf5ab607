"""The commands of a document, and how a test gives them."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from itertools import pairwise
from urllib.parse import urlsplit

import pytest

from tests.conftest import ROOT
from valence import cli

FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


def page(path: str) -> str:
    """The text of a document, by its path in the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def blocks(path: str, kind: str = "") -> list[str]:
    """The fences of a document that name this language; those that name none hold commands."""
    return [block for named, block in FENCE.findall(page(path)) if named == kind]


def commands(path: str) -> list[str]:
    """Every command of a document, in its order; one may go on behind a backslash."""
    lines = [
        line.partition("#")[0]
        for block in blocks(path)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [" ".join(line.split()) for line in lines if line.strip()]


def give(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command line in this process; the exit code."""
    monkeypatch.setattr(sys, "argv", list(words))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def serve_and_ask(
    command: str, curls: Sequence[str], monkeypatch: pytest.MonkeyPatch, key: str = "none"
) -> tuple[int, list[int]]:
    """Serve in the main thread, as in a process of its own; exit code, and status per curl."""
    from tests.serving import START_SECONDS, wait_for

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [*shlex.split(command.replace("--workers 2", "--workers 1")), "--port", str(port)]
    statuses: list[int] = []
    over = threading.Event()

    def visit() -> None:
        try:
            wait_for(lambda: over.is_set() or _is_ready(port), START_SECONDS)
            statuses.extend(curl(one, port, key) for one in curls)
        finally:
            if not over.is_set():
                os.kill(os.getpid(), signal.SIGTERM)

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        code = give(words, monkeypatch)
    finally:
        over.set()
        visitor.join()
    return code, statuses


def curl(command: str, port: int, key: str) -> int:
    """The status of a request written for curl."""
    words = shlex.split(command)
    headers = dict(w.split(": ", 1) for f, w in pairwise(words) if f == "-H")
    headers["Authorization"] = f"Bearer {key}"
    body = words[words.index("-d") + 1] if "-d" in words else None
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST" if body else "GET", urlsplit(words[1]).path, body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def _is_ready(port: int) -> bool:
    from tests.serving import Running

    try:
        return Running(port).ask("/ready").status == 200
    except OSError:
        return False
