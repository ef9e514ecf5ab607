"""Bodies of any shape: an answer or a reason, soon, never a 5xx; then the server still answers."""

from __future__ import annotations

import gzip
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from tests.conftest import make_reviews
from tests.serving import Running, serving
from valence.serving.settings import Limits

FEW, MANY = 60, 2000
LONGEST_SECONDS = 5.0
TEXTS = [
    "great food",
    "",
    " ",
    "\x00",
    "\ud800",
    "\x1b[31m",
    "🙂" * 50,
    "a" * 5000,
    "服务",
    "\u2028",
]
NAMES = ["inputs", "parameters", "top_k", "raw_scores", "truncate", "truncation_direction",
         "target", "x", "", "__proto__"]  # fmt: skip
ATOMS: list[Any] = [None, True, False, 0, -1, 1, 10**30, 1.5, 1e308, "Right", "Left", [], {}]
PATHS = ["/predict", "/predict", "/predict", "/explain", "/info", "/health", "/x", "/predict?a=%00"]
KINDS = ["application/json", "application/json; charset=utf-16", "text/plain", "", "a" * 500]
CODINGS = ["", "", "", "identity", "gzip", "gzip", "br", "gzip, gzip", "\xe9"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    import valence

    folder: Path = tmp_path_factory.mktemp("served")
    make_reviews(140).to_csv(folder / "reviews.csv", index=False)
    result = valence.train(str(folder / "reviews.csv"), "tfidf-lr", runs=folder / "runs")
    model = folder / "runs" / result.key / "model"
    with serving(model, limits=Limits(body_bytes=50_000, text_chars=4000, texts=50)) as running:
        yield running


def value(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.random()
    if depth > 4 or kind < 0.3:
        return draw.choice([*ATOMS, *TEXTS])
    if kind < 0.65:
        count = draw.choice([0, 1, 1, 2, 3, 60 if depth == 4 else 3])
        return [value(draw, depth + 1) for _ in range(count)]
    return {draw.choice(NAMES): value(draw, depth + 1) for _ in range(draw.randint(0, 4))}


def made(draw: random.Random) -> bytes:
    """A document that is nearly right, any document, or one with some bytes changed."""
    document = value(draw)
    if draw.random() < 0.6:
        inputs = [draw.choice(TEXTS) for _ in range(draw.randint(0, 4))]
        document = {"inputs": draw.choice([inputs, [[t] for t in inputs], value(draw)])}
        if draw.random() < 0.6:
            document[draw.choice(NAMES)] = value(draw)
    raw = bytearray(json.dumps(document).encode())
    if draw.random() < 0.4 and raw:
        for _ in range(draw.randint(1, 6)):
            at = draw.randrange(len(raw))
            raw[at : at + draw.randint(0, 2)] = draw.choice(
                [b"\xff", b"\x00", b"[" * 40, b"{", b'"', b"\\u", b"\\", b"9" * 400, b"NaN", b"]"]
            )
            raw = raw or bytearray(b"0")
    return bytes(raw)


def tried(server: Running, draw: random.Random) -> int:
    body, coding = made(draw), draw.choice(CODINGS)
    if coding == "gzip" and draw.random() < 0.8:
        body = gzip.compress(body)
        body = body[: draw.choice([len(body), len(body), len(body) // 2])]
    headers = {"Content-Type": draw.choice([*KINDS[:1] * 6, *KINDS])}
    if coding:
        headers["Content-Encoding"] = coding
    method = draw.choice(["POST"] * 8 + ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
    clock = time.monotonic()
    answer = server.ask(draw.choice(PATHS), body=body, method=method, headers=headers)
    assert time.monotonic() - clock < LONGEST_SECONDS, body[:300]
    assert answer.status < 500 or answer.status == 501, (answer.status, body[:300], answer.body)
    assert b"Traceback" not in answer.body
    if answer.status >= 400 and method != "HEAD":
        assert set(answer.json) == {"error", "error_type"}
        assert "\n" not in answer.json["error"]
    return answer.status


def statuses_of(server: Running, count: int) -> set[int]:
    statuses = set()
    for seed in range(count):
        try:
            statuses.add(tried(server, random.Random(seed)))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    return statuses


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_any_body_has_an_answer(
    count: int, server: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {200, 400, 422} <= statuses_of(server, count)
    assert server.labels("great food") == ["good"]
    assert "Traceback" not in capsys.readouterr().err
