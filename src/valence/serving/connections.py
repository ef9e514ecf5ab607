"""Connections with an end: deadlines for headers, idling and reading, and a bound on their number.

uvicorn has a limit for idle connections that have had an answer, and none for those that never
send a whole header, nor for readers that take no answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from valence.errors import SpecError

RESERVED_FILES = 64  # open files that are no connections: the model, logs, the interpreter's own
FEWEST = 8
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    b"connection: close\r\ncontent-length: 78\r\n\r\n"
    b'{"error": "Too many connections; try again later", "error_type": "overloaded"}'
)


@dataclass(frozen=True)
class ConnectionLimits:
    """Bounds of connections.

    Attributes:
        most: Open at once, per process; fewer where the system allows fewer open files.
        header_seconds: From the first moment to the last byte of a header.
        idle_seconds: Without a request, and for a reader that takes no answer.
        header_bytes: Longest header.
    """

    most: int = 1000
    header_seconds: float = 10.0
    idle_seconds: float = 30.0
    header_bytes: int = 16_384

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise SpecError(f"The connection limit {name} is {value}; use a value above 0")

    @property
    def effective_most(self) -> int:
        """How many connections this process can have."""
        try:
            import resource
        except ImportError:  # not on Windows
            return self.most
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files == resource.RLIM_INFINITY:
            return self.most
        return max(FEWEST, min(self.most, files - RESERVED_FILES))


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with deadlines; made by :func:`bounded_protocol`."""

    limits = ConnectionLimits()
    most = limits.most

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config, server_state, app_state, _loop)
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._opened = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, in the place of one without a header where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.most and not self._make_room():
            transport.write(FULL)
            transport.close()
            return
        self._expect_header()

    def _make_room(self) -> bool:
        """End the connection that has waited longest for its first header; false without one."""
        waiting = [
            other
            for other in self.connections
            if isinstance(other, BoundedProtocol)
            and other is not self
            and other._header_timer is not None
        ]
        if not waiting:
            return False
        min(waiting, key=lambda other: other._opened).transport.abort()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop_header_timer()
        self._stop_write_timer()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Take bytes; the clock of a header stops with its last byte."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_header_timer()
        elif self._header_timer is None and not self.transport.is_closing():
            self._expect_header()

    def on_response_complete(self) -> None:
        """After an answer: idle, in the middle of the next header, or at the end."""
        super().on_response_complete()
        if self.transport.is_closing():  # what it has not read yet is not waited for
            self._expect_reading()
        elif self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._unset_keepalive_if_required()
            if self._header_timer is None:
                self._expect_header()

    def _expect_header(self) -> None:
        self._header_timer = self.loop.call_later(self.limits.header_seconds, self._no_header)

    def _no_header(self) -> None:
        self._header_timer = None
        self.transport.abort()

    def timeout_keep_alive_handler(self) -> None:
        """The idle limit; a reader that has left an answer half read is cut off."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def pause_writing(self) -> None:
        """The reader is slower than the answer."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """It reads on."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_write_timer()

    def _expect_reading(self) -> None:
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.limits.idle_seconds, self.transport.abort)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP; in the middle of an answer there is nothing to say any more."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # what it would still send has no place any more
            self.cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.transport.abort()
        self._expect_reading()


def bounded_protocol(limits: ConnectionLimits) -> type[BoundedProtocol]:
    """The protocol of one server."""
    bounds = {"limits": limits, "most": limits.effective_most}
    return type("ServerProtocol", (BoundedProtocol,), bounds)
