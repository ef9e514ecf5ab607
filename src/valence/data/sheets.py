"""Sheets of Excel and OpenDocument files, read as a person sees them.

The sheet is named behind the file, ``reviews.xlsx#Sheet1``; without a name it is the first one that
is not empty. The first row with names in two columns or more is the header, so that titles above it
are passed over; blank rows are left out.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valence.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SHEET_SUFFIXES = (".xlsx", ".ods")


@dataclass(frozen=True)
class Sheet:
    """The cells of a sheet.

    Attributes:
        names: Of the columns; empty columns are left out.
        rows: Cells as text, None where they are empty.
        note: Which sheet and header row were taken, where there was a choice; else empty.
    """

    names: list[str]
    rows: list[list[str | None]]
    note: str = ""


def split_sheet(path: Path) -> tuple[Path, str | None]:
    """``reviews.xlsx#Mai`` → the file and the sheet; other paths as they are, without a sheet."""
    name, mark, sheet = path.name.rpartition("#")
    if mark and Path(name).suffix.lower() in SHEET_SUFFIXES and not path.exists():
        return path.with_name(name), sheet
    return path, None


def read_sheet_batches(path: Path, rows: int, encoding: str | None) -> Iterator[pd.DataFrame]:
    """A sheet in tables of at most ``rows`` rows, all cells as text."""
    import pandas as pd

    sheet = read_sheet(path)
    for start in range(0, max(1, len(sheet.rows)), rows):
        yield pd.DataFrame(sheet.rows[start : start + rows], columns=sheet.names, dtype=object)


def read_sheet(path: Path) -> Sheet:
    """The sheet that a path names, or the first that is not empty.

    Raises:
        DataError: if the extra is not installed, the file is no such file, the sheet is not
            there or empty, or no row names the columns.
    """
    file, requested = split_sheet(path)
    with _opened(file) as book:
        names: list[str] = book.sheet_names
        if requested is not None and requested not in names:
            raise DataError(f"{file} has no sheet {requested!r}; it has {', '.join(names)}")
        for name in names if requested is None else [requested]:
            cells = book.get_sheet_by_name(name).to_python(skip_empty_area=True)
            rows = [[_text(value) for value in row] for row in cells]
            if any(map(_filled, rows)):
                return _sheet(rows, f"{file}, sheet {name!r}", name, several=len(names) > 1)
    raise DataError(f"{path} has no values; add a text and a label column")


def sheet_note(path: Path) -> str:
    """Which sheet and header row were taken, where there was a choice; else empty."""
    is_sheet = split_sheet(path)[0].suffix.lower() in SHEET_SUFFIXES
    return read_sheet(path).note if is_sheet else ""


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        raise DataError(f"Reading {file} needs an extra: pip install 'valence[xlsx]'") from None
    try:
        book = CalamineWorkbook.from_path(file)
    except CalamineError as error:
        raise DataError(
            f"{file} is not a valid {file.suffix[1:].upper()} file ({error}); "
            "save it again, or as CSV"
        ) from None
    try:
        yield book
    finally:
        book.close()


def _sheet(rows: Sequence[Sequence[str]], where: str, name: str, *, several: bool) -> Sheet:
    at = next((i for i, row in enumerate(rows) if len(_filled(row)) > 1), None)
    if at is None:  # one column, named by its first cell
        at = next(i for i, row in enumerate(rows) if _filled(row))
    header = [value.strip() for value in rows[at]]
    below = rows[at + 1 :]
    used = [i for i in range(len(header)) if header[i] or any(row[i].strip() for row in below)]
    unnamed = [i for i in used if not header[i]]
    if unnamed:
        raise DataError(
            f"{where}: row {at + 1} has the column names, but not column {_letter(unnamed[0])}, "
            "which has values; add a name, or delete the column"
        )
    notes = [f"sheet {name!r} was used"] if several else []
    notes += [f"row {at + 1} has the column names"] if at else []
    return Sheet(
        [header[i] for i in used],
        [[row[i] or None for i in used] for row in below if _filled(row)],
        f"{where.partition(', sheet')[0]}: {', '.join(notes)}" if notes else "",
    )


def _filled(row: Sequence[str]) -> list[str]:
    return [value for value in row if value.strip()]


def _text(value: Any) -> str:
    """A cell as a person sees it: no decimals of whole numbers, no time of a plain date."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, datetime.datetime):
        is_date = value.time() == datetime.time()
        return str(value.date()) if is_date else value.isoformat(sep=" ")
    return str(value)


def _letter(column: int) -> str:
    """``0`` → ``A``, ``26`` → ``AA``."""
    letters = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
