"""Settings of a server: where it listens, what it accepts, which keys it knows."""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass, field
from pathlib import Path

from valence.distributed.device import Hardware
from valence.errors import SpecError
from valence.serving.connections import ConnectionLimits
from valence.serving.hosts import is_loopback

KEY_VARIABLE = "VALENCE_API_KEY"
SHORTEST_KEY = 8


@dataclass(frozen=True)
class Limits:
    """Bounds on what one request, and all of them together, may cost.

    Attributes:
        body_bytes: Largest body that is read.
        text_chars: Longest text; a model truncates far earlier.
        texts: Most texts of one request.
        explained: Most texts of one request for an explanation.
        queue_texts: Texts that may wait; beyond it requests are refused with 429.
        wait_seconds: How long the last of the queue may have to wait, at the pace of the
            batches so far; beyond it requests are refused with 429 too.
        batch_texts: Texts that are scored together.
        gather_ms: How long a batch waits for company.
        timeout_seconds: How long an accepted request may wait for its answer.
    """

    body_bytes: int = 1_048_576
    text_chars: int = 20_000
    texts: int = 256
    explained: int = 8
    queue_texts: int = 1024
    wait_seconds: float = 5.0
    batch_texts: int = 64
    gather_ms: float = 2.0
    timeout_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0 and name != "gather_ms":
                raise SpecError(f"The server limit {name} is {value}; use a number above 0")
        if self.texts > self.queue_texts:
            raise SpecError(
                f"A request may hold {self.texts} texts but the queue only {self.queue_texts}; use "
                "a longer queue or fewer texts"
            )


@dataclass(frozen=True)
class ServeSettings:
    """Everything a server process needs; plain values, so that it can be sent to one.

    Attributes:
        folder: The model folder.
        host: Address to listen on.
        port: Port to listen on; 0 picks a free one.
        workers: Processes, each with a model of its own.
        keys: SHA-256 digests of the valid keys; without any, everybody has access.
        limits: Bounds of requests.
        connections: Bounds of connections.
        allowed_hosts: Names that requests may give in ``Host`` beside those of this machine
            itself, ``*.example.org`` for all below one; without any, a server that listens
            to others too answers under every name.
        hardware: How the model is run.
        reload_seconds: How often the folder is checked for a new model; 0 never.
        drain_seconds: How long a stopping server still takes requests that were on their way.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    limits: Limits = field(default_factory=Limits)
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    allowed_hosts: tuple[str, ...] = ()
    hardware: Hardware = field(default_factory=Hardware)
    reload_seconds: float = 2.0
    drain_seconds: float = 0.3

    @property
    def is_open(self) -> bool:
        """Whether others than this machine may reach it without a key."""
        return not is_loopback(self.host) and not self.keys

    @property
    def hosts(self) -> tuple[str, ...] | None:
        """Names beside the machine's own that are answered under; None for every name."""
        if not self.allowed_hosts and not is_loopback(self.host):
            return None
        return self.allowed_hosts


def read_keys(path: Path | None) -> tuple[bytes, ...]:
    """Digests of the keys in ``path`` (one per line), or of the one in ``VALENCE_API_KEY``.

    Several keys let old and new ones live side by side while they are exchanged.

    Raises:
        SpecError: if the file cannot be read or is empty, or a key is short or not ASCII.
    """
    if path is None:
        given = os.environ.get(KEY_VARIABLE, "").strip()
        lines, where = ([given] if given else []), KEY_VARIABLE
    else:
        where = str(path)
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"The file of API keys {path} cannot be read: {error}") from None
        lines = [line for line in lines if line and not line.startswith("#")]
        if not lines:
            raise SpecError(f"The file of API keys {path} has no key; write one per line")
    for line in lines:
        if len(line) < SHORTEST_KEY or not (line.isascii() and line.isprintable()):
            raise SpecError(
                f"A key in {where} is shorter than {SHORTEST_KEY} characters or not ASCII; create "
                "one with: openssl rand -hex 16"
            )
    return tuple(digest(line.encode("ascii")) for line in lines)


def digest(key: bytes) -> bytes:
    """SHA-256: keys of any length become equally long before they are compared."""
    return hashlib.sha256(key).digest()


def is_known(key: bytes, keys: tuple[bytes, ...]) -> bool:
    """Whether ``key`` is one of ``keys``; takes as long whichever it is."""
    own = digest(key)
    matches = False
    for known in keys:
        matches |= hmac.compare_digest(own, known)
    return matches
