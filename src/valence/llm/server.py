"""A language model behind an OpenAI-compatible server: asked in parallel, paid for once.

Every answer is written to the cache when it arrives, so an interrupted run goes on where it
stopped. What may pass (429, 5xx, no connection, a broken answer) is tried again with growing
waits; what cannot pass is an error at once.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, NoReturn

from valence.errors import RunError, SpecError
from valence.models.base import Progress
from valence.storage import cache

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

TIMEOUT_SECONDS = 120.0
ANSWER_SECONDS = 180.0  # for a whole answer, however slowly its pieces come
UNDER_WAY_SECONDS = 5.0  # that Ctrl-C leaves to questions which are sent and not answered
LONGEST_WAIT_SECONDS = 60.0
TOP_TOKENS = 20  # the most that servers tell
Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Reply:
    """What a server answered.

    Attributes:
        text: The generated text.
        tokens: Log-probabilities of the likeliest first tokens; empty where not told.
        too_long: True where the question did not fit the model's context.
    """

    text: str
    tokens: dict[str, float] = field(default_factory=dict)
    too_long: bool = False


class _Passing(Exception):
    """A failure that may pass; ``wait`` is what the server asks for, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Server:
    """A client for one model of one server.

    Args:
        url: Base URL, ending in ``/v1`` as a rule; ``OPENAI_BASE_URL`` when not given.
        model: The name the server knows.
        max_new_tokens: Longest answer.
        concurrency: Requests under way at once.
        per_minute: Most requests a minute; no limit when not given.
        tries: How often a question is sent before the run gives up.
        pause: Waits a number of seconds; the end of the work ends it too when not given.

    Raises:
        SpecError: if there is no URL.
        RunError: if httpx is not installed.
    """

    def __init__(
        self, url: str | None, model: str, *, max_new_tokens: int = 5, concurrency: int = 4,
        per_minute: int | None = None, tries: int = 6,
        pause: Callable[[float], None] | None = None,
    ) -> None:  # fmt: skip
        url = url or os.environ.get("OPENAI_BASE_URL")
        if not url:
            raise SpecError("No server is named; give --server URL or set OPENAI_BASE_URL")
        self.url, self.model = url.rstrip("/"), model
        self.max_new_tokens, self.concurrency, self.tries = max_new_tokens, concurrency, tries
        self.requests = 0
        self.interval = 60.0 / per_minute if per_minute else 0.0
        self.next_start = 0.0
        self.logprobs = True
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.pause = pause or self._wait_or_end
        self.kept = _KeptAnswers(self.url, model)
        self.client = _client(self.url)

    def key(self, messages: Messages) -> str:
        """What an answer is kept under."""
        return cache.content_key([json.dumps(list(messages)), str(self.max_new_tokens)])

    def ask(
        self, conversations: Sequence[Messages], progress: Progress | None = None
    ) -> list[Reply]:
        """A reply to every conversation; equal ones are asked once, known ones not at all.

        Raises:
            RunError: if the server fails for good; what was answered is kept.
        """
        wanted = {self.key(messages): messages for messages in conversations}
        order = [self.key(messages) for messages in conversations]
        replies = {key: reply for key in wanted if (reply := self.kept.get(key)) is not None}
        open_ = [key for key in wanted if key not in replies]
        self.stopped = threading.Event()  # its own, as threads of a call before may still run
        self.client = _client(self.url)
        try:
            if open_:  # the first alone, since it shows whether probabilities are told
                replies[open_[0]] = self._answer(open_[0], wanted[open_[0]])
            self._ask_rest(open_[1:], wanted, replies, progress)
        except RunError as error:
            done = sum(key in replies for key in wanted)
            raise RunError(
                f"{error}; {done} of {len(wanted)} answers are kept, the same command goes on "
                "from there"
            ) from None
        finally:
            self.client.close()
        return [replies[key] for key in order]

    def _ask_rest(
        self, keys: list[str], wanted: dict[str, Messages], replies: dict[str, Reply],
        progress: Progress | None,
    ) -> None:  # fmt: skip
        waiting: SimpleQueue[str] = SimpleQueue()
        for key in keys:
            waiting.put(key)
        failures: list[BaseException] = []
        stopped = self.stopped

        def answer_all() -> None:
            with suppress(Empty):
                while not stopped.is_set():
                    key = waiting.get_nowait()
                    try:
                        replies[key] = self._answer(key, wanted[key])
                    except BaseException as error:
                        failures.append(error)
                        stopped.set()  # at once, so that no further question is sent
                        return
                    if progress is not None:
                        progress(len(replies), len(wanted))

        # Daemons: one whose server does not answer holds nobody up after Ctrl-C.
        threads = [Thread(target=answer_all, daemon=True) for _ in keys[: self.concurrency]]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:  # on Ctrl-C too: what is under way may still end, and is kept
            stopped.set()
            end = time.monotonic() + UNDER_WAY_SECONDS
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))
        if failures:
            raise failures[0]

    def _answer(self, key: str, messages: Messages) -> Reply:
        reply = self._tried(messages)
        if not reply.too_long:
            self.kept.add(key, reply)
        return reply

    def _tried(self, messages: Messages) -> Reply:
        from tenacity import (
            Retrying,
            retry_if_exception_type,
            stop_after_attempt,
            stop_when_event_set,
        )

        retrying = Retrying(
            retry=retry_if_exception_type(_Passing), wait=_wait_seconds, sleep=self.pause,
            stop=stop_after_attempt(self.tries) | stop_when_event_set(self.stopped),
            retry_error_callback=self._give_up,
        )  # fmt: skip
        reply: Reply = retrying(self._send, messages)
        return reply

    def _give_up(self, state: RetryCallState) -> NoReturn:
        number = state.attempt_number
        assert state.outcome is not None
        raise RunError(
            f"Server {self.url} {state.outcome.exception()}, after {number} "
            f"{'try' if number == 1 else 'tries'}"
        ) from None

    def _send(self, messages: Messages) -> Reply:
        import httpx

        self._wait_for_turn()
        body: dict[str, Any] = {
            "model": self.model, "messages": list(messages), "temperature": 0,
            "max_tokens": self.max_new_tokens,
        }  # fmt: skip
        told = self.logprobs
        if told:
            body |= {"logprobs": True, "top_logprobs": TOP_TOKENS}
        try:
            response = self._posted(body)
        except httpx.TransportError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise _Passing(f"cannot be reached ({reason})") from None
        if response.status_code == 200:
            return _read(response, messages[-1]["content"])
        if told and response.status_code in (400, 422) and "logprobs" in response.text:
            self.logprobs = False  # this server tells none
            return self._send(messages)
        return _refused(self.url, response)

    def _posted(self, body: dict[str, Any]) -> httpx.Response:
        """The answer to a question, whole and in time.

        The client's own limit is for each piece: a byte a second would never reach it.
        """
        deadline = time.monotonic() + ANSWER_SECONDS
        with self.client.stream("POST", "/chat/completions", json=body) as response:
            pieces = []
            for piece in response.iter_bytes():
                pieces.append(piece)
                if time.monotonic() > deadline:
                    raise _Passing(f"has not answered whole within {ANSWER_SECONDS:g} s")
        return type(response)(
            response.status_code, headers=_plain(response.headers), content=b"".join(pieces)
        )

    def _wait_or_end(self, seconds: float) -> None:
        self.stopped.wait(seconds)

    def _wait_for_turn(self) -> None:
        with self.lock:
            self.requests += 1
            now = time.monotonic()
            start = max(now, self.next_start)
            self.next_start = start + self.interval
        if start > now:
            self.pause(start - now)
        if self.stopped.is_set():
            raise RunError("no further question is sent after the end")


def _client(url: str) -> httpx.Client:
    try:
        import httpx
        import tenacity  # noqa: F401 - comes with the same extra
    except ImportError:
        raise RunError(
            "Asking a server needs httpx, which is not installed: pip install 'valence[llm]'"
        ) from None
    key = os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        return httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)
    except (httpx.InvalidURL, ValueError):
        raise SpecError(f"Server {url!r} is no URL; write http://host:port/v1") from None


def _read(response: httpx.Response, asked: str) -> Reply:
    """The reply in an answer of status 200.

    Some servers repeat the question before the answer, as transformers serve does for chat
    templates it does not know; its labels would be read as the answer.
    """
    try:
        choice = response.json()["choices"][0]
        text = choice["message"]["content"] or ""
        first = (((choice.get("logprobs") or {}).get("content")) or [{}])[0]
        tokens = {str(t["token"]): float(t["logprob"]) for t in first.get("top_logprobs") or []}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise _Passing("sent an answer that is not of the OpenAI form") from None
    return Reply(str(text).rpartition(asked)[2] if asked else str(text), tokens)


def _refused(url: str, response: httpx.Response) -> Reply:
    """What to do about a status that is not 200."""
    status, said = response.status_code, _message(response)
    if status in (400, 413, 422) and any(
        word in said.lower() for word in ("context", "too long", "maximum length", "too large")
    ):
        return Reply("", too_long=True)
    if status in (408, 409, 429) or status >= 500:
        what = "is busy" if status == 429 else "fails"
        after = retry_after_seconds(response.headers.get("retry-after", ""))
        raise _Passing(f"{what} (status {status}{said and f': {said}'})", after)
    if status in (401, 403):
        raise RunError(f"Server {url} refuses the key (status {status}); set OPENAI_API_KEY")
    if status == 404:
        raise RunError(
            f"Server {url} knows no such model or path (status 404{said and f': {said}'}); check "
            "--model and the URL, which ends in /v1 as a rule"
        )
    raise RunError(f"Server {url} refuses the question (status {status}{said and f': {said}'})")


def retry_after_seconds(text: str) -> float | None:
    """The wait of a header ``Retry-After``: seconds, or a date; None where it is neither."""
    if text.replace(".", "", 1).isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _wait_seconds(state: RetryCallState) -> float:
    """What the server asks for, else growing waits; neither longer than the longest."""
    assert state.outcome is not None
    failure = state.outcome.exception()
    asked = failure.wait if isinstance(failure, _Passing) else None
    growing = 2.0 ** (state.attempt_number - 1)
    return min(growing if asked is None else asked, LONGEST_WAIT_SECONDS)


def _plain(headers: httpx.Headers) -> dict[str, str]:
    """Headers without those that say how the body was sent: it is unpacked by now."""
    sent = ("content-encoding", "content-length", "transfer-encoding")
    return {name: value for name, value in headers.items() if name not in sent}


def _message(response: httpx.Response) -> str:
    """What a refusal says, in one short line."""
    try:
        body = response.json()
        error = body.get("error", body.get("detail", ""))
        said = error.get("message", "") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        said = response.text
    return " ".join(str(said).split())[:160]


class _KeptAnswers:
    """Answers of one model of one server, one JSON line each, added to as they arrive."""

    def __init__(self, url: str, model: str) -> None:
        self.about = {"server": url, "model": model}
        self.name = cache.content_key([url, model])
        self.path = cache.cache_root() / cache.ANSWERS.name / self.name / "answers.jsonl"
        self.lock = threading.Lock()
        self.replies: dict[str, Reply] = {}
        self._make()  # a cache that cannot be written is said before anything is paid for
        text = self._text()
        # What a kill cut short must not swallow the next answer.
        self.separator = "" if text.endswith("\n") or not text else "\n"
        for line in text.splitlines():
            try:
                row = json.loads(line)
                self.replies[row["key"]] = Reply(row["text"], row["tokens"])
            except (ValueError, KeyError, TypeError):
                continue  # a line that a kill cut short

    def get(self, key: str) -> Reply | None:
        return self.replies.get(key)

    def add(self, key: str, reply: Reply) -> None:
        row = {"key": key, "text": reply.text, "tokens": reply.tokens}
        line = json.dumps(row, ensure_ascii=False) + "\n"
        with self.lock:
            self.replies[key] = reply
            self._make()  # again where another process has cleared the cache
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(self.separator + line)
            except OSError as error:
                raise RunError(
                    f"Cannot write {self.path}: {error.strerror or error}; {cache.ADVICE}"
                ) from None
            self.separator = ""

    def _text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def _make(self) -> None:
        if cache.find(cache.ANSWERS, self.name) is None:
            with cache.writing(cache.ANSWERS, self.name, self.about) as scratch:
                (scratch / self.path.name).touch()
