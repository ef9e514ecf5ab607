"""Parquet files, in parts that fit into memory whatever the file says of itself.

A small file may hold many gigabytes: one long text, named by every row. Texts are read as indices
into their dictionary, so that their size is known before they are written out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valence.data.csv_records import check_width
from valence.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

PART_BYTES = 1 << 26
"""Of the rows in memory at once."""
MOST_BYTES = 1 << 33
"""Of a table that is read whole, and of a row group."""
MOST_TIMES = 200
"""Times the size of its file that a table has, beyond what is always allowed."""
ALWAYS = 1 << 28


def row_count(path: Path) -> int:
    """Rows, as the file says."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def parquet_batches(path: Path, rows: int, *, held: bool = False) -> Iterator[pa.Table]:
    """The rows of a file in tables of at most ``rows``; one empty table where there is none.

    Args:
        path: The file.
        rows: At most in a table; fewer where they are large.
        held: Whether all are held in memory together.

    Raises:
        DataError: if the rows are far larger than the file, or than a machine can hold.
        ValueError: if it is no such file, or has too many columns.
    """
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as probe:
        check_width(len(probe.schema_arrow))
        _check_groups(path, probe.metadata)
        schema = probe.schema_arrow
        texts = [field.name for field in schema if _holds_text(field.type)]
    most = min(MOST_BYTES, ALWAYS + MOST_TIMES * path.stat().st_size)
    total = 0
    with ParquetFile(path, read_dictionary=texts) as file:
        if not file.metadata.num_rows:
            yield schema.empty_table()
        for batch in file.iter_batches(batch_size=rows):
            sizes = _row_bytes(batch, texts)
            size = int(sizes.sum()) + batch.get_total_buffer_size()
            total += size
            if held and total > most:
                raise DataError(
                    f"{path} has {path.stat().st_size} bytes but its rows more than {most}; "
                    "use fewer rows, or write it again"
                )
            batch.validate(full=True)  # such as texts that are no UTF-8
            for part in _parts(batch, size):
                yield _as_written(part, schema)


def _holds_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = pa.types.is_string(kind) or pa.types.is_binary(kind)
    return bool(is_text or pa.types.is_large_string(kind) or pa.types.is_large_binary(kind))


def _check_groups(path: Path, metadata: Any) -> None:
    """Refuse sizes that cannot be true, or cannot be held."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        size = sum(group.column(i).total_uncompressed_size for i in range(group.num_columns))
        if not 0 <= size <= min(MOST_BYTES, ALWAYS + 1100 * path.stat().st_size):
            raise DataError(
                f"{path} cannot be read: its row group {number} says it has {size} bytes; write it "
                "with smaller row groups"
            )


def _row_bytes(batch: Any, texts: list[str]) -> Any:
    """Bytes of the texts of every row."""
    import numpy as np
    import pyarrow.compute as pc

    sizes = np.zeros(batch.num_rows, dtype=np.int64)
    for name in texts:
        column = batch.column(batch.schema.get_field_index(name))
        lengths = pc.binary_length(column.dictionary).to_numpy(zero_copy_only=False)
        lengths = np.nan_to_num(lengths).astype(np.int64)
        indices = pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False)
        known = indices >= 0
        sizes[known] += lengths[indices[known]]
    return sizes


def _parts(batch: Any, size: int) -> Iterator[Any]:
    """The batch in slices of about the size of a part."""
    count = max(1, -(-size // PART_BYTES))
    step = max(1, batch.num_rows // count)
    for start in range(0, batch.num_rows, step):
        yield batch.slice(start, step)


def _as_written(batch: Any, schema: Any) -> pa.Table:
    """The rows under the types that the file names: dictionaries that it does not are undone."""
    import pyarrow as pa

    columns = [
        column if column.type == field.type
        else (column if pa.types.is_dictionary(field.type) else column.dictionary_decode()).cast(
            field.type
        )
        for field, column in zip(schema, batch.columns, strict=True)
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=schema)
