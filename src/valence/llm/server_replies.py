"""What a server of the OpenAI form sends back: answers, refusals of a question, errors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from valence.errors import RunError

if TYPE_CHECKING:
    import httpx

SHOWN = 160  # characters of a foreign message
TOO_LONG = ("context", "too long", "maximum length", "too large", "input length")
FILTERED = (
    "content_filter", "content filter", "content management", "content policy", "moderation",
    "flagged", "safety", "inappropriate", "data_inspection",
)  # fmt: skip
"""Words by which servers say that they do not answer a text because of what it says."""
NO_FUNDS = ("insufficient_quota", "billing")


@dataclass(frozen=True)
class Reply:
    """A server's reply.

    Attributes:
        text: The generated text.
        tokens: Log-probabilities of the likeliest first tokens; empty where not returned.
        too_long: True where the question did not fit the model's context.
        refused: Why the server did not answer this question; empty where it did.
    """

    text: str
    tokens: dict[str, float] = field(default_factory=dict)
    too_long: bool = False
    refused: str = ""

    @property
    def is_answer(self) -> bool:
        """Whether the question was answered."""
        return not self.too_long and not self.refused


class TransientError(Exception):
    """An error worth a retry; ``wait`` is what the server requests, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class RefusedError(RunError):
    """An error that the same command meets again."""


def parse_reply(response: httpx.Response, prompt: str) -> Reply:
    """The reply in a response of status 200.

    Some servers repeat the prompt before the answer, as transformers serve does for chat
    templates it does not know; its labels would be read as the answer.

    Raises:
        TransientError: if it is an error, or not of the OpenAI form.
    """
    try:
        body = response.json()
        if isinstance(body, dict) and body.get("error") and not body.get("choices"):
            raise TransientError(f"answers with an error ({error_message(response)})")
        choice = body["choices"][0]
        message = choice["message"]
        text = _text(message["content"])
        first = (((choice.get("logprobs") or {}).get("content")) or [{}])[0]
        tokens = {str(t["token"]): float(t["logprob"]) for t in first.get("top_logprobs") or []}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        start = " ".join(response.text[:60].split())
        raise TransientError(
            f"sent an answer ({start!r} …) that is not in the OpenAI format"
        ) from None
    refusal = message.get("refusal") or (
        "content filter" if choice.get("finish_reason") == "content_filter" else ""
    )
    if refusal and not text:
        return Reply("", refused=_short(refusal))
    return Reply(text.rpartition(prompt)[2] if prompt else text, _finite(tokens))


def _text(content: Any) -> str:
    """The text of an answer, which some servers send in parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content)
    return str(content or "")


def _finite(tokens: dict[str, float]) -> dict[str, float]:
    """Tokens with a probability; none at all where one is not a number."""
    if any(math.isnan(value) for value in tokens.values()):
        return {}
    return {token: value for token, value in tokens.items() if math.isfinite(value)}


def parse_error(url: str, response: httpx.Response, *, answered: bool) -> Reply:
    """The reply or error for a status that is not 200.

    Args:
        url: The server, for messages.
        response: What it sent.
        answered: Whether it has answered another question of this kind, so that a refusal is of
            this question and not of all.

    Raises:
        TransientError: if it may answer later.
        RunError: if it answers no question so.
    """
    status, message = response.status_code, error_message(response)
    words = f"{message} {response.text[:2000]}".lower()
    shown = f"status {status}{message and f': {message}'}"
    own = _refused_question(status, message, words)
    if own is not None:
        return own
    if status == 429 and any(word in words for word in NO_FUNDS):
        raise RunError(f"Server {url} has no funds or quota left for this key ({shown})")
    if status in (408, 409, 429) or status >= 500:
        after = retry_after_seconds(response.headers.get("retry-after", ""))
        raise TransientError(f"{'is busy' if status == 429 else 'fails'} ({shown})", after)
    if status in (401, 403):
        raise RunError(f"Server {url} refuses the key (status {status}); set OPENAI_API_KEY")
    if status == 404:
        raise RefusedError(f"Server {url} does not know this model or path ({shown}); check "
        f"--model and the URL, which usually ends in "
                           "/v1")  # fmt: skip
    if 300 <= status < 400:
        where = _short(response.headers.get("location", "another address"))
        raise RefusedError(f"Server {url} redirects to {where}; use that URL")
    if answered:
        return Reply("", refused=_short(message or f"status {status}"))
    advice = "; set llm.max_new_tokens lower" if _is_of_length(words) else ""
    raise RefusedError(f"Server {url} rejects the prompt ({shown}){advice}")


def _refused_question(status: int, message: str, words: str) -> Reply | None:
    """The reply where a server refuses this question for what it says, or for its length."""
    if status not in (400, 403, 413, 422) or _is_of_length(words):
        return None
    if any(word in words for word in FILTERED):
        return Reply("", refused=_short(message or f"status {status}"))
    if status != 403 and any(word in message.lower() for word in TOO_LONG):
        return Reply("", too_long=True)
    return None


def _is_of_length(words: str) -> bool:
    """Whether the length of answers is refused, which is the same for all questions."""
    return "completion tokens" in words or "max_tokens is too large" in words


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


def without_encoding(headers: httpx.Headers) -> dict[str, str]:
    """Headers without those that say how the body was sent: it is decoded by now."""
    encoding = ("content-encoding", "content-length", "transfer-encoding")
    return {name: value for name, value in headers.items() if name not in encoding}


def error_message(response: httpx.Response) -> str:
    """The message of an error response, in one short line."""
    try:
        body = response.json()
        error = body.get("error", body.get("detail", ""))
        message = error.get("message", "") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        message = response.text
    return _short(message)


def _short(message: Any) -> str:
    return " ".join(str(message).split())[:SHOWN]
