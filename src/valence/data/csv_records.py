"""The records of a CSV or TSV file: as many as it has rows, or an error with the line.

A quote that is opened and not closed would make one value of many rows, and none of them would be
missed. Nothing here needs pandas.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

from valence.data.csv_layout import SEPARATORS, CsvLayout

MOST_COLUMNS = 16_384
"""Of a table: as many as a spreadsheet has."""
LONGEST_LINE = 1 << 27
"""Characters."""
LONGEST_FIELD = 2**31 - 1  # csv's own limit is 128 KiB
NAMED_ROWS = 2000
"""Rows whose short values are remembered, to know them again within a value of several lines."""
LONGEST_LABEL = 60
MOST_INNER = 10
"""Lines of the width of a row that no text has in succession."""


def csv_records(
    text: IO[str], layout: CsvLayout, *, has_header: bool = True
) -> tuple[list[str], Iterator[list[str | None]]]:
    """The names of the columns, and the rows below; blank lines are skipped.

    Args:
        text: The file, at its beginning, opened with ``newline=""``.
        layout: How it is read.
        has_header: Whether the first line names the columns; else they are called
            ``column 1``, ``column 2`` and so on.

    Raises:
        ValueError: where the place is reached: a quote that is not closed, a row with more values
            than the first line, a line or a table that is too wide.
    """
    csv.field_size_limit(LONGEST_FIELD)
    lines = _Lines(text)
    for _ in range(layout.skipped):
        next(lines)
    reader = csv.reader(lines, delimiter=layout.separator, quoting=layout.quoting)
    first = next(filter(None, reader), [])
    check_width(len(first))
    names = [name.strip() for name in first]
    if not has_header:
        names = [f"column {number}" for number in range(1, len(first) + 1)]
    checked = _Checked(reader, lines, layout, len(names))
    return names, checked.records([] if has_header else [first])


def check_width(columns: int) -> None:
    """Refuse a table with more columns than any has.

    Raises:
        ValueError: with their number.
    """
    if columns > MOST_COLUMNS:
        raise ValueError(f"it has {columns} columns; at most {MOST_COLUMNS} can be read")


class _Lines:
    """Lines of a file, those of the last record, and whether they are at an end."""

    def __init__(self, lines: IO[str]) -> None:
        self.lines = lines
        self.number = 0
        self.ended = False
        self.recent: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.lines.readline(LONGEST_LINE)
        self.number += bool(line)
        if len(line) == LONGEST_LINE:
            raise ValueError(f"line {self.number} is longer than {LONGEST_LINE} characters")
        if not line:
            self.ended = True
            raise StopIteration
        self.recent.append(line)
        return line


class _Checked:
    """Records as wide as the first line."""

    def __init__(self, reader: Any, lines: _Lines, layout: CsvLayout, width: int) -> None:
        self.reader, self.lines, self.layout, self.width = reader, lines, layout, width
        self.seen = [Counter[str]() for _ in range(width)] if width < LONGEST_LABEL else []
        self.counted = 0

    def records(self, before: list[list[str]]) -> Iterator[list[str | None]]:
        """All rows.

        Args:
            before: Rows that have been read.
        """
        for record in before:
            yield [value or None for value in record]
        self.lines.recent.clear()
        for record in self.reader:
            recent, start = self.lines.recent, self.lines.number - len(self.lines.recent) + 1
            if self.lines.ended:  # a record that needed more lines than there are
                raise ValueError(f'a quote " in line {start} is never closed')
            if len(recent) > 1:
                self._check_lines(recent, start)
            recent.clear()
            if record:
                yield self._filled(record)

    def _filled(self, record: list[str]) -> list[str | None]:
        extra = len(record) - self.width
        if extra > 0:
            if any(record[self.width :]):
                raise ValueError(
                    f"line {self.lines.number} has {len(record)} values and the first line "
                    f"{self.width}; put values with {_shown(self.layout.separator)} in quotes, "
                    f"and double quotes inside "
                    'them: ""'
                )
            del record[self.width :]
        if self.seen and self.counted < NAMED_ROWS:
            self.counted += 1
            for values, value in zip(self.seen, record, strict=False):
                if len(value) <= LONGEST_LABEL:
                    values[value] += 1
        return [value or None for value in record] + [None] * -extra

    def _check_lines(self, lines: list[str], start: int) -> None:
        """Refuse a value of several lines that are rows by themselves."""
        try:
            for _ in csv.reader(lines, delimiter=self.layout.separator, strict=True):
                pass
        except csv.Error:
            broken = True
        else:
            broken = self._are_rows(lines[:-1])
        if broken:
            end = start + len(lines) - 1
            raise ValueError(
                f'a quote " in line {start} makes one value of the lines to {end}; close it, or '
                f"double quotes inside "
                'values: ""'
            )

    def _are_rows(self, lines: list[str]) -> bool:
        rows = [line.rstrip("\r\n").split(self.layout.separator) for line in lines]
        if self.width < 2 or any(len(row) != self.width for row in rows):
            return False
        columns = zip(self.seen, zip(*rows, strict=True), strict=False)
        return len(rows) >= MOST_INNER or any(
            all(value and seen[value] > 1 for value in values) for seen, values in columns
        )


def _shown(separator: str) -> str:
    return SEPARATORS.get(separator, repr(separator))
