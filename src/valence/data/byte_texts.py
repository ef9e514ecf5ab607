"""Texts that come as bytes, as from a BLOB, a bytea or a Python 2 pickle: UTF-8, or refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from valence.errors import DataError


def text_of_bytes(value: Any, where: str) -> Any:
    """Bytes as the text they hold in UTF-8; other values as they are.

    Raises:
        DataError: if bytes are no UTF-8.
    """
    if not isinstance(value, bytes | bytearray | memoryview):
        return value
    raw = bytes(value)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        start = raw[:12].hex(" ")
        raise DataError(
            f"{where}: a text or label is not valid UTF-8 ({start} …); convert the column to text"
        ) from None


def texts_of_bytes(values: Iterable[Any], where: str) -> Any:
    """The same of a list or a column of pandas, which is returned as it is if it has no bytes.

    Raises:
        DataError: if bytes are no UTF-8.
    """
    if not any(isinstance(value, bytes | bytearray | memoryview) for value in values):
        return values
    if isinstance(values, list):
        return [text_of_bytes(value, where) for value in values]
    column: Any = values
    return column.map(lambda value: text_of_bytes(value, where))
