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
from valence.data.file_kind import refuse_foreign
from valence.data.files import json_objects, text_encoding, wrong_encoding
from valence.data.sheets import read_sheet_batches, sheet_note, split_sheet
from valence.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Batches = Callable[[Path, int, str | None], "Iterator[pd.DataFrame]"]


@dataclass(frozen=True)
class TableFormat:
    """How the files of a suffix are read.

    Attributes:
        batches: (path, most rows, encoding) → tables of so many rows, with every column under
            its name, as text where the format has no types. The file is never held whole.
        has_encoding: Whether the files are text, whose encoding can be named.
    """

    batches: Batches
    has_encoding: bool = False


def read_csv(path: Path, rows: int, encoding: str | None) -> Iterator[pd.DataFrame]:
    """A CSV or TSV file; the first line names the columns."""
    import pandas as pd

    layout = csv_layout(path, encoding)
    # The first line is read as a row, since pandas renames columns of one name.
    with pd.read_csv(
        path, sep=layout.separator, dtype=str, keep_default_na=False, na_values=[""],
        encoding=layout.encoding, index_col=False, header=None, skip_blank_lines=True,
        skiprows=layout.skipped, quoting=layout.quoting, iterator=True,
    ) as reader:  # fmt: skip
        table = reader.read(rows + 1)
        header = pd.Index(["" if pd.isna(name) else str(name).strip() for name in table.iloc[0]])
        table = table.iloc[1:]
        while True:
            yield table.reset_index(drop=True).set_axis(header, axis=1)
            if len(table) < rows:
                return
            try:
                table = reader.read(rows)
            except StopIteration:
                return


def read_jsonl(path: Path, rows: int, encoding: str | None) -> Iterator[pd.DataFrame]:
    """A file of JSON objects, one on a line."""
    import pandas as pd

    with path.open(encoding=text_encoding(encoding)) as lines:
        records = json_objects(lines, path)
        while part := list(islice(records, rows)):
            yield pd.DataFrame(part)


def read_parquet(path: Path, rows: int, encoding: str | None) -> Iterator[pd.DataFrame]:
    """A Parquet file, with its types."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        if not file.metadata.num_rows:
            yield file.schema_arrow.empty_table().to_pandas()
        for batch in file.iter_batches(batch_size=rows):
            yield batch.to_pandas()


FORMATS: dict[str, TableFormat] = {
    ".csv": TableFormat(read_csv, has_encoding=True),
    ".tsv": TableFormat(read_csv, has_encoding=True),
    ".jsonl": TableFormat(read_jsonl, has_encoding=True),
    ".parquet": TableFormat(read_parquet),
    ".xlsx": TableFormat(read_sheet_batches),
    ".ods": TableFormat(read_sheet_batches),
}
"""Every format by suffix, in lower case."""
SUFFIXES = tuple(FORMATS)


def table_file(path: Path) -> Path:
    """The file of a table, without the sheet that may stand behind it."""
    return split_sheet(path)[0]


def reading_note(path: Path, encoding: str | None) -> str:
    """What was found out to read a file: its separator, encoding, sheet; empty where nothing was.

    Raises:
        DataError: if the file cannot be read.
    """
    with reading(path, encoding) as suffix:
        return layout_note(path, encoding) if suffix in (".csv", ".tsv") else sheet_note(path)


@contextmanager
def reading(path: Path, encoding: str | None = None) -> Iterator[str]:
    """The suffix of a table that can be read; what goes wrong then is one line.

    Args:
        path: The file, with the sheet behind it where there are several.
        encoding: Of its text; UTF-8 when None.
    """
    path = table_file(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise DataError(f"{path}: cannot read {suffix or 'no suffix'}; give {', '.join(FORMATS)}")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty; it needs a text and a label column")
        if encoding is not None and not FORMATS[suffix].has_encoding:
            raise DataError(
                f"{path}: a {suffix[1:].capitalize()} file has its own encoding; leave "
                "--encoding out"
            )
        refuse_foreign(path)
        yield suffix
    except UnicodeError:  # not only of decoding: UTF-16 without its mark is another
        raise DataError(wrong_encoding(path, encoding)) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, csv.Error) as error:
        reason = (str(error).strip().splitlines() or ["broken"])[0]
        raise DataError(f"{path} cannot be read as {suffix[1:]}: {reason}") from None
