"""Files of tables: their encodings, JSON lines, and which column is which.

Nothing here needs pandas.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from valence.data.csv_records import MOST_COLUMNS
from valence.data.encoding import likely_encoding, marked_encoding
from valence.errors import DataError

TEXT_COLUMNS = ("text", "sentence", "review", "content", "tweet")
LABEL_COLUMNS = ("label", "sentiment", "category", "class", "target")


def text_encoding(path: Path, encoding: str | None) -> str:
    """The codec of a file's text: as named, else by its byte order mark, else UTF-8.

    Raises:
        OSError: if the file cannot be read.
        UnicodeError: if it looks like UTF-16 or UTF-32 without the mark.
    """
    return encoding or marked_encoding(path) or "utf-8-sig"


def json_objects(lines: Iterable[str], path: Path) -> Iterator[dict[str, Any]]:
    """The objects of JSON lines.

    Args:
        lines: What is read of ``path``.
        path: For messages.

    Raises:
        DataError: with the line that is no JSON object.
    """
    names: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "\\u" in line:  # the only way in which JSON holds half a character
                text = json.dumps(row, ensure_ascii=False)
                whole = whole_characters(text)
                row = row if whole is text else json.loads(whole)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: not valid JSON ({error.msg})") from None
        except RecursionError:
            raise DataError(f"{path}, line {number}: values are nested too deeply") from None
        except ValueError:  # of a number with thousands of digits
            raise DataError(f"{path}, line {number}: a number is too long") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: each line must be one JSON object")
        names.update(row)
        if len(names) > MOST_COLUMNS:
            raise DataError(f"{path}, line {number}: more than {MOST_COLUMNS} columns")
        yield row


def whole_characters(text: str) -> str:
    """The text with halves of surrogate pairs, which no encoding takes, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def wrong_encoding(path: Path, encoding: str | None, *, name: Path | None = None) -> str:
    """The message on a file that cannot be decoded, with the line where that is known.

    Args:
        path: The file.
        encoding: As it was named; UTF-8 when None.
        name: What the user calls it, if not its path.
    """
    where = f"{name or path}{_undecodable_line(path, encoding or 'utf-8')}"
    if encoding is None:
        likely = likely_encoding(path)
        if likely is None:
            return f"{where}: not UTF-8; set its encoding, for example --encoding cp1252"
        return f"{where}: not UTF-8, probably {likely}; try --encoding {likely} and check the texts"
    return f"{where}: not {encoding}; set its encoding with --encoding"


def _undecodable_line(path: Path, encoding: str) -> str:
    # pandas decodes in blocks, so its position is not the file's; a line ends no character.
    if "\n".encode(encoding) != b"\n":
        return ""  # lines of two-byte encodings end otherwise
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode(encoding)
            except UnicodeError:
                return f", line {number}"
    return ""


def usual_column(columns: Sequence[str], usual: Sequence[str]) -> str | None:
    """The first usual name that a column has, in any case; None where none has one."""
    lower = {name.lower(): name for name in reversed(columns)}
    return next((lower[name] for name in usual if name in lower), None)


def find_column(
    columns: Sequence[str], requested: str | None, usual: Sequence[str], *, what: str, where: str
) -> str:
    """The name of a column: the requested one, or the first usual one that exists.

    Raises:
        DataError: naming the columns there are and the closest one.
    """
    if requested is not None and requested in columns:
        return requested
    known = usual_column(columns, usual) if requested is None else None
    if known is not None:
        return known
    names = ", ".join(columns[:20])
    if requested is None:
        raise DataError(
            f"{where}: which column holds the {what}s? Columns: {names}. Set it with "
            f"--{what}-column"
        )
    close = difflib.get_close_matches(requested, columns, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise DataError(
        f"{where}: no column {requested!r}; {hint}columns: {names}; set it with --{what}-column"
    )
