"""Reading a table in parts that keep every column as it is: CSV, TSV, JSONL, Parquet, SQL.

Unlike the readers of training data, nothing is renamed, typed or left out, and pandas is not
needed, which takes a third of a second and 60 MB to import.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from valence.config.data import DataSpec
from valence.config.database_url import is_sql_url
from valence.data.csv_layout import csv_layout
from valence.data.csv_records import csv_records
from valence.data.files import json_objects, text_encoding
from valence.data.formats import SUFFIXES, is_table, reading, table_file, table_suffix
from valence.errors import DataError

PART_CHARACTERS = 8_000_000
"""A part of a text file ends here even if it has few rows: long texts fill the memory too."""


@dataclass(frozen=True)
class Part:
    """Some rows of a source.

    Attributes:
        names: Columns, in the order of the source.
        columns: Their values, None where there is none; empty where ``arrow`` has them.
        fraction_read: Of the source, when the part ends, in (0, 1].
        arrow: The rows as a ``pyarrow.Table``, of a source that has its types.
    """

    names: list[str]
    columns: list[list[Any]]
    fraction_read: float
    arrow: Any = None

    def __len__(self) -> int:
        if self.arrow is not None:
            return int(self.arrow.num_rows)
        return len(self.columns[0]) if self.columns else 0

    def values(self, place: int) -> list[Any]:
        """The values of the column at ``place``."""
        if self.arrow is not None:
            values: list[Any] = self.arrow.column(place).to_pylist()
            return values
        return self.columns[place]


class RowReader(Protocol):
    """A table that is read in parts, the same at every reading."""

    @property
    def name(self) -> str:
        """Path or URL."""
        ...

    def identity(self) -> dict[str, Any]:
        """What changes when the source does, as far as that is seen without reading it all."""
        ...

    def parts(self, rows: int) -> Iterator[Part]:
        """All rows in order, at most ``rows`` in a part."""
        ...


def open_source(
    name: str,
    *,
    query: str | None = None,
    table: str | None = None,
    query_timeout: float | None = None,
    encoding: str | None = None,
    has_header: bool = True,
) -> RowReader:
    """The source of a path or a database URL.

    Args:
        name: The path or URL.
        query: A SELECT whose rows are read, of a database.
        table: The table that is read, of a database.
        query_timeout: Seconds that the database may work; 300 when None.
        encoding: Of a CSV, TSV or JSONL file; UTF-8 when None.
        has_header: Whether the first line of a CSV names the columns.

    Raises:
        DataError: if it is neither.
        SpecError: if an option is for the other.
    """
    spec = DataSpec(
        name=name, query=query, table=table, query_timeout=query_timeout, encoding=encoding,
        header=has_header,
    )  # fmt: skip
    if is_sql_url(name):
        return SqlSource(name, query, table, query_timeout)
    path, file = Path(name), table_file(Path(name))
    if not is_table(file):
        raise DataError(
            f"{path}: cannot read {file.suffix or 'no suffix'}; give {', '.join(SUFFIXES)}, or the "
            "URL of a database"
        )
    if not file.exists():
        raise DataError(f"File {file} does not exist; check the path")
    kind = SOURCES.get(table_suffix(file), FrameSource)
    return kind(str(path), path, spec.encoding, has_header)


@dataclass(frozen=True)
class _File:
    name: str
    path: Path
    encoding: str | None = None
    has_header: bool = True

    def opened(self) -> AbstractContextManager[tuple[str, Path]]:
        """Its kind, and the file in which the rows are."""
        return reading(self.path, self.encoding, has_header=self.has_header)

    def identity(self) -> dict[str, Any]:
        """Size, and a hash of the beginning and the end."""
        block = 1 << 16
        digest = hashlib.blake2b(digest_size=8)
        path = table_file(self.path)
        size = path.stat().st_size
        with path.open("rb") as file:
            digest.update(file.read(block))
            file.seek(max(0, size - block))
            digest.update(file.read(block))
        return {"size": size, "ends": digest.hexdigest()}


class TextSource(_File):
    """A CSV or TSV file; all values are text."""

    def parts(self, rows: int) -> Iterator[Part]:
        """As :class:`RowReader`; a line with more values than the first has is an error."""
        with self.opened() as (_, path):
            layout = csv_layout(path, self.encoding)
            size = path.stat().st_size
            with path.open("rb") as raw, io.TextIOWrapper(raw, layout.encoding, newline="") as text:
                names, checked = csv_records(text, layout, has_header=self.has_header)
                for records in _batched(checked, rows):
                    columns = [list(column) for column in zip(*records, strict=True)]
                    yield Part(names, columns, min(1.0, raw.tell() / size))


class JsonSource(_File):
    """A JSONL file; values keep their types, and columns may differ from row to row."""

    def parts(self, rows: int) -> Iterator[Part]:
        """As :class:`RowReader`."""
        with self.opened() as (_, path), path.open("rb") as raw:
            lines = io.TextIOWrapper(raw, text_encoding(path, self.encoding))
            size = path.stat().st_size
            for records in _batched(json_objects(lines, self.path), rows):
                names = list(dict.fromkeys(name for record in records for name in record))
                columns = [[record.get(name) for record in records] for name in names]
                yield Part(names, columns, min(1.0, raw.tell() / size))


class ArrowSource(_File):
    """A Parquet file, with its types."""

    def parts(self, rows: int) -> Iterator[Part]:
        """As :class:`RowReader`."""
        from valence.data.parquet import parquet_batches, row_count

        with self.opened() as (_, path):
            total, done = row_count(path), 0
            for table in parquet_batches(path, rows):
                done += table.num_rows
                yield Part(table.column_names, [], done / max(1, total), table)


class FrameSource(_File):
    """A file of a format that has no reader here, with its types."""

    def parts(self, rows: int) -> Iterator[Part]:
        """As :class:`RowReader`; how much has been read is known at the end alone."""
        import pyarrow as pa

        from valence.data.tables import read_batches

        for frame in read_batches(self.path, rows, self.encoding, has_header=self.has_header):
            table = pa.Table.from_pandas(frame, preserve_index=False)
            yield Part(table.column_names, [], 1.0, table)


SOURCES: dict[str, Callable[[str, Path, str | None, bool], RowReader]] = {
    ".csv": TextSource, ".tsv": TextSource, ".jsonl": JsonSource, ".parquet": ArrowSource,
}  # fmt: skip


@dataclass(frozen=True)
class SqlSource:
    """A table or a query of a database; the order is that of the primary key."""

    name: str
    query: str | None
    table: str | None
    timeout_seconds: float | None = None

    def identity(self) -> dict[str, Any]:
        """The query and table; that the rows are the same is checked part by part."""
        return {"query": self.query, "table": self.table}

    def parts(self, rows: int) -> Iterator[Part]:
        """As :class:`RowReader`."""
        from valence.data.database_rows import all_rows

        chosen = all_rows(
            self.name, query=self.query, table=self.table, timeout_seconds=self.timeout_seconds
        )
        total, done = chosen.count(), 0
        for names, records in chosen.records(rows):
            done += len(records)
            columns = [list(column) for column in zip(*records, strict=True)]
            yield Part(names, columns, min(1.0, done / max(1, total)))


def _batched(records: Iterator[Any], rows: int) -> Iterator[list[Any]]:
    """Records in lists of at most ``rows``, shorter where texts are long."""
    part: list[Any] = []
    characters = 0
    for record in records:
        part.append(record)
        values = record.values() if isinstance(record, dict) else record
        characters += sum(len(value) for value in values if isinstance(value, str))
        if len(part) == rows or characters > PART_CHARACTERS:
            yield part
            part, characters = [], 0
    if part:
        yield part
