"""Failures of a server, on a hand-made one: said in one line, gone on from, never paid twice."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest

from tests.causal import FailingServer, answer, failing_server
from valence.config.llm import LlmSpec
from valence.data.dataset import Split, TrainingData
from valence.data.examples import Examples
from valence.errors import RunError, SpecError
from valence.evaluation.task import Classification
from valence.llm.answers import Answers, one_hot, token_logits
from valence.llm.backends import PromptSettings, ServerBackend
from valence.llm.classify import PromptedModel, QuestionBuilder
from valence.llm.prompts import Question, make_renderer
from valence.llm.server import ChatClient
from valence.llm.server_replies import retry_after_seconds
from valence.storage import cache

CHATS = [[{"role": "user", "content": f"text {i}"}] for i in range(8)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALENCE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def server() -> Iterator[FailingServer]:
    with failing_server() as told:
        yield told


def client(server: FailingServer, **settings: object) -> tuple[ChatClient, list[float]]:
    waits: list[float] = []
    return ChatClient(server.url, "m", pause=waits.append, **settings), waits  # type: ignore[arg-type]


def test_equal_questions_and_known_answers_are_not_sent_again(server: FailingServer) -> None:
    asked, _ = client(server)
    assert [reply.text for reply in asked.complete([*CHATS, CHATS[0]])] == ["0"] * 9
    assert len(server.requests) == 8
    again, _ = client(server)
    assert len(again.complete(CHATS)) == 8
    assert len(server.requests) == 8
    assert server.requests[0]["temperature"] == 0
    assert server.requests[0]["max_tokens"] == 5


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again(server: FailingServer, status: int) -> None:
    server.behave = lambda number, body: (
        (status, '{"error": {"message": "busy"}}', {"Retry-After": "7"}) if number == 1
        else (500, "oops", {}) if number == 2 else (200, answer("1"), {})
    )  # fmt: skip
    asked, waits = client(server)
    assert asked.complete(CHATS[:1])[0].text == "1"
    assert waits == [7.0, 2.0], "what the server asks for, else growing waits"


RETRY_AFTER = {
    "7": 7.0,
    "0.5": 0.5,
    "3600": 60.0,
    "-1": 1.0,
    "soon": 1.0,
    "Thu, 26 Nov 2020 23:59:59 GMT": 0.0,
}


@pytest.mark.parametrize("header", RETRY_AFTER)
def test_what_a_server_asks_for_is_waited(server: FailingServer, header: str) -> None:
    server.behave = lambda number, body: (
        (429, "busy", {"Retry-After": header}) if number == 1 else (200, answer("1"), {})
    )
    asked, waits = client(server)
    assert asked.complete(CHATS[:1])[0].text == "1"
    assert waits == [RETRY_AFTER[header]]


def test_a_date_to_come_is_waited_for() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert retry_after_seconds(soon) == pytest.approx(30, abs=2)


def test_an_answer_that_drips_in_has_a_deadline(
    server: FailingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece comes now and then, so that the limit on each piece is never reached."""
    monkeypatch.setattr("valence.llm.server.ANSWER_SECONDS", 0.3)
    server.drip_seconds = 0.1
    asked, _ = client(server, tries=2)
    begun = time.monotonic()
    with pytest.raises(RunError, match=r"did not complete an answer within 0\.3 s, after 2 tries"):
        asked.complete(CHATS[:1])
    assert time.monotonic() - begun < 5


INTERRUPTED = """
import os, signal, sys, threading, time
from valence.llm import server

asked = server.ChatClient(sys.argv[1], "m", concurrency=2)
server.UNDER_WAY_SECONDS = 0.5
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
threading.Timer(float(sys.argv[2]), os.kill, (os.getpid(), signal.SIGINT)).start()
begun = time.monotonic()
try:
    asked.complete([[{"role": "user", "content": str(i)}] for i in range(9)])
except KeyboardInterrupt:
    print(f"{time.monotonic() - begun - float(sys.argv[2]):.1f}")
"""


@pytest.mark.parametrize("hangs", [False, True], ids=["waiting to try again", "no answer"])
def test_ctrl_c_ends_at_once(server: FailingServer, hangs: bool) -> None:
    """The first question is answered; the others are told to wait ten minutes, or hang."""

    over = threading.Event()

    def behave(number: int, body: dict[str, object]) -> tuple[int, str, dict[str, str]]:
        if number == 1:
            return 200, answer("0"), {}
        if hangs:
            over.wait(120)
        return 429, "busy", {"Retry-After": "600"}

    server.behave = behave  # type: ignore[assignment]
    words = [sys.executable, "-c", INTERRUPTED, server.url, "1.5"]
    begun = time.monotonic()
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    finally:
        over.set()
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2
    assert time.monotonic() - begun < 100, "no thread is waited for at the end"
    assert "Traceback" not in done.stderr


def test_an_interrupted_run_pays_for_nothing_twice(server: FailingServer) -> None:
    server.behave = lambda number, body: (
        (200, answer("0"), {}) if number <= 3 else (429, '{"error": {"message": "quota"}}', {})
    )
    asked, _ = client(server, concurrency=1, tries=2)
    with pytest.raises(RunError, match=r"is busy \(status 429: quota\), after 2 tries; 3 of 8"):
        asked.complete(CHATS)
    paid = [body["messages"][0]["content"] for body in server.requests[:3]]
    sent = len(server.requests)
    server.behave = lambda number, body: (200, answer("1"), {})
    again, _ = client(server)
    assert len(again.complete(CHATS)) == 8
    later = [body["messages"][0]["content"] for body in server.requests[sent:]]
    assert len(later) == 5
    assert not set(later) & set(paid)


def answers_file() -> Path:
    (path,) = cache.cache_root().glob("answers/*/answers.jsonl")
    return path


def test_what_a_kill_cut_short_costs_that_answer_alone(server: FailingServer) -> None:
    asked, _ = client(server, concurrency=1)
    asked.complete(CHATS)
    whole = answers_file().read_bytes()
    answers_file().write_bytes(whole[: len(whole) - 4] + "é".encode()[:1])
    sent = len(server.requests)
    for _ in range(2):
        again, _ = client(server)
        again.complete(CHATS)
        assert len(server.requests) == sent + 1


def test_answers_that_are_cleared_meanwhile_are_written_anew(server: FailingServer) -> None:
    asked, _ = client(server, concurrency=1)
    asked.complete(CHATS[:4])
    cache.clear("answers")
    asked.complete(CHATS[:6])
    assert len(answers_file().read_text().splitlines()) == 2
    assert len(server.requests) == 6, "what this process knows is not asked again"


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, "{}", "refuses the key .status 401.; set OPENAI_API_KEY"),
        (
            404,
            '{"error": {"message": "no model m"}}',
            "does not know this model or path .*no model m",
        ),
        (400, '{"detail": "bad field"}', "rejects the prompt .status 400: bad field"),
    ],
)
def test_what_cannot_pass_is_an_error_at_once(
    server: FailingServer, status: int, body: str, told: str
) -> None:
    server.behave = lambda number, sent: (status, body, {})
    asked, waits = client(server)
    with pytest.raises(RunError, match=told) as error:
        asked.complete(CHATS)
    assert "\n" not in str(error.value)
    assert len(server.requests) == 1
    assert not waits


@pytest.mark.parametrize("body", ["{not json", "{}", '{"choices": []}', '{"choices": [{}]}', "[]"])
def test_malformed_answers_are_tried_again_and_then_told(server: FailingServer, body: str) -> None:
    server.behave = lambda number, sent: (200, body, {})
    asked, _ = client(server, tries=3)
    with pytest.raises(RunError, match="not in the OpenAI format, after 3 tries; 0 of 8 answers"):
        asked.complete(CHATS)
    assert len(server.requests) == 3


def test_a_server_that_is_down() -> None:
    waits: list[float] = []
    with failing_server() as gone:
        url = gone.url
    asked = ChatClient(url, "m", tries=3, pause=waits.append)
    with pytest.raises(RunError, match=r"cannot be reached .*after 3 tries; 0 of 1"):
        asked.complete(CHATS[:1])
    assert waits == [1.0, 2.0]


def test_the_key_is_sent_and_not_kept(
    server: FailingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    asked, _ = client(server)
    asked.complete(CHATS)
    assert server.keys[0] == "Bearer secret-key"
    assert "secret" not in asked.answers.path.read_text()
    with pytest.raises(SpecError, match="set OPENAI_API_KEY"):
        make_llm(server="http://me:pw@host/v1")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(SpecError, match="use --server URL"):
        ChatClient(None, "m")


def make_llm(**values: object) -> LlmSpec:
    from valence.config.spec import build

    return build(LlmSpec, {"model": "m", **values})


def test_a_question_repeated_before_the_answer_is_not_read_as_one(server: FailingServer) -> None:
    server.behave = lambda number, body: (
        200, answer(f"<user>{body['messages'][0]['content']}<assistant>1"), {}
    )  # fmt: skip
    asked, _ = client(server)
    assert asked.complete(CHATS[:1])[0].text == "<assistant>1"


def test_a_line_cut_short_by_a_kill_is_asked_again(server: FailingServer) -> None:
    asked, _ = client(server)
    asked.complete(CHATS[:2])
    path = asked.answers.path
    path.write_text(path.read_text()[:-20])
    again, _ = client(server)
    again.complete(CHATS[:2])
    assert len(server.requests) == 3


def test_the_rate_is_kept(server: FailingServer) -> None:
    asked, waits = client(server, concurrency=1, per_minute=30)
    asked.complete(CHATS[:4])
    assert len(waits) == 3
    assert sum(waits) > 2 + 4 + 6 - 1, "two seconds apart; the pause of the test does not wait"


CLASSES = ("negative", "neutral", "positive")


def backend(server: FailingServer, **llm: object) -> ServerBackend:
    asked, _ = client(server)
    return ServerBackend(
        make_llm(server=server.url, **llm), make_renderer("options", CLASSES), asked
    )


def test_probabilities_come_from_the_first_token(server: FailingServer) -> None:
    told = {"2": math.log(0.7), "0": math.log(0.2), " 0": math.log(0.05), "x": math.log(0.05)}
    server.behave = lambda number, body: (200, answer("2", told), {})
    answers = backend(server).answer([Question("good"), Question("fine")])
    shares = np.exp(answers.logits)
    np.testing.assert_allclose(shares[:, [0, 2]], [[0.25, 0.7]] * 2, rtol=1e-5)
    assert (shares[:, 1] < 0.1).all()
    assert server.requests[0]["top_logprobs"] == 20


def test_a_server_without_probabilities_is_read_greedily(server: FailingServer) -> None:
    server.behave = lambda number, body: (
        (422, '{"detail": "Unsupported fields: logprobs"}', {}) if "logprobs" in body
        else (200, answer("2" if number % 2 else "none of them"), {})
    )  # fmt: skip
    asked = backend(server)
    answers = asked.answer([Question(f"text {i}") for i in range(4)])
    assert sum("logprobs" in body for body in server.requests) == 1
    assert answers.invalid.sum() == 2
    notes = " ".join(answers.summary())
    assert "2 of 4 answers (50.0%) do not name one label, such as 'none of them'" in notes
    assert "without label probabilities" in notes


def test_questions_beyond_the_context_are_shortened_and_counted(server: FailingServer) -> None:
    server.behave = lambda number, body: (
        (400, '{"error": {"message": "maximum context length is 100"}}', {})
        if len(body["messages"][0]["content"]) > 400 else (200, answer("1"), {})
    )  # fmt: skip
    answers = backend(server).answer([Question("good " * 300), Question("good")])
    assert answers.shortened == 1
    assert list(answers.logits.argmax(axis=1)) == [1, 1]
    assert "1 of 2 prompts were shortened" in " ".join(answers.summary())
    server.behave = lambda number, body: (400, '{"error": {"message": "context length"}}', {})
    with pytest.raises(SpecError, match="1 prompts do not fit the context of 'm'"):
        backend(server).answer([Question("bad " * 300)])


def test_tokens_that_contradict_the_answer_are_not_used() -> None:
    renderer = make_renderer("self-alignment", CLASSES)
    told = {"ne": math.log(0.4), "pos": math.log(0.6)}
    assert token_logits(told, 2, renderer) is not None, "ne begins two labels and counts for none"
    assert token_logits(told, 1, renderer) is None
    assert token_logits({}, 1, renderer) is None


def test_invalid_answers_are_wrong_whatever_the_truth() -> None:
    logits = one_hot([None, None, None, 2], 3)
    truth = np.array([0, 1, 2, 2])
    task = Classification(CLASSES, (5, 9, 2))
    assert list(task.fill_unanswered(logits, truth).argmax(1)) == [1, 0, 1, 2]


def test_a_fallback_stands_for_invalid_answers() -> None:
    class Silent:
        def answer(self, questions: object, progress: object = None) -> Answers:
            return Answers(one_hot([None, 2], 3))

    rows = Split(["a", "b", "c"], np.arange(3), np.arange(3).astype(str))
    data = TrainingData(CLASSES, (), rows, rows)
    builder = QuestionBuilder(PromptSettings(LlmSpec()), data)
    model = PromptedModel(data.task, {}, builder, Silent(), fallback=1)
    assert list(model.predict(Examples(["x", "y"])).logits.argmax(1)) == [1, 2]
    plain = PromptedModel(data.task, {}, builder, Silent())
    assert np.isnan(plain.predict(Examples(["x", "y"])).logits[0]).all()
