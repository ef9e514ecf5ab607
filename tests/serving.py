"""A real server on loopback, in a thread or a process, and a plain way to ask it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from valence.serving.app import make_app
from valence.serving.guard import Guard
from valence.serving.server import bind, make_server
from valence.serving.settings import ServeSettings

START_SECONDS = 120


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """A server that answers at ``port`` of 127.0.0.1."""

    port: int
    guard: Guard | None = None

    def ask(
        self, path: str, document: Any = None, *, body: bytes | None = None,
        method: str | None = None, headers: dict[str, str] | None = None,
    ) -> Reply:  # fmt: skip
        if document is not None:
            body = json.dumps(document).encode()
        kind = {"Content-Type": "application/json"} if body is not None else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            verb = method or ("GET" if body is None else "POST")
            connection.request(verb, path, body=body, headers={**kind, **(headers or {})})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())
        finally:
            connection.close()

    def labels(self, *texts: str) -> list[str]:
        return [scores[0]["label"] for scores in self.ask("/predict", {"inputs": texts}).json]


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Running]:
    """Serve ``folder`` from a thread of this process."""
    chosen = replace(ServeSettings(folder, port=0, drain_seconds=0.0), **settings)
    listening = bind(chosen.host, chosen.port)
    guard = make_app(chosen)
    server = make_server(chosen, guard)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield Running(listening.getsockname()[1], guard)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def wait_for(met: Any, seconds: float = START_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)
