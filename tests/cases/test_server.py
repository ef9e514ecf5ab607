"""The server on raw sockets: slow, rude and odd clients, and other tools' shapes."""

from __future__ import annotations

import gzip
import json
import math
import re
import resource
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_reviews
from tests.serving import Running, serving, wait_for
from valence.errors import SpecError
from valence.inference.predictor import Predictor
from valence.serving.bodies import DEEPEST, plain_body
from valence.serving.connections import ConnectionLimits
from valence.serving.hosts import host_name, is_answered
from valence.serving.refusals import Refusal
from valence.serving.settings import Limits, ServeSettings, digest

HURRIED = ConnectionLimits(most=20, header_seconds=0.5, idle_seconds=1.0)
GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import valence

    folder = tmp_path_factory.mktemp("served")
    make_reviews(140).to_csv(folder / "reviews.csv", index=False)
    result = valence.train(str(folder / "reviews.csv"), "tfidf-lr", runs=folder / "runs")
    return folder / "runs" / result.key / "model"


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Running]:
    with serving(model, limits=Limits(body_bytes=100_000, text_chars=50_000)) as running:
        yield running


@pytest.fixture(scope="module")
def hurried(model: Path) -> Iterator[Running]:
    with serving(model, connections=HURRIED, limits=Limits(timeout_seconds=1)) as running:
        yield running


def connect(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def rest(connection: socket.socket) -> bytes:
    """All that still comes, until the server closes; an end without a close is no end."""
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def raw(server: Running, data: bytes) -> bytes:
    with connect(server) as connection:
        connection.sendall(data)
        return rest(connection)


@pytest.mark.parametrize(
    "start",
    [b"", b"G", b"GET /health HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nhost: localhost\r\nx: y",
     GET + b"GET /health HTT", GET + GET + b"POST /predict HTTP/1.1\r\n"],
    ids=range(6),
)  # fmt: skip
def test_a_header_without_end_is_not_waited_for(hurried: Running, start: bytes) -> None:
    with connect(hurried) as connection:
        clock = time.monotonic()
        connection.sendall(start)
        found = rest(connection)
    assert 0.3 < time.monotonic() - clock < 5
    assert found.count(b"HTTP/1.1 200") == start.count(GET)


def test_a_header_that_drips_is_not_waited_for(hurried: Running) -> None:
    with connect(hurried) as connection:
        clock = time.monotonic()
        with suppress(OSError):
            for byte in b"GET /health HTTP/1.1\r\nx-long: " + b"a" * 1000:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
        assert time.monotonic() - clock < 5


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(hurried: Running) -> None:
    with connect(hurried) as connection:
        for _ in range(6):
            connection.sendall(GET)
            answer = b""
            while b"}" not in answer:
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200")
            time.sleep(0.3)
        clock = time.monotonic()
        assert rest(connection) == b""
        assert time.monotonic() - clock < 5


def test_a_reader_that_takes_nothing_is_cut_off(hurried: Running) -> None:
    with connect(hurried) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.settimeout(0.5)
        clock = time.monotonic()
        assert _asks_until_it_is_closed(connection, clock + 20)
        assert time.monotonic() - clock < 15
    assert hurried.ask("/health").status == 200


def _asks_until_it_is_closed(connection: socket.socket, end: float) -> bool:
    while time.monotonic() < end:
        try:
            connection.send(b"GET /page.css HTTP/1.1\r\nhost: localhost\r\n\r\n" * 50)
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


@pytest.mark.parametrize("opened", [30, 120])
def test_half_headers_do_not_keep_others_out(hurried: Running, opened: int) -> None:
    with ExitStack() as stack:
        for _ in range(opened):
            stack.enter_context(connect(hurried)).sendall(b"GET / HTTP/1.1\r\nx: ")
        clock = time.monotonic()
        assert hurried.labels("great food") == ["good"]
        assert time.monotonic() - clock < 3


def test_connections_in_use_are_bounded(hurried: Running) -> None:
    """Those that have asked keep their place; beyond it the reason comes at once."""
    body = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(HURRIED.most):
            stack.enter_context(connect(hurried)).sendall(body)
        time.sleep(0.2)
        answer = raw(hurried, GET)
        assert answer.startswith(b"HTTP/1.1 503")
        head, _, text = answer.partition(b"\r\n\r\n")
        assert json.loads(text)["error_type"] == "overloaded"
        assert b"content-length: %d" % len(text) in head
    wait_for(lambda: hurried.ask("/health").status == 200, 10)


def test_open_files_bound_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    assert ConnectionLimits().effective_most == 36
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 20))
    assert ConnectionLimits().effective_most == 8
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 20, 1 << 20))
    assert ConnectionLimits(most=50).effective_most == 50


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:8080", 200), ("127.0.0.1", 200), ("127.0.0.1:1", 200),
        ("127.9.9.9", 200), ("[::1]:80", 200), ("[::1]", 200), ("localhost.", 200),
        ("evil.example", 421), ("evil.example:8080", 421), ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421), ("192.168.0.1", 421), ("[::2]", 421), ("0.0.0.0", 421),
        ("localhost:8080@evil.example", 421), ("evil.example:localhost", 421), ("[::1", 421),
        ("127.0.0.1:x", 421), ("2130706433", 421), ("evil\xe9", 421),
    ],
)  # fmt: skip
def test_only_names_of_this_machine_are_answered(server: Running, host: str, status: int) -> None:
    for path in ("/health", "/predict", "/", "/docs.js", "/nothing"):
        head = f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        answer = raw(server, head.encode("latin-1"))
        code = int(answer[9:12])
        assert (code == 421) == (status == 421), answer
        assert status != 421 or b"--allowed-host" in answer


def test_allowed_hosts(model: Path) -> None:
    with serving(model, allowed_hosts=("reviews.example", "*.lab.example")) as running:
        for host, status in (
            ("reviews.example", 200), ("a.lab.example:80", 200), ("localhost", 200),
            ("lab.example", 421), ("a.reviews.example", 421), ("evil.example", 421),
        ):  # fmt: skip
            assert running.ask("/health", headers={"Host": host}).status == status
    everyone = ServeSettings(Path("m"), host="0.0.0.0")
    assert everyone.hosts is None
    assert replace(everyone, allowed_hosts=("a.example",)).hosts == ("a.example",)
    assert ServeSettings(Path("m"), host="127.0.0.2").hosts == ()
    assert is_answered("", ())  # HTTP/1.0 has none
    assert is_answered("evil.example", ("*",))


@given(st.text(max_size=40))
def test_a_host_header_never_crashes(header: str) -> None:
    assert isinstance(host_name(header), str)


@pytest.mark.parametrize(
    "heads",
    [b"content-length: 5\r\ntransfer-encoding: chunked", b"transfer-encoding: chunked\r\n"
     b"content-length: 0", b"Transfer-Encoding: CHUNKED\r\nContent-Length: 40",
     b"content-length: 5\r\ncontent-length: 6", b"transfer-encoding: chunked, identity",
     b"transfer-encoding: gzip", b"content-length: +5", b"content-length: 0x5"],
)  # fmt: skip
def test_a_body_without_a_certain_end_is_refused_and_closed(server: Running, heads: bytes) -> None:
    hidden = b"0\r\n\r\nGET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n"
    head = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    answer = raw(server, head + heads + b"\r\n\r\n" + hidden)
    assert answer[9:12] in (b"400", b"501"), answer
    assert answer.count(b"HTTP/1.1 ") == 1, "what comes after it is not looked at"
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize(
    "heads", [b"transfer-encoding:\tchunked\r\ncontent-length: 5", b"transfer-encoding: chunked"]
)
@pytest.mark.parametrize(
    "body", [b"{}GET /metrics HTTP/1.1\r\n\r\n", b"zz\r\n", b"2\r\n{}\r\nzz\r\n"]
)
def test_a_body_that_is_no_http_leaves_no_traceback(
    server: Running, heads: bytes, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    answer = raw(server, head + heads + b"\r\n\r\n" + body)
    assert answer[9:12] == b"400", answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert server.ask("/health").status == 200
    assert not [record for record in caplog.records if record.exc_info]


def test_chunks_in_http_1_0_are_refused(server: Running) -> None:
    head = b"POST /predict HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    assert raw(server, head + b"0\r\n\r\n")[9:12] == b"400"


def test_a_chunked_body_is_read(server: Running) -> None:
    head = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    body = b'{"inputs": "great food"}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    assert b'"label":"good"' in raw(server, head + chunks)


@pytest.mark.parametrize("path", ["/health", "/ready", "/info", "/metrics", "/", "/openapi.json"])
def test_head_is_get_without_a_body(server: Running, path: str) -> None:
    got = server.ask(path)
    head = server.ask(path, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    if path not in ("/metrics", "/info"):
        assert head.headers["content-length"] == str(len(got.body))
    assert server.ask("/nothing", method="HEAD").status == 404
    assert server.ask("/predict", method="HEAD").status == 405


def packed(body: bytes) -> bytes:
    return gzip.compress(body)


BODY = json.dumps({"inputs": ["great food", "the room was bad"]}).encode()
GZIP = {"Content-Encoding": "gzip"}


@pytest.mark.parametrize(
    ("body", "coding", "status", "reason"),
    [
        (packed(BODY), "gzip", 200, ""),
        (packed(BODY), "GZIP ", 200, ""),
        (packed(BODY[:20]) + packed(BODY[20:]), "x-gzip", 200, ""),
        (BODY, "identity", 200, ""),
        (packed(BODY)[:-4], "gzip", 400, "not valid gzip"),
        (packed(BODY) + b"tail", "gzip", 400, "not valid gzip"),
        (BODY, "gzip", 400, "not valid gzip"),
        (packed(b" " * 50_000_000), "gzip", 413, "when unpacked"),
        (b"".join(packed(b" " * 30_000) for _ in range(5)), "gzip", 413, "when unpacked"),
        (zlib.compress(BODY), "deflate", 415, "Content-Encoding"),
        (BODY, "br", 415, "Content-Encoding"),
        (packed(packed(BODY)), "gzip, gzip", 415, "Content-Encoding"),
        (packed(BODY), "zstd", 415, "Content-Encoding"),
    ],
    ids=range(13),
)
def test_gzip_within_limits(
    server: Running, body: bytes, coding: str, status: int, reason: str
) -> None:
    clock = time.monotonic()
    answer = server.ask("/predict", body=body, headers={"Content-Encoding": coding})
    assert answer.status == status, answer.body
    assert time.monotonic() - clock < 3
    assert reason in answer.body.decode()
    if status == 415:
        assert answer.headers["accept-encoding"] == "gzip"


def test_two_codings_are_two_whatever_header_names_them(server: Running) -> None:
    body = packed(BODY)
    head = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += b"connection: close\r\ncontent-encoding: gzip\r\ncontent-encoding: gzip\r\n"
    answer = raw(server, head + b"content-length: %d\r\n\r\n" % len(body) + body)
    assert answer[9:12] == b"415"


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"a":' * 20_000, b'{"inputs": ' + b"[" * 50 + b"]" * 50 + b"}",
     b'["\\"' * 20_000, b'"' + b'\\"[' * 30_000, b'{"inputs": "a", "x": ' + b"[{" * 5000],
    ids=range(6),
)  # fmt: skip
def test_deep_json_is_refused_before_it_is_parsed(server: Running, body: bytes) -> None:
    clock = time.monotonic()
    answer = server.ask("/predict", body=body)
    assert answer.status == 400, answer.body
    assert time.monotonic() - clock < 3


def test_brackets_in_texts_are_no_depth() -> None:
    text = json.dumps({"inputs": ["[" * 5000, '\\"{' * 5000, "a"] * 3}).encode()
    assert plain_body(text, b"", 10**6) == text
    nested = b"[" * DEEPEST + b"]" * DEEPEST
    assert plain_body(nested * 3, b"", 10**6) == nested * 3
    with pytest.raises(Refusal, match="nested brackets"):
        plain_body(b"[" + nested + b"]", b"", 10**6)


@settings(max_examples=60, deadline=None)
@given(st.recursive(st.text(max_size=5), lambda x: st.lists(x, max_size=3), max_leaves=20))
def test_what_the_depth_scanner_lets_through_is_unchanged(value: object) -> None:
    body = json.dumps(value).encode()
    assert plain_body(body, b"", 10**6) == body


def test_shapes_of_text_embeddings_inference(server: Running, model: Path) -> None:
    texts = ["great food", "the room was bad"]
    plain = server.ask("/predict", {"inputs": texts}).json
    for words in (
        {"inputs": [[text] for text in texts]},
        {"inputs": texts, "truncate": True},
        {"inputs": texts, "truncate": False},
        {"inputs": texts, "truncate": True, "truncation_direction": "Right"},
        {"inputs": texts, "raw_scores": False},
    ):
        answer = server.ask("/predict", words)
        assert (answer.status, answer.json) == (200, plain), answer.body
    raw_scores = server.ask("/predict", {"inputs": texts, "raw_scores": True}).json
    for scores, own in zip(raw_scores, plain, strict=True):
        assert [s["label"] for s in scores] == [s["label"] for s in own]
        logits = [s["score"] for s in scores]
        total = sum(map(math.exp, logits))
        shares = [math.exp(x) / total for x in logits]
        assert shares == pytest.approx([s["score"] for s in own], abs=1e-5)
    for words, reason in (
        ({"inputs": [["a", "b"]]}, "inputs[0] holds 2 texts"),
        ({"inputs": [["a"], []]}, "inputs[1] holds 0 texts"),
        ({"inputs": [["a"], "b", 3]}, "a text or a list of texts"),
        ({"inputs": [[["a"]]]}, "a text or a list of texts"),
        ({"inputs": "a", "truncation_direction": "Left"}, "truncation_direction"),
        ({"inputs": "a", "raw_scores": "yes"}, "raw_scores"),
    ):
        answer = server.ask("/predict", words)
        assert answer.status == 422
        assert reason in answer.json["error"]
    assert Predictor(model).predict(texts)


def test_a_text_that_may_not_be_truncated(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = Predictor.predict_proba

    def long(self: Predictor, texts: list[str], progress: None = None) -> object:
        probs = columns(self, texts)
        self.truncated = sum(len(text) > 1000 for text in texts)
        return probs

    monkeypatch.setattr(Predictor, "predict_proba", long)
    text = "food " * 500
    assert server.ask("/predict", {"inputs": text}).status == 200
    refused = server.ask("/predict", {"inputs": text, "truncate": False})
    assert (refused.status, "remove truncate" in refused.json["error"]) == (413, True)
    assert server.ask("/predict", {"inputs": "great food", "truncate": False}).status == 200


def test_the_page_of_addresses_stands_where_no_key_is(server: Running, model: Path) -> None:
    page = server.ask("/docs")
    assert page.status == 200
    for path in re.findall(r'(?:src|href)="([^"]+)"', page.body.decode()):
        answer = server.ask(path)
        assert answer.status == 200, path
        assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)", answer.body)
    assert b"<script>" not in page.body
    assert "default-src 'none'" in page.headers["content-security-policy"]
    with serving(model, keys=(digest(b"a-key-of-a-test"),)) as locked:
        assert locked.ask("/docs").status == 401
        key = {"X-API-Key": "a-key-of-a-test"}
        assert locked.ask("/docs", headers=key).status == 404


def test_limits_of_connections_are_numbers() -> None:
    with pytest.raises(SpecError, match="above 0"):
        ConnectionLimits(most=0)
