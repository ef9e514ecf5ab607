"""How a CSV file is laid out: its separator, its encoding, a first line that names the separator.

Nothing here needs pandas.
"""

from __future__ import annotations

import csv
import io
import re
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from valence.data.encoding import MARKS, marked_encoding

SAMPLE_BYTES = 1 << 16
SAMPLE_ROWS = 20
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""As messages call them."""

_NAMED = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


@dataclass(frozen=True)
class CsvLayout:
    """How a file is read.

    Attributes:
        separator: Between two columns.
        encoding: Of the text.
        skipped: Lines before the one that names the columns.
        quotes_are_text: Whether a quote at the beginning of a value belongs to it.
    """

    separator: str
    encoding: str
    skipped: int = 0
    quotes_are_text: bool = False

    @property
    def quoting(self) -> Literal[0, 3]:
        """As the module ``csv`` and pandas name it."""
        return csv.QUOTE_NONE if self.quotes_are_text else csv.QUOTE_MINIMAL


def csv_layout(path: Path, encoding: str | None) -> CsvLayout:
    """The layout of a CSV or TSV file, by its first lines.

    Semicolons, tabs or bars separate the columns of a CSV if they give most rows as many values
    as the first and a comma does not, or if its first line says ``sep=;``. The same holds for a
    TSV without a tab in its first line.

    Args:
        path: The file.
        encoding: As it was named; by its byte order mark, else UTF-8, when None.

    Raises:
        OSError: if the file cannot be read.
        UnicodeError: if it looks like UTF-16 or UTF-32 without the mark.
    """
    encoding = encoding or marked_encoding(path) or "utf-8-sig"
    with path.open("rb") as file:
        start = file.read(SAMPLE_BYTES)
    lines = list(io.StringIO(start.decode(encoding, errors="ignore"), newline=""))
    named = _NAMED.fullmatch(lines[0]) if lines else None
    if named:
        return CsvLayout(named[1], encoding, skipped=1)
    whole = lines[:-1] if len(start) == SAMPLE_BYTES else lines
    separator = _separator(whole, usual=usual_separator(path))
    if path.suffix.lower() == ".tsv" and separator == "\t":
        return CsvLayout("\t", encoding, quotes_are_text=_has_open_quotes(path, encoding))
    return CsvLayout(separator, encoding)


def usual_separator(path: Path) -> str:
    """What separates the columns of a file by its suffix."""
    return "\t" if path.suffix.lower() == ".tsv" else ","


def layout_note(path: Path, encoding: str | None) -> str:
    """What is unusual in the layout of a file, in words; empty where nothing is."""
    layout = csv_layout(path, encoding)
    words = []
    if layout.separator in SEPARATORS and layout.separator != usual_separator(path):
        words.append(f"columns are separated by {SEPARATORS[layout.separator]}")
    if layout.quotes_are_text:
        words.append("quotes at the beginning of values are part of them")
    if encoding is None and layout.encoding in MARKS.values():
        words.append(f"read as {layout.encoding.upper()}, by its byte order mark")
    return ", ".join(words)


def _has_open_quotes(path: Path, encoding: str) -> bool:
    """Whether a value of a TSV begins with a quote that it does not end with.

    Nothing is quoted in such a file; a line break within quotes would change the columns of its
    lines, and then it is read as quoted.
    """
    opened = False
    with path.open(encoding=encoding, errors="replace", newline="\n") as lines:
        width = next(lines, "").count("\t")
        for line in lines:
            values = line.rstrip("\r\n").split("\t")
            if values != [""] and len(values) != width + 1:
                return False
            opened = opened or any(v.startswith('"') and not _is_closed(v) for v in values)
    return opened


def _is_closed(value: str) -> bool:
    return len(value) > 1 and value.endswith('"') and value.count('"') % 2 == 0


def _separator(lines: list[str], *, usual: str) -> str:
    """What gives the same number of values in most rows of the sample, the usual one first."""
    marks = (usual, *(mark for mark in SEPARATORS if mark != usual))
    widths = {mark: _widths(lines, mark) for mark in marks}
    heads = {mark: rows[0] if rows else 0 for mark, rows in widths.items()}
    even = [mark for mark in marks if heads[mark] > 1 and len(set(widths[mark])) == 1]
    most = [mark for mark in marks if heads[mark] > 1
            and 2 * widths[mark].count(heads[mark]) > len(widths[mark])]  # fmt: skip
    if usual in even or (usual in most and not even):
        return usual
    return max(even or most, key=lambda mark: heads[mark], default=usual)


def _widths(lines: list[str], separator: str) -> list[int]:
    """Values of each row of the sample; as many as can be read."""
    widths: list[int] = []
    with suppress(csv.Error):
        for row in islice(csv.reader(lines, delimiter=separator), SAMPLE_ROWS):
            if row:
                widths.append(len(row))
    return widths
