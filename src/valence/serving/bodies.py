"""Bodies as they are meant: gzip is unpacked within the limit, nests are measured first."""

from __future__ import annotations

import re
import zlib

from valence.serving.refusals import Refusal

GZIP = 16 + zlib.MAX_WBITS
DEEPEST = 32
"""Brackets within each other; a request needs five."""
_TOKEN = re.compile(rb'"(?:[^"\\]+|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
# An open string goes to the end, or every quote in it would be tried anew.


def plain_body(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The body without its content encoding.

    Args:
        body: As it came.
        encoding: Value of ``Content-Encoding``.
        limit: Most bytes of what is unpacked.

    Raises:
        Refusal: 415 for another encoding, 413 beyond the limit, 400 for broken gzip or a nest.
    """
    name = encoding.strip().lower()
    if name in (b"gzip", b"x-gzip"):
        body = _unpacked(body, limit)
    elif name not in (b"", b"identity"):
        raise Refusal(
            415, "validation",
            f"Content-Encoding {name.decode('latin-1')[:40]!r} is not supported; send gzip or none",
        )  # fmt: skip
    _refuse_nest(body)
    return body


def _unpacked(body: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while body:
        unpacker = zlib.decompressobj(GZIP)
        try:
            part = unpacker.decompress(body, limit + 1 - size)
        except zlib.error:
            raise Refusal(
                400, "validation", "The body is not valid gzip; compress it again"
            ) from None
        size += len(part)
        if size > limit:
            raise Refusal(
                413, "validation",
                f"The body is larger than {limit} bytes when unpacked; send fewer or shorter texts",
            )  # fmt: skip
        if not unpacker.eof:
            raise Refusal(400, "validation", "The body is not valid gzip; compress it again")
        parts.append(part)
        body = unpacker.unused_data
    return b"".join(parts)


def _refuse_nest(body: bytes) -> None:
    depth = 0
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return
    for match in _TOKEN.finditer(body):
        first = match.group()[:1]
        depth += (first in b"[{") - (first in b"]}")
        if depth > DEEPEST:
            raise Refusal(
                400, "validation",
                f"The body has more than {DEEPEST} nested brackets; send "
                '{"inputs": […]}',
            )  # fmt: skip
