"""What every request passes first: key, size, time, count; and what no answer may show."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from valence.serving.bodies import plain_body
from valence.serving.hosts import is_answered
from valence.serving.metrics import Metrics
from valence.serving.refusals import Refusal, broken
from valence.serving.settings import Limits, is_known

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PAGE_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/ask.js": ("ask.js", "text/javascript; charset=utf-8"),
    "/theme.js": ("theme.js", "text/javascript; charset=utf-8"),
    "/table.js": ("table.js", "text/javascript; charset=utf-8"),
    "/sheet.js": ("sheet.js", "text/javascript; charset=utf-8"),
    "/fflate.js": ("vendor/fflate.js", "text/javascript; charset=utf-8"),  # 0.8.3, MIT
    "/page.svg": ("page.svg", "image/svg+xml"),
}
"""The page: path → file of the package and its media type; nothing else is read from disk."""
DOCS_FILES = {
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}
"""The page of ``/openapi.json``, of a server without keys."""
OPEN_PATHS = frozenset({*PAGE_FILES, "/health", "/ready"})
"""Answered without a key: they say nothing of the model."""
COUNTED_PATHS = (
    OPEN_PATHS | set(DOCS_FILES) | {"/predict", "/explain", "/info", "/metrics", "/openapi.json"}
)
CLOSING = frozenset({408, 413, 421})
"""After these the connection is closed: what comes on it next is not looked for."""
DISCARDED_BODIES = 16  # times the largest body: read and thrown away, so that the reason arrives
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


class Guard:
    """ASGI middleware around the whole application.

    Args:
        app: What is guarded.
        hosts: Names that are answered under beside the machine's own; None for every name.
        keys: Digests of the valid keys; without any, everybody has access.
        limits: Bounds of requests.
        metrics: Counts every answer.

    Attributes:
        draining: Set when the server stops: connections are closed after their answer.
        taken: Requests that have come.
        active: Those of them that are not answered yet.
    """

    def __init__(
        self, app: App, *, keys: tuple[bytes, ...], limits: Limits, metrics: Metrics,
        hosts: tuple[str, ...] | None = None,
    ) -> None:  # fmt: skip
        self.hosts = hosts
        self.app, self.keys, self.limits, self.metrics = app, keys, limits, metrics
        self.draining = False
        self.taken = self.active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        clock, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = [*SECURITY_HEADERS]
                if self.draining or status in CLOSING:
                    extra.append((b"connection", b"close"))
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        self.taken += 1
        self.active += 1
        try:
            await self._pass(scope, receive, answer)
        except Exception as error:
            refusal = error if isinstance(error, Refusal) else broken(error)
            if not status:
                await respond(answer, refusal, closes=refusal.closes and not self.draining)
        finally:
            self.active -= 1
            path = scope["path"] if scope["path"] in COUNTED_PATHS else "other"
            self.metrics.answered(path, status, time.perf_counter() - clock)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        self._check_head(scope, headers)
        if self.keys and scope["path"] not in OPEN_PATHS:
            self._check_key(headers)
        body = b""
        if scope["method"] not in ("GET", "HEAD"):
            body = await self._body(receive)
            kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
            if body and kind != b"application/json":
                raise Refusal(
                    415, "validation", "The Content-Type is not JSON; send the header "
                    "Content-Type: application/json",
                )  # fmt: skip
            codings = [value for name, value in scope["headers"] if name == b"content-encoding"]
            body = plain_body(body, b", ".join(codings), self.limits.body_bytes)
        if scope["method"] == "HEAD":  # as GET; the server leaves the body out
            scope = {**scope, "method": "GET"}
        await self.app(scope, _replay(body, receive), send)

    def _check_head(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if b"transfer-encoding" in headers and (
            b"content-length" in headers or scope["http_version"] == "1.0"
        ):
            raise Refusal(
                400, "validation", "Transfer-Encoding is combined with Content-Length or "
                "HTTP/1.0, so the end of the body is unclear; send only one of "
                "them", closes=True,
            )  # fmt: skip
        host = headers.get(b"host", b"").decode("latin-1")
        if not is_answered(host, self.hosts):
            raise Refusal(
                421, "validation", f"This server does not accept the host {host[:100]!r}; use its "
                "own address, or start it with --allowed-host",
            )  # fmt: skip

    def _check_key(self, headers: dict[bytes, bytes]) -> None:
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        given = key.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        if not given:
            raise Refusal(
                401, "unauthorized", "This server needs an API key; send the header "
                "Authorization: Bearer KEY",
            )  # fmt: skip
        if not is_known(given, self.keys):
            raise Refusal(401, "unauthorized", "The API key is unknown; check it")

    async def _body(self, receive: Receive) -> bytes:
        """The whole body, or a refusal; a sender too slow is not waited for."""
        limit = self.limits.body_bytes
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.limits.timeout_seconds):
                more = True
                while more and size <= DISCARDED_BODIES * limit:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "validation", "The body is incomplete")
                    part = message.get("body", b"")
                    size += len(part)
                    if size <= limit:
                        parts.append(part)
                    more = message.get("more_body", False)
        except TimeoutError:
            raise Refusal(408, "timeout", "The body was sent too slowly") from None
        if size > limit:
            raise Refusal(
                413, "validation",
                f"The body is larger than {limit} bytes; send fewer or shorter texts",
            )  # fmt: skip
        return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body that was read, then what comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def respond(send: Send, refusal: Refusal, *, closes: bool = False) -> None:
    """Send a refusal as an answer, the last of its connection where it ``closes``."""
    headers = [(b"content-type", b"application/json")]
    headers += [(n.lower().encode(), v.encode()) for n, v in refusal.headers.items()]
    headers.append((b"content-length", str(len(refusal.body)).encode()))
    if closes:
        headers.append((b"connection", b"close"))
    start = {"type": "http.response.start", "status": refusal.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": refusal.body})
