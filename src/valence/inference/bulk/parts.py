"""What all targets of scored rows share: files that appear whole, and parts as Arrow tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valence.errors import DataError, RunError
from valence.inference.bulk.readers import Part

ADVICE = "finished parts are saved"


@contextmanager
def writing(name: str | Path) -> Iterator[None]:
    """Turn errors of the disk into a :class:`RunError` of one line."""
    try:
        yield
    except OSError as error:
        raise RunError(f"Cannot write {name}: {error.strerror or error}; {ADVICE}") from None


@dataclass(frozen=True)
class FileSink:
    """A file that appears under its name when it is whole."""

    name: str
    suffix: str
    path: Path

    def parts_folder(self) -> Path:
        """Beside the file."""
        return self.path.with_name(f".{self.path.name}.parts")

    def check(self) -> None:
        """Make the folder of the file."""
        if self.path.is_dir():
            raise DataError(f"{self.path} is a folder; use a file name")
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)


def write_arrow(part: Part, file: Path, name: str) -> None:
    """A part as a Parquet file."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    refuse_duplicate_columns(part.names, name)
    arrays = []
    for i in range(len(part.names)):
        if part.arrow is not None:
            arrays.append(part.arrow.column(i))
            continue
        values = part.values(i)
        try:
            arrays.append(pa.array(values))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # values of several types
            texts = [None if value is None else as_text(value) for value in values]
            arrays.append(pa.array(texts, type=pa.string()))
    write_table(pa.table(arrays, names=part.names), file)


def common_schema(files: Sequence[Path]) -> Any:
    """A schema that holds the columns of all parts; text where types do not go together."""
    import pyarrow as pa
    from pyarrow.parquet import read_schema

    fields: dict[str, Any] = {}
    for file in files:
        for one in read_schema(file).remove_metadata():
            if one.name not in fields:
                fields[one.name] = one.with_nullable(True)
                continue
            pair = [pa.schema([fields[one.name]]), pa.schema([one.with_nullable(True)])]
            try:
                fields[one.name] = pa.unify_schemas(pair, promote_options="permissive").field(0)
            except pa.ArrowTypeError:
                fields[one.name] = pa.field(one.name, pa.string())
    # A column without any value is text, or a reader would see a type that holds nothing.
    return pa.schema(
        [pa.field(f.name, pa.string()) if pa.types.is_null(f.type) else f for f in fields.values()]
    )


def arrow_tables(files: Sequence[Path], schema: Any) -> Iterator[Any]:
    """The parts, one at a time, under one schema."""
    import pyarrow as pa
    from pyarrow.parquet import read_table

    for file in files:
        table = read_table(file)
        columns = []
        for one in schema:
            if one.name not in table.column_names:
                columns.append(pa.nulls(table.num_rows, one.type))
                continue
            column = table.column(one.name)
            try:
                columns.append(column.cast(one.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                texts = [None if v is None else as_text(v) for v in column.to_pylist()]
                columns.append(pa.array(texts, type=one.type))
        yield pa.table(columns, schema=schema)


def as_text(value: Any) -> str:
    """A value as a cell of text; nothing for None, JSON for lists and dicts."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def refuse_duplicate_columns(names: Sequence[str], target: str) -> None:
    """Refuse a table in which two columns have one name, where the target cannot hold both.

    Raises:
        DataError: if there are such columns.
    """
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise DataError(
            f"{target}: there are several columns {duplicate!r}, which this format does not allow; "
            "rename all but one"
        )
