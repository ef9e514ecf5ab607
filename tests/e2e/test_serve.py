"""``valence serve`` as a process: signals in the middle of work, several workers, fuzzing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from tests.conftest import make_reviews
from tests.serving import START_SECONDS, Running, serving, wait_for
from tests.unit.serving.conftest import trained
from tests.unit.serving.test_http import explain
from valence.inference.predictor import Predictor
from valence.serving import explaining
from valence.serving.settings import Limits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("served"), "tfidf-lr")


@contextmanager
def process(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], Running]]:
    command = [sys.executable, "-m", "valence", "serve", str(folder), "--port", "0", *words]
    running = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert running.stderr is not None
        line = running.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found, line + running.stderr.read()
        yield running, Running(int(found.group(1)))
    finally:
        if running.poll() is None:
            running.kill()
        running.communicate()


async def send(port: int, texts: list[str], sent: asyncio.Semaphore) -> list[float]:
    """One request on a connection of its own; the scores of the best labels."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"inputs": texts}).encode()
    head = "POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    sent.release()
    answer = await reader.read()  # the server closes, for it stops
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200"), answer[:300]
    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    return [scores[0]["score"] for scores in document]


def test_sigterm_in_the_middle_loses_nothing_accepted(folder: Path) -> None:
    draw = make_reviews(240, seed=8)["text"].tolist()
    requests = [[f"{text} " * 40 for text in draw[i : i + 4]] for i in range(0, 240, 4)] * 3
    expected = Predictor(folder).predict_proba([t for r in requests for t in r]).max(axis=1)

    with process(folder, "--queue", "100000", "--max-wait", "999", "--batch", "16") as (
        running,
        server,
    ):

        async def scenario() -> list[list[float]]:
            sent = asyncio.Semaphore(0)
            work = [asyncio.create_task(send(server.port, texts, sent)) for texts in requests]
            for _ in requests:
                await sent.acquire()
            assert not all(task.done() for task in work)
            running.send_signal(signal.SIGTERM)
            return await asyncio.gather(*work)

        answers = asyncio.run(scenario())
        _, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert "Stopped" in err
    assert "Traceback" not in err
    assert [score for scores in answers for score in scores] == pytest.approx(
        expected.tolist(), abs=1e-6
    )


@pytest.mark.slow
def test_workers_share_a_port_and_one_that_dies_is_replaced(folder: Path) -> None:
    with process(folder, "--workers", "2") as (running, server):
        texts = make_reviews(60, seed=9)["text"].tolist()
        expected = Predictor(folder).predict(texts)
        assert [server.labels(text)[0] for text in texts] == expected
        page = server.ask("/metrics").body.decode()
        assert 'valence_requests_total{path="/predict",status="200"} 60.0' in page
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        workers = [
            int(pid) for pid in children
            if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
        ]  # fmt: skip
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        assert server.labels("great food") == ["good"]
        wait_for(
            lambda: (
                str(workers[0]) not in (now := _children(running.pid)) and len(now) == len(children)
            )
        )
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=START_SECONDS)
        assert running.returncode == 0, err
        assert "was replaced" in err
        end = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.monotonic() < end, "no worker outlives the server"


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_fuzzing_the_schema_finds_no_5xx(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schemathesis makes requests that follow the OpenAPI document, and ones that do not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings

    monkeypatch.setattr(explaining, "find_explainer", lambda: explain)
    seen: dict[str, set[int]] = {}
    with serving(folder, limits=Limits(texts=50)) as server:
        base = f"http://127.0.0.1:{server.port}"
        schema = schemathesis.openapi.from_dict(server.ask("/openapi.json").json)
        schema.config.update(base_url=base)
        modes = schemathesis.GenerationMode
        for found in schema.get_all_operations():
            operation = found.ok()
            for mode in (modes.POSITIVE, modes.NEGATIVE):
                if mode is modes.NEGATIVE and operation.method.upper() == "GET":
                    continue

                @given(case=operation.as_strategy(generation_mode=mode))
                @settings(
                    max_examples=12, deadline=None, database=None, derandomize=True,
                    phases=[Phase.generate], suppress_health_check=list(HealthCheck),
                )  # fmt: skip
                def check(case) -> None:
                    answer = case.call()
                    seen.setdefault(case.operation.path, set()).add(answer.status_code)
                    assert answer.status_code < 500, (case.body, answer.content)
                    if answer.status_code >= 400:
                        assert set(answer.json()) == {"error", "error_type"}

                check()
    assert set(seen) == {"/predict", "/explain", "/health", "/ready", "/info", "/metrics"}
    assert 200 in seen["/predict"]
    assert seen["/predict"] & {400, 422}


ERRORS = {
    "no model": (["nowhere"], "No model folder at nowhere"),
    "no keys": (["MODEL", "--api-key-file", "none"], "API keys none cannot be read"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_served_is_one_line(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from valence import cli

    words, reason = ERRORS[case]
    given = [str(folder) if word == "MODEL" else word for word in words]
    monkeypatch.setattr(sys, "argv", ["valence", "serve", *given, "--port", "0"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    err = capsys.readouterr().err
    assert ended.value.code == 1
    assert reason in err.splitlines()[-1]
