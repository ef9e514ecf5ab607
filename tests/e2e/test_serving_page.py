"""Every command of docs/serving.md works as written."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import signal
import socket
import sys
import threading
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fastapi")

from tests.conftest import ROOT, make_reviews
from tests.serving import START_SECONDS, Running, wait_for
from valence import cli

PAGE = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [
    line for kind, block in BLOCKS for line in block.splitlines() if not kind and line.strip()
]
SERVES = [c for c in COMMANDS if c.startswith("valence serve")]
CURLS = [c for c in COMMANDS if c.startswith("curl")]


def test_every_command_is_of_a_known_kind() -> None:
    for command in COMMANDS:
        known = ("pip install", "valence train", "valence serve", "valence push", "curl")
        assert command.startswith(known), command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page")
    make_reviews(140).to_csv(place / "reviews.csv", index=False)
    (place / "keys.txt").write_text("a-key-of-the-page\n")
    return place


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def curl(command: str, port: int) -> int:
    """The status of a request written for curl."""
    words = shlex.split(command)
    headers = dict(w.split(": ", 1) for f, w in pairwise(words) if f == "-H")
    headers["Authorization"] = "Bearer a-key-of-the-page"
    body = words[words.index("-d") + 1] if "-d" in words else None
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST" if body else "GET", urlsplit(words[1]).path, body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_train(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (command,) = [c for c in COMMANDS if c.startswith("valence train")]
    assert run(shlex.split(command), monkeypatch) == 0
    assert (folder / "models/reviews/README.md").exists()


@pytest.mark.parametrize("command", SERVES)
def test_serve_and_curl(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server runs here, in the main thread, as it does in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.chdir(folder)
    words = [*shlex.split(command.replace("--workers 2", "--workers 1")), "--port", str(port)]
    statuses: list[int] = []
    over = threading.Event()

    def visit() -> None:
        try:
            wait_for(lambda: over.is_set() or _is_ready(port), START_SECONDS)
            statuses.extend(curl(one, port) for one in CURLS)
        finally:
            if not over.is_set():
                os.kill(os.getpid(), signal.SIGTERM)

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        code = run(words, monkeypatch)
    finally:
        over.set()
        visitor.join()
    assert code == 0, capsys.readouterr().err
    assert statuses == [200] * len(CURLS)


def _is_ready(port: int) -> bool:
    try:
        return Running(port).ask("/ready").status == 200
    except OSError:
        return False


def test_push_without_a_network(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (command,) = [c for c in COMMANDS if c.startswith("valence push")]
    assert run(shlex.split(command), monkeypatch) == 1
    assert "HF_HUB_OFFLINE forbids the network" in capsys.readouterr().err
