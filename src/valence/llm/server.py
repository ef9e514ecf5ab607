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
from dataclasses import replace
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, NoReturn

from valence.errors import RunError, SpecError
from valence.llm.answer_cache import AnswerCache
from valence.llm.server_replies import (
    RefusedError,
    Reply,
    TransientError,
    parse_error,
    parse_reply,
    without_encoding,
)
from valence.models.base import Progress
from valence.storage import cache

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

TIMEOUT_SECONDS = 120.0
ANSWER_SECONDS = 180.0  # for a whole answer, however slowly its chunks arrive
UNDER_WAY_SECONDS = 5.0  # that Ctrl-C leaves to questions which are sent and not answered
LONGEST_WAIT_SECONDS = 60.0
TOP_TOKENS = 20  # the most that servers return
Messages = Sequence[dict[str, str]]


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
            raise SpecError("No server given; use --server URL or set OPENAI_BASE_URL")
        self.url, self.model = url.rstrip("/"), model
        self.max_new_tokens, self.concurrency, self.tries = max_new_tokens, concurrency, tries
        self.requests = 0
        self.interval = 60.0 / per_minute if per_minute else 0.0
        self.next_start = 0.0
        self.logprobs = True
        self.limit_name, self.temperature = "max_tokens", True
        self.answered = False
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.pause = pause or self._wait_or_stop
        self.answers = AnswerCache(self.url, model)
        self.secret = api_key()
        self.client = _client(self.url, self.secret)

    def key(self, messages: Messages) -> str:
        """Cache key of an answer."""
        return cache.content_key([json.dumps(list(messages)), str(self.max_new_tokens)])

    def complete(
        self, conversations: Sequence[Messages], progress: Progress | None = None
    ) -> list[Reply]:
        """A reply to every conversation; equal ones are sent once, cached ones not at all.

        Raises:
            RunError: if the server fails for good; answers so far stay in the cache. A question
                that it refuses for itself is none: its reply says why.
        """
        chats = {self.key(messages): messages for messages in conversations}
        order = [self.key(messages) for messages in conversations]
        replies = {key: reply for key in chats if (reply := self.answers.get(key)) is not None}
        open_ = [key for key in chats if key not in replies]
        self.stopped = threading.Event()  # a new one, as threads of an earlier call may still run
        self.client = _client(self.url, self.secret)
        try:
            if open_:  # the first alone, since it shows whether the server returns logprobs
                replies[open_[0]] = self._answer(open_[0], chats[open_[0]])
            self._complete_rest(open_[1:], chats, replies, progress)
        except RunError as error:
            done = sum(key in replies for key in chats)
            ending = (
                "" if isinstance(error, RefusedError) else "; run the same command again to resume"
            )
            words = self.masked(f"{error}; {done} of {len(chats)} answers are kept{ending}")
            raise RunError(words) from None
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
        if reply.is_answer:
            self.answered = True
            self.answers.add(key, reply)
        if reply.refused:
            reply = replace(reply, refused=self.masked(reply.refused))
        return reply

    def _send_with_retries(self, messages: Messages) -> Reply:
        from tenacity import (
            Retrying,
            retry_if_exception_type,
            stop_after_attempt,
            stop_when_event_set,
        )

        retrying = Retrying(
            retry=retry_if_exception_type(TransientError), wait=_wait_seconds, sleep=self.pause,
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
        body = self._body(messages)
        try:
            response = self._post(body)
        except httpx.TransportError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise TransientError(f"cannot be reached ({reason})") from None
        if response.status_code == 200:
            return parse_reply(response, messages[-1]["content"])
        if response.status_code in (400, 422) and self._left_out(body, response.text):
            return self._send(messages)
        return parse_error(self.url, response, answered=self.answered)

    def _body(self, messages: Messages) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model, "messages": list(messages), self.limit_name: self.max_new_tokens
        }  # fmt: skip
        if self.temperature:
            body["temperature"] = 0
        if self.logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_TOKENS}
        return body

    def _left_out(self, body: dict[str, Any], message: str) -> bool:
        """Whether a parameter that a server refuses is renamed or left out from now on.

        Several requests may be refused before the first refusal is read, so that what counts is
        what a request had.
        """
        words = message.lower()
        if "max_tokens" in body and "max_completion_tokens" in words:
            self.limit_name = "max_completion_tokens"
        elif "temperature" in body and "temperature" in words:
            self.temperature = False
        elif "logprobs" in body and "logprobs" in words:
            self.logprobs = False
        else:
            return False
        return True

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how the server was asked."""
        if self.temperature:
            return ()
        return ("the server ignores the temperature, so its answers may vary from run to run",)

    def masked(self, text: str) -> str:
        """A foreign text without the key."""
        return text.replace(self.secret, "***") if self.secret else text

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
                    raise TransientError(f"did not complete an answer within {ANSWER_SECONDS:g} s")
        headers = without_encoding(response.headers)
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


def api_key() -> str:
    """The key in the environment, without the line end that a file gave it; empty for none.

    Raises:
        SpecError: if it cannot stand in a header. The key itself is not shown.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise SpecError(
            f"OPENAI_API_KEY ({len(key)} characters) contains a space, line end or invalid "
            "character; set it again"
        )
    return key


def _client(url: str, key: str) -> httpx.Client:
    try:
        import httpx
        import tenacity  # noqa: F401 - comes with the same extra
    except ImportError:
        raise RunError(
            "Servers need httpx, which is not installed: pip install 'valence[llm]'"
        ) from None
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        return httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)
    except ImportError:  # httpx raises it for one kind of proxy
        raise RunError(
            "A proxy in the environment (such as ALL_PROXY) is a SOCKS proxy, which needs an extra "
            "package: pip install 'httpx[socks]'; or unset the variable"
        ) from None
    except (httpx.InvalidURL, ValueError) as error:
        if "proxy" in str(error).lower():
            raise SpecError(
                "A proxy in the environment (ALL_PROXY, HTTPS_PROXY …) is not a valid URL; write "
                "http://host:port, or unset it"
            ) from None
        raise SpecError(f"Server {url!r} is not a valid URL; write http://host:port/v1") from None


def _wait_seconds(state: RetryCallState) -> float:
    """The wait the server requests, else exponential backoff; both limited."""
    assert state.outcome is not None
    failure = state.outcome.exception()
    requested = failure.wait if isinstance(failure, TransientError) else None
    backoff = 2.0 ** (state.attempt_number - 1)
    return min(backoff if requested is None else requested, LONGEST_WAIT_SECONDS)
