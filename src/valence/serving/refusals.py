"""Answers that are no result: a status, an error type and one line of reason."""

from __future__ import annotations

import json
import logging

LOG = logging.getLogger("valence.serving")
LONGEST_REASON = 300


class Refusal(Exception):
    """A request that is not answered with a result.

    Args:
        status: HTTP status.
        error_type: One word for programs.
        reason: One line for people: what is wrong and what to do.
        retry_after: Seconds after which to retry, for a busy server.
        closes: Whether the connection ends with it.
    """

    def __init__(
        self, status: int, error_type: str, reason: str, retry_after: int | None = None, *,
        closes: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(reason)
        self.closes = closes
        self.status, self.error_type, self.retry_after = status, error_type, retry_after
        line = " ".join(reason.split())
        # Half a surrogate pair comes through JSON and cannot be written as UTF-8.
        line = line.encode("utf-8", errors="replace").decode("utf-8")
        self.reason = line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}…"

    @property
    def headers(self) -> dict[str, str]:
        """Headers beside the usual ones."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 415:
            headers["Accept-Encoding"] = "gzip"
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    @property
    def body(self) -> bytes:
        """The JSON document ``{"error": …, "error_type": …}``."""
        return json.dumps(
            {"error": self.reason, "error_type": self.error_type}, ensure_ascii=False
        ).encode("utf-8")


def busy(retry_after: int) -> Refusal:
    """The queue is full."""
    return Refusal(
        429, "overloaded", f"The server is busy; try again in {retry_after} s", retry_after
    )


def too_late(seconds: float) -> Refusal:
    """No answer came in time."""
    return Refusal(503, "timeout", f"No answer within {seconds:g} s; try again later", 5)


def stopping() -> Refusal:
    """The server takes nothing more."""
    return Refusal(503, "unhealthy", "The server is stopping; try again later", 5)


def broken(error: BaseException) -> Refusal:
    """Something failed inside; the log has what, the answer does not."""
    reason = (str(error).strip().splitlines() or [""])[0]
    LOG.error("%s: %s", type(error).__name__, reason)
    return Refusal(500, "backend", "The model failed on this request; see the server's log")
