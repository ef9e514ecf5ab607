"""A real server on loopback: right answers, and for everything else 4xx with a reason."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")

from tests.conftest import make_reviews
from tests.serving import Running, serving, wait_for
from tests.unit.serving.conftest import careful, trained
from valence.distributed.device import Hardware
from valence.errors import ModelError, RunError, SpecError
from valence.inference.predictor import Predictor
from valence.serving import explaining, reload
from valence.serving.guard import PAGE_FILES
from valence.serving.server import bind
from valence.serving.settings import Limits, digest, read_keys

KEY = "a-key-of-a-test"
LIMITS = Limits(body_bytes=20_000, text_chars=1000, texts=20, timeout_seconds=20)


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Running]:
    with serving(model, limits=LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def locked(model: Path) -> Iterator[Running]:
    with serving(model, keys=(digest(b"an-older-key"), digest(KEY.encode()))) as running:
        yield running


def test_answers_are_those_of_the_predictor(server: Running, model: Path) -> None:
    texts = make_reviews(20, seed=5)["text"].tolist()
    answer = server.ask("/predict", {"inputs": texts})
    assert answer.status == 200
    predictor = Predictor(model)
    expected = predictor.predict_proba(texts)
    for scores, row in zip(answer.json, expected, strict=True):
        values = [entry["score"] for entry in scores]
        assert values == sorted(values, reverse=True)
        found = {entry["label"]: entry["score"] for entry in scores}
        assert found == pytest.approx(dict(zip(predictor.classes, row, strict=True)), abs=1e-6)
    one = server.ask("/predict", {"inputs": texts[0]}).json
    assert one == answer.json[:1]
    best = server.ask("/predict", {"inputs": texts, "parameters": {"top_k": 1}}).json
    assert best == [scores[:1] for scores in answer.json]


def test_a_model_that_abstains_says_so(model: Path, tmp_path: Path) -> None:
    folder = careful(model, tmp_path / "careful")
    texts = make_reviews(20, seed=5)["text"].tolist()
    labels = Predictor(folder).predict(texts)
    assert 0 < labels.count("") < len(texts)
    with serving(folder) as running:
        answer = running.ask("/predict", {"inputs": texts}).json
    for scores, label in zip(answer, labels, strict=True):
        assert [one["label"] for one in scores if one["chosen"]] == ([label] if label else [])


def test_a_model_of_numbers_gives_numbers(numeric_model: Path) -> None:
    texts = make_reviews(20, seed=5)["text"].tolist()
    expected = Predictor(numeric_model).columns(texts)["intensity"]
    with serving(numeric_model) as running:
        answer = running.ask("/predict", {"inputs": texts, "parameters": {"top_k": 1}})
        info = running.ask("/info").json
        why = running.ask("/explain", {"inputs": "good food"})
    assert answer.status == 200
    assert [[one["label"] for one in scores] for scores in answer.json] == [["intensity"]] * 20
    assert [scores[0]["score"] for scores in answer.json] == pytest.approx(expected, abs=1e-4)
    assert len(set(expected)) > 1
    assert (info["target"], info["classes"]) == ("intensity", [])
    assert (why.status, why.json["error"]) == (
        501, "This model predicts a number; only labels can be explained",
    )  # fmt: skip


def test_the_model_runs_as_it_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[Hardware | None] = []
    load = reload.load_warm

    def load_warm(folder: Path, hardware: Hardware | None = None) -> Predictor:
        requests.append(hardware)
        return load(folder, hardware)

    monkeypatch.setattr(reload, "load_warm", load_warm)
    hardware = Hardware(threads=1, batch_tokens=128)
    with serving(model, hardware=hardware) as running:
        assert running.labels("the food was great")
    assert requests == [hardware]


def test_many_at_once_are_not_mixed_up(server: Running, model: Path) -> None:
    texts = make_reviews(150, seed=6)["text"].tolist()
    expected = Predictor(model).predict_proba(texts).max(axis=1)

    async def one(text: str) -> float:
        answer = await asyncio.to_thread(server.ask, "/predict", {"inputs": text})
        return float(answer.json[0][0]["score"])

    async def everybody() -> list[float]:
        return await asyncio.gather(*(one(text) for text in texts))

    assert asyncio.run(everybody()) == pytest.approx(expected.tolist(), abs=1e-6)


JSON = {"Content-Type": "application/json"}
WRONG: dict[str, tuple[dict[str, Any], int, str]] = {
    "not JSON": ({"body": b'{"inputs": '}, 400, "not JSON"),
    "not UTF-8": ({"body": b'{"inputs": "\xff\xfe"}'}, 400, "UTF-8"),
    "nested": ({"body": b"[" * 9000 + b"]" * 9000}, 400, "nested brackets"),
    "a huge number": ({"body": b'{"inputs": ' + b"9" * 9000 + b"}"}, 400, "JSON"),
    "a number": ({"document": {"inputs": 3}}, 422, "a text or a list of texts"),
    "a list of numbers": ({"document": {"inputs": [1]}}, 422, "a text or a list of texts"),
    "null": ({"document": {"inputs": None}}, 422, "a text or a list of texts"),
    "an object": ({"document": {"inputs": {"a": "b"}}}, 422, "a text or a list of texts"),
    "a list": ({"document": ["a"]}, 422, "body"),
    "no body": ({"body": b""}, 422, "body"),
    "no inputs": ({"document": {}}, 422, "inputs"),
    "another field": ({"document": {"inputs": "a", "input": "b"}}, 422, "input:"),
    "no text": ({"document": {"inputs": []}}, 422, "at least one text"),
    "an empty text": ({"document": {"inputs": ["a", " \n"]}}, 422, "inputs[1] is empty"),
    "half a character": ({"body": b'{"inputs": "a\\ud800"}'}, 422, "surrogate"),
    "a long text": ({"document": {"inputs": "a" * 1001}}, 422, "at most 1000"),
    "many texts": ({"document": {"inputs": ["a"] * 21}}, 413, "at most 20"),
    "top 0": ({"document": {"inputs": "a", "parameters": {"top_k": 0}}}, 422, "top_k"),
    "a huge body": ({"body": b"a" * 200_000}, 413, "20000 bytes"),
    "a form": ({"body": b"a=b", "headers": {"Content-Type": "text/plain"}}, 415, "JSON"),
    "GET": ({"method": "GET"}, 405, "method"),
    "another method": ({"method": "BREW"}, 405, "method"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_requests_get_a_reason(server: Running, case: str) -> None:
    words, status, reason = WRONG[case]
    answer = server.ask("/predict", **words)
    assert answer.status == status, answer.body
    assert reason in answer.json["error"]
    assert set(answer.json) == {"error", "error_type"}
    assert "\n" not in answer.json["error"]
    assert b"Traceback" not in answer.body
    assert len(answer.body) < 1000
    assert server.labels("great food") == ["good"]


@pytest.mark.parametrize(
    "path",
    ["/../../../etc/passwd", "/..%2f..%2fetc/passwd", "/%2e%2e/app.py", "/app.py", "//predict",
     "/predict/", "/page.html", "/serving/page.html", "/predict%00", "/%ff", "/static/page.css"],
)  # fmt: skip
def test_there_are_no_other_files(server: Running, path: str) -> None:
    answer = server.ask(path)
    assert answer.status == 404
    assert "Unknown address" in answer.json["error"]


def raw(server: Running, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        found = b""
        with contextlib.suppress(OSError):  # closed with some of it unread
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                found += part
        return found


@pytest.mark.parametrize(
    "data",
    [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9\r\n\r\n",
     b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
     b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n",
     b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 200_000 + b"\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_http_is_refused(server: Running, data: bytes) -> None:
    assert raw(server, data)[:12] in (b"HTTP/1.1 400", b"")
    assert server.ask("/health").status == 200


def test_a_body_that_breaks_off_is_survived(server: Running) -> None:
    head = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    raw(server, head + b'content-length: 100\r\n\r\n{"inputs"')
    assert server.labels("great food") == ["good"]


def test_a_slow_body_is_not_waited_for(model: Path) -> None:
    head = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n"
    with (
        serving(model, limits=Limits(timeout_seconds=0.3)) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection,
    ):
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_a_key_is_asked_for(locked: Running) -> None:
    for path in ("/health", "/ready", "/", "/page.css", "/page.js"):
        assert locked.ask(path).status == 200
    for path in ("/info", "/metrics", "/openapi.json", "/nothing"):
        assert locked.ask(path).status == 401
    missing = locked.ask("/predict", {"inputs": "a"})
    assert (missing.status, missing.headers["www-authenticate"]) == (401, "Bearer")
    assert "Authorization: Bearer" in missing.json["error"]
    for wrong in ({"Authorization": "Bearer no"}, {"X-API-Key": KEY + "x"},
                  {"Authorization": f"Basic {KEY}"}, {"X-API-Key": "\xff"}):  # fmt: skip
        assert locked.ask("/predict", {"inputs": "a"}, headers=wrong).status == 401
    for right in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY},
                  {"X-API-Key": "an-older-key"}):  # fmt: skip
        assert locked.ask("/predict", {"inputs": "a"}, headers=right).status == 200


def test_keys_of_a_file_and_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\nfirst-key\n\nsecond-key\n")
    assert read_keys(path) == (digest(b"first-key"), digest(b"second-key"))
    monkeypatch.delenv("VALENCE_API_KEY", raising=False)
    assert read_keys(None) == ()
    monkeypatch.setenv("VALENCE_API_KEY", "from-outside")
    assert read_keys(None) == (digest(b"from-outside"),)
    for bad, reason in (("", "no key"), ("short", "shorter"), ("schlüssel-schlüssel", "ASCII")):
        path.write_text(bad, encoding="utf-8")
        with pytest.raises(SpecError, match=reason):
            read_keys(path)
    with pytest.raises(SpecError, match="cannot be read"):
        read_keys(tmp_path / "none")


def test_states_and_metrics(server: Running) -> None:
    assert server.ask("/health").json == {"status": "ok"}
    assert server.ask("/ready").json == {"status": "ready"}
    info = server.ask("/info").json
    assert (info["method"], info["classes"]) == ("tfidf-lr", ["bad", "good", "meh"])
    server.ask("/no-such-path/1")
    page = server.ask("/metrics").body.decode()
    assert 'valence_requests_total{path="/predict",status="200"}' in page
    assert 'path="other",status="404"' in page
    assert "no-such-path" not in page, "a stranger cannot make series"
    assert "valence_queue_texts 0.0" in page
    assert "valence_batch_texts_count" in page


def test_nothing_of_the_page_comes_from_elsewhere(server: Running) -> None:
    answer = server.ask("/")
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    for path in PAGE_FILES:
        found = server.ask(path)
        assert (found.status, found.headers["x-content-type-options"]) == (200, "nosniff")
        lines = found.body.decode().splitlines()
        text = "\n".join(line for line in lines if not line.strip().startswith("//"))  # comments
        for namespace in ("http://www.w3.org/2000/svg", "http://schemas.openxmlformats.org/"):
            text = text.replace(namespace, "")  # names, which nothing fetches
        assert "http:" not in text
        assert "https:" not in text
        assert "//cdn" not in text


def test_a_stopping_server_is_not_ready_but_answers(model: Path) -> None:
    with serving(model) as running:
        assert running.guard is not None
        running.guard.draining = True
        assert running.ask("/ready").status == 503
        answer = running.ask("/predict", {"inputs": "great food"})
        assert (answer.status, answer.headers["connection"]) == (200, "close")


@dataclass(frozen=True)
class Token:
    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Neighbor:
    text: str
    label: str
    similarity: float


@dataclass(frozen=True)
class Explanation:
    text: str
    label: str
    probabilities: dict[str, float]
    tokens: list[Token]
    neighbors: list[Neighbor]


def explain(
    predictor: Predictor, texts: list[str], target: str | None = None,
    steps: int = 32, neighbors: int = 5,
) -> list[Explanation]:  # fmt: skip
    """In the shape of ``valence.inference.explain.explain``, for a model that has no gradients."""
    if "explode" in texts:
        raise ModelError("This model has no gradients; explain one of kind torch")
    found = []
    for text, row in zip(texts, predictor.predict_proba(texts), strict=True):
        start, tokens = 0, []
        for i, word in enumerate(text.split()):
            start = text.index(word, start)
            tokens.append(Token(word, start, start + len(word), float(np.float32((-0.7) ** i))))
            start += len(word)
        near = [Neighbor("The food was great", "good", 0.91), Neighbor("Never", "bad", 0.4)]
        label = target or predictor.classes[int(row.argmax())]
        shares = dict(zip(predictor.classes, row, strict=True))
        found.append(Explanation(text, label, shares, tokens, near))
    return found


@pytest.fixture
def explainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explaining, "find_explainer", lambda: explain)


def test_explanations(server: Running, explainer: None) -> None:
    answer = server.ask("/explain", {"inputs": ["great food", "a dull room"], "target": "meh"})
    assert answer.status == 200
    first, second = answer.json
    assert [t["text"] for t in second["tokens"]] == ["a", "dull", "room"]
    token = second["tokens"][1]
    assert second["text"][token["start"] : token["end"]] == "dull"
    assert token["score"] == pytest.approx(-0.7, abs=1e-6)
    assert first["label"] == "meh"
    assert first["neighbours"][0] == {
        "text": "The food was great", "label": "good", "similarity": 0.91
    }  # fmt: skip
    assert sum(first["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    unknown = server.ask("/explain", {"inputs": "a", "target": "none"})
    assert (unknown.status, "known: bad, good, meh" in unknown.json["error"]) == (422, True)
    failed = server.ask("/explain", {"inputs": "explode"})
    assert (failed.status, "no gradients" in failed.json["error"]) == (501, True)
    assert server.ask("/explain", {"inputs": ["a"] * 9}).status == 413


def test_explanations_of_the_real_explainer(server: Running) -> None:
    text = "the food was great, but a dull room"
    (found,) = server.ask("/explain", {"inputs": text, "target": "good"}).json
    assert found["label"] == "good"
    scores = {token["text"]: token["score"] for token in found["tokens"]}
    assert scores["great,"] > 0 > scores["dull"]
    assert all(text[t["start"] : t["end"]] == t["text"] for t in found["tokens"])


def test_without_the_explainer_it_says_so(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valence.inference.explain.explain", None)
    answer = server.ask("/explain", {"inputs": "a"})
    assert answer.status == 501
    assert "Explanations are not available" in answer.json["error"]


def test_a_changed_folder_is_loaded_and_a_broken_one_is_not(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "live"
    shutil.copytree(model, folder)
    other = trained(tmp_path, "majority", rename={"good": "fine"})
    with serving(folder, reload_seconds=0.05) as running:
        assert running.labels("great food") == ["good"]
        (folder / "report").mkdir()
        (folder / "report" / "results.json").write_text("[]")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text("{")
        page = "valence_reloads_total"
        wait_for(lambda: f'{page}{{outcome="failed"}} 1.0' in running.ask("/metrics").body.decode())
        assert running.labels("great food") == ["good"], "the old model stays"
        shutil.rmtree(folder)
        assert running.labels("great food") == ["good"]
        shutil.copytree(other, folder)
        wait_for(lambda: running.ask("/info").json["reloads"] == 1)
        assert running.labels("great food") == ["fine"]
        assert running.ask("/info").json["method"] == "majority"
        assert config["id2label"]["1"] == "good"


def test_addresses_that_cannot_be_had() -> None:
    with bind("127.0.0.1", 0) as taken, pytest.raises(RunError, match="use another --port"):
        bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(RunError, match="Cannot listen"):
        bind("192.0.2.1", 0)


def test_limits_that_make_no_sense() -> None:
    with pytest.raises(SpecError, match="above 0"):
        Limits(texts=0)
    with pytest.raises(SpecError, match="queue"):
        Limits(texts=20, queue_texts=10)
