"""Writing scored rows: each part in a file of its own, and all of them as one table at the end.

The table appears under its name in one step, when it is whole.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from valence.config.database_url import is_sql_url
from valence.errors import DataError
from valence.inference.bulk.parts import (
    ADVICE,
    FileSink,
    arrow_tables,
    as_text,
    common_schema,
    refuse_duplicate_columns,
    write_arrow,
)
from valence.inference.bulk.readers import Part
from valence.inference.bulk.sheets import SheetSink
from valence.storage import atomic

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")
SQL_TABLE = "scored"
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
"""Spreadsheets carry out cells that begin so."""
_NUMBER = re.compile(r"[+-]\d+([.,]\d+)*([eE][+-]?\d+)?%?")


class Sink(Protocol):
    """Where scored rows go."""

    @property
    def name(self) -> str:
        """Path or URL."""
        ...

    @property
    def suffix(self) -> str:
        """Of the files of parts."""
        ...

    def parts_folder(self) -> Path:
        """Where parts lie until the table is whole."""
        ...

    def check(self) -> None:
        """Refuse now what :meth:`join` would refuse after hours."""
        ...

    def write(self, part: Part, file: Path) -> None:
        """Write one part."""
        ...

    def join(self, files: Sequence[Path], names: Sequence[Sequence[str]]) -> None:
        """Make the table of the parts, whose columns are ``names``."""
        ...


def open_sink(target: str, *, table: str | None = None, safe_csv: bool = False) -> Sink:
    """The sink of a path or a database URL.

    Args:
        target: The path or URL.
        table: The new table of a database.
        safe_csv: Whether cells that a spreadsheet would carry out are marked as text.

    Raises:
        DataError: if it is neither, or a table is named beside a file.
    """
    if is_sql_url(target):
        return SqlSink(target, ".parquet", table or SQL_TABLE)
    path = Path(target)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"{path}: cannot write {path.suffix or 'no suffix'}; use {', '.join(SUFFIXES)}, or the "
            "URL of a database"
        )
    kinds: dict[str, Callable[[str, str, Path], Sink]] = {
        ".xlsx": SheetSink,
        ".parquet": ArrowSink,
        ".jsonl": JsonSink,
    }
    text = SafeTextSink if safe_csv else TextSink
    return kinds.get(suffix, text)(str(path), suffix, path)


class _LineFeeds:
    """Ends lines with a line feed alone.

    csv quotes no carriage return in a text unless its own lines end with one, and a reader would
    then see two rows.
    """

    def __init__(self, out: Any) -> None:
        self.out = out

    def write(self, line: str) -> int:
        return int(self.out.write(line.removesuffix("\r\n") + "\n"))


class TextSink(FileSink):
    """A CSV or TSV file; parts have no line of names."""

    def write(self, part: Part, file: Path) -> None:
        """As :class:`Sink`."""
        columns = [part.values(i) for i in range(len(part.names))]
        with file.open("w", encoding="utf-8", newline="") as out:
            writer = self._writer(out)
            writer.writerows(zip(*(map(self._cell, values) for values in columns), strict=True))

    def join(self, files: Sequence[Path], names: Sequence[Sequence[str]]) -> None:
        """As :class:`Sink`; a column that a part lacks is empty there."""
        union = _union(names)
        with atomic.new_file(self.path, advice=ADVICE) as scratch, scratch.open("wb") as out:
            out.write(self._line(union))
            for file, own in zip(files, names, strict=True):
                if list(own) == union:
                    with file.open("rb") as part:
                        shutil.copyfileobj(part, out, 1 << 20)
                    continue
                with file.open(encoding="utf-8", newline="") as lines:
                    for record in csv.reader(lines, delimiter=self._delimiter):
                        row = dict(zip(own, record, strict=True))
                        out.write(self._line([row.get(name, "") for name in union]))

    @property
    def _delimiter(self) -> str:
        return "\t" if self.suffix == ".tsv" else ","

    def _writer(self, out: Any) -> Any:
        return csv.writer(_LineFeeds(out), delimiter=self._delimiter, lineterminator="\r\n")

    def _line(self, values: Sequence[str]) -> bytes:
        text = io.StringIO(newline="")
        self._writer(text).writerow(map(self._cell, values))
        return text.getvalue().encode()

    def _cell(self, value: Any) -> str:
        return as_text(value)


class SafeTextSink(TextSink):
    """The same for spreadsheets: what they would carry out as a formula is marked as text."""

    def _cell(self, value: Any) -> str:
        return spreadsheet_text(as_text(value))


def spreadsheet_text(text: str) -> str:
    """The text of a cell with an apostrophe in front where it would be a formula; numbers stay."""
    if text[:1] not in FORMULA_SIGNS or _NUMBER.fullmatch(text):
        return text
    return f"'{text}"


class JsonSink(FileSink):
    """A JSONL file."""

    def write(self, part: Part, file: Path) -> None:
        """As :class:`Sink`."""
        refuse_duplicate_columns(part.names, self.name)
        columns = [part.values(i) for i in range(len(part.names))]
        with file.open("w", encoding="utf-8") as out:
            for values in zip(*columns, strict=True):
                record = dict(zip(part.names, values, strict=True))
                out.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")

    def join(self, files: Sequence[Path], names: Sequence[Sequence[str]]) -> None:
        """As :class:`Sink`."""
        with atomic.new_file(self.path, advice=ADVICE) as scratch, scratch.open("wb") as out:
            for file in files:
                with file.open("rb") as part:
                    shutil.copyfileobj(part, out, 1 << 20)


class ArrowSink(FileSink):
    """A Parquet file, with the types of the source."""

    def write(self, part: Part, file: Path) -> None:
        """As :class:`Sink`."""
        write_arrow(part, file, self.name)

    def join(self, files: Sequence[Path], names: Sequence[Sequence[str]]) -> None:
        """As :class:`Sink`; where parts differ in a column's type, one that holds both."""
        from pyarrow.parquet import ParquetWriter

        with atomic.new_file(self.path, advice=ADVICE) as scratch:
            schema = common_schema(files)
            with ParquetWriter(scratch, schema) as writer:
                for table in arrow_tables(files, schema):
                    writer.write_table(table)


@dataclass(frozen=True)
class SqlSink:
    """A new table of a database, filled in one transaction."""

    name: str
    suffix: str
    table: str

    def parts_folder(self) -> Path:
        """Beside an SQLite file, else in the working folder."""
        _, _, path = self.name.partition(":///")
        local = Path(path) if self.name.startswith("sqlite") and path else Path("database")
        return local.with_name(f".{local.name}.{self.table}.parts")

    def check(self) -> None:
        """As :class:`Sink`; a table that is there already is never touched."""
        import sqlalchemy as sa

        from valence.data.database import open_database, split_table_name

        with open_database(self.name, create=True) as database, database.translate_errors():
            schema, bare = split_table_name(self.table)
            if sa.inspect(database.engine).has_table(bare, schema=schema):
                raise DataError(
                    f"{self.name} already has a table {self.table}; choose another with --to-table"
                )

    def write(self, part: Part, file: Path) -> None:
        """As :class:`Sink`."""
        write_arrow(part, file, self.name)

    def join(self, files: Sequence[Path], names: Sequence[Sequence[str]]) -> None:
        """As :class:`Sink`."""
        import sqlalchemy as sa

        from valence.data.database import open_database, split_table_name

        schema = common_schema(files)
        space, bare = split_table_name(self.table)
        columns = [sa.Column(one.name, _sql_type(one.type)) for one in schema]
        table = sa.Table(bare, sa.MetaData(), *columns, schema=space)
        texts = {column.name for column in columns if isinstance(column.type, sa.Text)}
        with (
            open_database(self.name, create=True) as database,
            database.translate_errors(),
            database.engine.begin() as connection,
        ):
            table.create(connection)
            for part in arrow_tables(files, schema):
                records = [_storable(record, texts) for record in part.to_pylist()]
                if records:
                    connection.execute(sa.insert(table), records)


def _sql_type(arrow: Any) -> Any:
    import pyarrow as pa
    import sqlalchemy as sa

    known: tuple[tuple[Callable[[Any], bool], Any], ...] = (
        (pa.types.is_boolean, sa.Boolean()),
        (pa.types.is_integer, sa.BigInteger()),
        (pa.types.is_floating, sa.Double()),
        (pa.types.is_timestamp, sa.DateTime()),
        (pa.types.is_date, sa.Date()),
        (pa.types.is_binary, sa.LargeBinary()),
    )
    return next((kind for test, kind in known if test(arrow)), sa.Text())


def _storable(record: dict[str, Any], texts: set[str]) -> dict[str, Any]:
    return {
        name: as_text(value) if name in texts and value is not None else value
        for name, value in record.items()
    }


def _union(names: Sequence[Sequence[str]]) -> list[str]:
    if all(list(own) == list(names[0]) for own in names):
        return list(names[0])  # as they are, even if two columns have one name
    return list(dict.fromkeys(name for own in names for name in own))
