"""Values of cells as the texts they stand for: bytes, lists of one value, objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from valence.errors import DataError

SHOWN = 4
LONGEST_SHOWN = 60


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


def shortened(value: str) -> str:
    """The beginning of a long value, for messages."""
    return value if len(value) <= LONGEST_SHOWN else value[: LONGEST_SHOWN - 1] + "…"


def is_nested(value: object) -> bool:
    """Whether a value is a list, an array or an object."""
    return isinstance(value, list | tuple | Mapping) or hasattr(value, "__array__")


def unwrapped(value: Any, row: int, where: str, what: str) -> Any:
    """The value of a list of one; None for an empty list; other values as they are.

    Args:
        value: Of a cell.
        row: Its number in the source, from 1.
        where: Name of the source, for messages.
        what: ``text`` or ``label``.

    Raises:
        DataError: if it is an object, or a list of several values.
    """
    if isinstance(value, Mapping):
        raise DataError(
            f"{where}: the {what} of row {row} is an object with "
            f"{', '.join(map(repr, list(value)[:SHOWN])) or 'nothing'}; write its value instead"
        )
    if not is_nested(value):
        return value
    inner = list(value)
    if len(inner) > 1:
        advice = "one label is learned per row" if what == "label" else "join its words"
        raise DataError(f"{where}: the {what} of row {row} is a list of {len(inner)}; {advice}")
    return unwrapped(inner[0], row, where, what) if inner else None
