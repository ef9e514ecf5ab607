"""The file formats of tables. A new format is one function and one entry of :data:`FORMATS`.

Importing this needs no pandas: scoring a file does without, and asks for the suffixes.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from valence.data.csv_layout import csv_layout, layout_note
from valence.data.csv_records import csv_records
from valence.data.file_kind import refuse_foreign
from valence.data.files import json_objects, text_encoding, wrong_encoding
from valence.data.sheets import read_sheet_batches, sheet_note, split_sheet
from valence.data.unpack import table_name, unpacked
from valence.errors import DataError, ValenceError

if TYPE_CHECKING:
    import pandas as pd

Batches = Callable[[Path, int, str | None, bool], "Iterator[pd.DataFrame]"]


@dataclass(frozen=True)
class TableFormat:
    """How the files of a suffix are read.

    Attributes:
        batches: (path, most rows, encoding, whether a header is there) → tables of so many rows,
            with every column under its name, as text where the format has no types. The file is
            never held whole.
        has_encoding: Whether the files are text, whose encoding can be named.
    """

    batches: Batches
    has_encoding: bool = False


def read_csv(
    path: Path, rows: int, encoding: str | None, has_header: bool
) -> Iterator[pd.DataFrame]:
    """A CSV or TSV file, all values as text."""
    import pandas as pd

    layout = csv_layout(path, encoding)
    with path.open(encoding=layout.encoding, newline="") as text:
        names, records = csv_records(text, layout, has_header=has_header)
        part = list(islice(records, rows))
        while True:
            yield pd.DataFrame(part, columns=pd.Index(names, dtype=object), dtype=str)
            part = list(islice(records, rows))
            if not part:
                return


def read_jsonl(
    path: Path, rows: int, encoding: str | None, has_header: bool
) -> Iterator[pd.DataFrame]:
    """A file of JSON objects, one on a line."""
    import pandas as pd

    with path.open(encoding=text_encoding(path, encoding)) as lines:
        records = json_objects(lines, path)
        while part := list(islice(records, rows)):
            yield pd.DataFrame(part)


def read_parquet(
    path: Path, rows: int, encoding: str | None, has_header: bool
) -> Iterator[pd.DataFrame]:
    """A Parquet file, with its types."""
    from valence.data.parquet import parquet_batches

    for table in parquet_batches(path, rows, held=True):
        try:
            frame = table.to_pandas()
        except (KeyError, TypeError, AttributeError, IndexError, ValueError):
            # What pandas wrote beside the types, on its index, is broken; the rows do without.
            frame = table.replace_schema_metadata(None).to_pandas()
        yield frame


def _read_sheet(
    path: Path, rows: int, encoding: str | None, has_header: bool
) -> Iterator[pd.DataFrame]:
    return read_sheet_batches(path, rows, encoding)


FORMATS: dict[str, TableFormat] = {
    ".csv": TableFormat(read_csv, has_encoding=True),
    ".tsv": TableFormat(read_csv, has_encoding=True),
    ".jsonl": TableFormat(read_jsonl, has_encoding=True),
    ".parquet": TableFormat(read_parquet),
    ".xlsx": TableFormat(_read_sheet),
    ".ods": TableFormat(_read_sheet),
}
"""Every format by suffix, in lower case."""
SUFFIXES = tuple(FORMATS)


def _is_of_arrow(error: Exception) -> bool:
    """Whether it is of a Parquet file; looked at after an error alone, as the import takes long."""
    import pyarrow as pa

    return isinstance(error, pa.ArrowException)


def table_suffix(path: Path) -> str:
    """``.csv`` of ``reviews.csv`` and of ``reviews.csv.gz``, in lower case."""
    return table_name(path).suffix.lower()


def table_stem(path: Path) -> str:
    """``reviews`` of ``reviews.csv`` and of ``reviews.csv.gz``."""
    return table_name(path).stem


def is_table(path: Path) -> bool:
    """Whether a file is of a format that is read, by its name."""
    try:
        return table_suffix(path) in FORMATS
    except DataError:  # a broken one: reading it says why
        return True


def table_file(path: Path) -> Path:
    """The file of a table, without the sheet that may stand behind it."""
    return split_sheet(path)[0]


def reading_note(path: Path, encoding: str | None) -> str:
    """What was found out to read a file: its separator, encoding, sheet; empty where nothing was.

    Raises:
        DataError: if the file cannot be read.
    """
    with reading(path, encoding) as (suffix, file):
        if suffix not in (".csv", ".tsv"):
            return sheet_note(file)
        note = layout_note(file, encoding)
        return f"{path}: {note}" if note else ""


@contextmanager
def reading(
    path: Path, encoding: str | None = None, *, has_header: bool = True
) -> Iterator[tuple[str, Path]]:
    """The kind of a table that can be read, and where it is; what goes wrong then is one line.

    Args:
        path: The file, with the sheet behind it where there are several.
        encoding: Of its text; UTF-8 when None.
        has_header: Whether the first line of a CSV names the columns.

    Yields:
        The suffix, in lower case, and the file: of a compressed one that to which it is unpacked.
    """
    requested, path = path, table_file(path)
    suffix = table_suffix(path)
    _check_options(path, suffix, encoding, has_header)
    file = path
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty; add a text and a label column")
        refuse_foreign(path)
        file = unpacked(path)
        if file != path:
            refuse_foreign(file)
        yield suffix, requested if file == path else file
    except ValenceError:
        raise
    except Exception as error:
        reason = _reason(error)
        if isinstance(error, UnicodeError):  # not only of decoding: also UTF-16 without its mark
            reason = wrong_encoding(file, encoding, name=path)
        elif isinstance(error, ValueError | csv.Error) or _is_of_arrow(error):
            reason = f"{path} cannot be read as {suffix[1:]}: {reason}"
        elif isinstance(error, OSError | MemoryError | RecursionError):
            reason = f"{path} cannot be read: {reason}"
        else:
            raise
        raise DataError(reason) from None


def _check_options(path: Path, suffix: str, encoding: str | None, has_header: bool) -> None:
    if suffix not in FORMATS:
        raise DataError(f"{path}: cannot read {suffix or 'no suffix'}; use {', '.join(FORMATS)}")
    if not has_header and suffix not in (".csv", ".tsv"):
        raise DataError(f"{path}: --no-header is for CSV and TSV files; remove it")
    if encoding is not None and not FORMATS[suffix].has_encoding:
        raise DataError(
            f"{path}: a {suffix[1:].capitalize()} file has its own encoding; remove --encoding"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "its values are nested too deeply"
    if isinstance(error, MemoryError):
        return "it is too large for this machine"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or ["broken"])[0]
