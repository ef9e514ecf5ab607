"""How a CSV file is laid out: its separator, its encoding, a first line that names the separator.

Nothing here needs pandas.
"""

from __future__ import annotations

import codecs
import csv
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

SAMPLE_BYTES = 1 << 16
SAMPLE_ROWS = 20
OTHERS = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""Separators beside the comma, as messages call them."""

_NAMED = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


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

    Semicolons, tabs or bars separate the columns of a CSV if a comma would give one column and
    they give the same number in every row, or if its first line says ``sep=;``.

    Args:
        path: The file.
        encoding: As it was named; UTF-16 by its byte order mark, else UTF-8, when None.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(SAMPLE_BYTES)
    if encoding is None:
        encoding = "utf-16" if start.startswith(_MARKS) else "utf-8-sig"
    lines = start.decode(encoding, errors="ignore").splitlines(keepends=True)
    if path.suffix.lower() == ".tsv":
        return CsvLayout("\t", encoding, quotes_are_text=_has_open_quotes(path, encoding))
    named = _NAMED.fullmatch(lines[0]) if lines else None
    if named:
        return CsvLayout(named[1], encoding, skipped=1)
    whole = lines[:-1] if len(start) == SAMPLE_BYTES else lines
    return CsvLayout(_separator(whole), encoding)


def layout_note(path: Path, encoding: str | None) -> str:
    """What is unusual in the layout of a file, in words; empty where nothing is."""
    layout = csv_layout(path, encoding)
    words = []
    if path.suffix.lower() == ".csv" and layout.separator in OTHERS:
        words.append(f"columns are separated by {OTHERS[layout.separator]}")
    if layout.quotes_are_text:
        words.append("quotes at the beginning of values are part of them")
    if encoding is None and layout.encoding == "utf-16":
        words.append("read as UTF-16, by its byte order mark")
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


def _separator(lines: list[str]) -> str:
    widths = {mark: _width(lines, mark) for mark in (",", *OTHERS)}
    if _header_width(lines, ",") > 1:
        return ","
    best = max(OTHERS, key=lambda mark: widths[mark])
    return best if widths[best] > 1 else ","


def _header_width(lines: list[str], separator: str) -> int:
    return next((len(row) for row in csv.reader(lines, delimiter=separator) if row), 0)


def _width(lines: list[str], separator: str) -> int:
    """Columns, if all rows of the sample have the same number; else 0."""
    try:
        rows = list(islice(filter(None, csv.reader(lines, delimiter=separator)), SAMPLE_ROWS))
    except csv.Error:
        return 0
    sizes = {len(row) for row in rows}
    return sizes.pop() if len(sizes) == 1 else 0
