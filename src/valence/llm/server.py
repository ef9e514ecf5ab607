"""A client of an OpenAI-compatible server: parallel requests, every answer paid for once.

Every answer is written to the cache when it arrives, so an interrupted run resumes where it
stopped. Transient errors (429, 5xx, no connection, a broken answer) are retried with
exponential backoff; permanent ones are raised at once.
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
from valence.storage.lines import split_lines

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

TIMEOUT_SECONDS = 120.0
ANSWER_SECONDS = 180.0  # for a whole answer, however slowly its chunks arrive
UNDER_WAY_SECONDS = 5.0  # that Ctrl-C leaves to questions which are sent and not answered
LONGEST_WAIT_SECONDS = 60.0
TOP_TOKENS = 20  # the most that servers return
Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Reply:
    """A server's reply.

    Attributes:
        text: The generated text.
        tokens: Log-probabilities of the likeliest first tokens; empty where not returned.
        too_long: True where the question did not fit the model's context.
    """

    text: str
    tokens: dict[str, float] = field(default_factory=dict)
    too_long: bool = False


class _TransientError(Exception):
    """An error worth a retry; ``wait`` is what the server requests, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class ChatClient:
    """A client of one model of one server.

    Args:
        url: Base URL, ending in ``/v1`` as a rule; ``OPENAI_BASE_URL`` when not given.
        model: The name the server knows.
        max_new_tokens: Longest answer.
        concurrency: Requests under way at once.
        per_minute: Most requests a minute; no limit when not given.
        tries: How often a question is sent before the run gives up.
        pause: Waits a number of seconds; by default until the client is stopped, at most.

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
        self.pause = pause or self._wait_or_stop
        self.answers = _AnswerCache(self.url, model)
        self.client = _client(self.url)

    def key(self, messages: Messages) -> str:
        """Cache key of an answer."""
        return cache.content_key([json.dumps(list(messages)), str(self.max_new_tokens)])

    def complete(
        self, conversations: Sequence[Messages], progress: Progress | None = None
    ) -> list[Reply]:
        """A reply to every conversation; equal ones are sent once, cached ones not at all.

        Raises:
            RunError: if the server fails for good; answers so far stay in the cache.
        """
        chats = {self.key(messages): messages for messages in conversations}
        order = [self.key(messages) for messages in conversations]
        replies = {key: reply for key in chats if (reply := self.answers.get(key)) is not None}
        open_ = [key for key in chats if key not in replies]
        self.stopped = threading.Event()  # a new one, as threads of an earlier call may still run
        self.client = _client(self.url)
        try:
            if open_:  # the first alone, since it shows whether the server returns logprobs
                replies[open_[0]] = self._answer(open_[0], chats[open_[0]])
            self._complete_rest(open_[1:], chats, replies, progress)
        except RunError as error:
            done = sum(key in replies for key in chats)
            raise RunError(
                f"{error}; {done} of {len(chats)} answers are kept, the same command goes on "
                "from there"
            ) from None
        finally:
            self.client.close()
        return [replies[key] for key in order]

    def _complete_rest(
        self, keys: list[str], chats: dict[str, Messages], replies: dict[str, Reply],
        progress: Progress | None,
    ) -> None:  # fmt: skip
        queue: SimpleQueue[str] = SimpleQueue()
        for key in keys:
            queue.put(key)
        failures: list[BaseException] = []
        stopped = self.stopped

        def answer_all() -> None:
            with suppress(Empty):
                while not stopped.is_set():
                    key = queue.get_nowait()
                    try:
                        replies[key] = self._answer(key, chats[key])
                    except BaseException as error:
                        failures.append(error)
                        stopped.set()  # at once, so that no further request is sent
                        return
                    if progress is not None:
                        progress(len(replies), len(chats))

        # Daemons: a thread whose server does not answer must not block the exit after Ctrl-C.
        threads = [Thread(target=answer_all, daemon=True) for _ in keys[: self.concurrency]]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:  # on Ctrl-C too: requests under way may still end, and are cached
            stopped.set()
            end = time.monotonic() + UNDER_WAY_SECONDS
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))
        if failures:
            raise failures[0]

    def _answer(self, key: str, messages: Messages) -> Reply:
        reply = self._send_with_retries(messages)
        if not reply.too_long:
            self.answers.add(key, reply)
        return reply

    def _send_with_retries(self, messages: Messages) -> Reply:
        from tenacity import (
            Retrying,
            retry_if_exception_type,
            stop_after_attempt,
            stop_when_event_set,
        )

        retrying = Retrying(
            retry=retry_if_exception_type(_TransientError), wait=_wait_seconds, sleep=self.pause,
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

        self._wait_for_slot()
        body: dict[str, Any] = {
            "model": self.model, "messages": list(messages), "temperature": 0,
            "max_tokens": self.max_new_tokens,
        }  # fmt: skip
        with_logprobs = self.logprobs
        if with_logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_TOKENS}
        try:
            response = self._post(body)
        except httpx.TransportError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise _TransientError(f"cannot be reached ({reason})") from None
        if response.status_code == 200:
            return _parse_reply(response, messages[-1]["content"])
        if with_logprobs and response.status_code in (400, 422) and "logprobs" in response.text:
            self.logprobs = False  # this server returns none
            return self._send(messages)
        return _parse_error(self.url, response)

    def _post(self, body: dict[str, Any]) -> httpx.Response:
        """The response to a request, complete and before the deadline.

        httpx's own timeout is per chunk: a byte a second would never reach it.
        """
        deadline = time.monotonic() + ANSWER_SECONDS
        with self.client.stream("POST", "/chat/completions", json=body) as response:
            chunks = []
            for chunk in response.iter_bytes():
                chunks.append(chunk)
                if time.monotonic() > deadline:
                    raise _TransientError(f"has not answered whole within {ANSWER_SECONDS:g} s")
        headers = _without_encoding(response.headers)
        return type(response)(response.status_code, headers=headers, content=b"".join(chunks))

    def _wait_or_stop(self, seconds: float) -> None:
        self.stopped.wait(seconds)

    def _wait_for_slot(self) -> None:
        with self.lock:
            self.requests += 1
            now = time.monotonic()
            start = max(now, self.next_start)
            self.next_start = start + self.interval
        if start > now:
            self.pause(start - now)
        if self.stopped.is_set():
            raise RunError("no further request is sent after the client has stopped")


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


def _parse_reply(response: httpx.Response, prompt: str) -> Reply:
    """The reply in a response of status 200.

    Some servers repeat the prompt before the answer, as transformers serve does for chat
    templates it does not know; its labels would be read as the answer.
    """
    try:
        choice = response.json()["choices"][0]
        text = choice["message"]["content"] or ""
        first = (((choice.get("logprobs") or {}).get("content")) or [{}])[0]
        tokens = {str(t["token"]): float(t["logprob"]) for t in first.get("top_logprobs") or []}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise _TransientError("sent an answer that is not of the OpenAI form") from None
    return Reply(str(text).rpartition(prompt)[2] if prompt else str(text), tokens)


def _parse_error(url: str, response: httpx.Response) -> Reply:
    """The reply or error for a status that is not 200."""
    status, message = response.status_code, _error_message(response)
    if status in (400, 413, 422) and any(
        word in message.lower() for word in ("context", "too long", "maximum length", "too large")
    ):
        return Reply("", too_long=True)
    if status in (408, 409, 429) or status >= 500:
        problem = "is busy" if status == 429 else "fails"
        after = retry_after_seconds(response.headers.get("retry-after", ""))
        raise _TransientError(f"{problem} (status {status}{message and f': {message}'})", after)
    if status in (401, 403):
        raise RunError(f"Server {url} refuses the key (status {status}); set OPENAI_API_KEY")
    if status == 404:
        raise RunError(
            f"Server {url} knows no such model or path (status 404{message and f': {message}'}); "
            "check --model and the URL, which ends in /v1 as a rule"
        )
    raise RunError(
        f"Server {url} refuses the question (status {status}{message and f': {message}'})"
    )


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
    """The wait the server requests, else exponential backoff; both limited."""
    assert state.outcome is not None
    failure = state.outcome.exception()
    requested = failure.wait if isinstance(failure, _TransientError) else None
    backoff = 2.0 ** (state.attempt_number - 1)
    return min(backoff if requested is None else requested, LONGEST_WAIT_SECONDS)


def _without_encoding(headers: httpx.Headers) -> dict[str, str]:
    """Headers without those that say how the body was sent: it is decoded by now."""
    encoding = ("content-encoding", "content-length", "transfer-encoding")
    return {name: value for name, value in headers.items() if name not in encoding}


def _error_message(response: httpx.Response) -> str:
    """The message of an error response, in one short line."""
    try:
        body = response.json()
        error = body.get("error", body.get("detail", ""))
        message = error.get("message", "") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        message = response.text
    return " ".join(str(message).split())[:160]


class _AnswerCache:
    """Answers of one model of one server, one JSON line each, added to as they arrive."""

    def __init__(self, url: str, model: str) -> None:
        self.about = {"server": url, "model": model}
        self.name = cache.content_key([url, model])
        self.path = cache.cache_root() / cache.ANSWERS.name / self.name / "answers.jsonl"
        self.lock = threading.Lock()
        self.replies: dict[str, Reply] = {}
        self._create()  # so that an unwritable cache fails before anything is paid for
        text = self._read_text()
        # A line that a kill left incomplete must not swallow the next answer.
        self.separator = "" if text.endswith("\n") or not text else "\n"
        for line in split_lines(text):
            try:
                row = json.loads(line)
                self.replies[row["key"]] = Reply(row["text"], row["tokens"])
            except (ValueError, KeyError, TypeError):
                continue  # a line that a kill left incomplete

    def get(self, key: str) -> Reply | None:
        return self.replies.get(key)

    def add(self, key: str, reply: Reply) -> None:
        row = {"key": key, "text": reply.text, "tokens": reply.tokens}
        line = json.dumps(row, ensure_ascii=False) + "\n"
        with self.lock:
            self.replies[key] = reply
            self._create()  # again where another process has cleared the cache
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(self.separator + line)
            except OSError as error:
                raise RunError(
                    f"Cannot write {self.path}: {error.strerror or error}; {cache.ADVICE}"
                ) from None
            self.separator = ""

    def _read_text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def _create(self) -> None:
        if cache.find(cache.ANSWERS, self.name) is None:
            with cache.writing(cache.ANSWERS, self.name, self.about) as scratch:
                (scratch / self.path.name).touch()
