"""``valence label`` in a process of its own, for tests that kill it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ADDRESS = re.compile(rb"http://127\.0\.0\.1:(\d+)/")


class LabelServer:
    """A running command and how to call it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def call(self, path: str, document: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            if document is None:
                connection.request("GET", path)
            else:
                kind = {"Content-Type": "application/json"}
                connection.request("POST", path, json.dumps(document).encode(), kind)
            answer = connection.getresponse()
            return json.loads(answer.read())
        finally:
            connection.close()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def label_server(folder: Path, *words: str, port: int = 0) -> Iterator[LabelServer]:
    """``valence label`` with some words, until the block ends."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "valence", "label", *words, "--port", str(port)],
        cwd=folder, env=environment, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    seen = b""
    try:
        while not (match := ADDRESS.search(seen)):
            line = process.stderr.readline()
            assert line, seen.decode()
            seen += line
        yield LabelServer(process, int(match[1]))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=60)
        process.stderr.close()
