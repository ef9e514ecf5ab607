"""Writing scored rows as an Excel workbook."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from valence.errors import DataError
from valence.inference.bulk.parts import (
    ADVICE,
    FileSink,
    arrow_tables,
    as_text,
    common_schema,
    write_arrow,
)
from valence.inference.bulk.readers import Part
from valence.storage import atomic

MOST_ROWS = 1_048_576
"""Of a sheet, the line of names among them."""
MOST_CHARACTERS = 32_767
"""Of a cell."""
_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_ESCAPE = re.compile(r"_(?=x[0-9A-Fa-f]{4}_)")
"""An underscore that Excel would read as the start of an escaped character."""
_PLAIN = (bool, int, float, datetime.date, datetime.time, datetime.timedelta)


class SheetSink(FileSink):
    """An Excel workbook with one sheet; every text is a text, whatever it begins with."""

    def check(self) -> None:
        """Refuse a folder, and a missing library.

        Raises:
            DataError: if the file cannot be written.
        """
        super().check()
        try:
            import openpyxl  # noqa: F401
        except ImportError:
            raise DataError(
                f"Writing {self.path} needs an extra: pip install 'valence[xlsx]'"
            ) from None

    def write(self, part: Part, file: Path) -> None:
        """As :class:`Sink`."""
        for i, name in enumerate(part.names):
            longest = max((len(v) for v in part.values(i) if isinstance(v, str)), default=0)
            if longest > MOST_CHARACTERS:
                raise DataError(
                    f"{self.path}: a cell can hold {MOST_CHARACTERS:,} characters, but column "
                    f"{name!r} has {longest:,}; use .csv or .parquet"
                )
        write_arrow(part, file, self.name)

    def join(self, files: Sequence[Path], names: Sequence[Sequence[str]]) -> None:
        """As :class:`Sink`.

        Raises:
            DataError: if the rows are too many for a sheet.
        """
        from openpyxl import Workbook
        from pyarrow.parquet import read_metadata

        rows = sum(read_metadata(file).num_rows for file in files)
        if rows >= MOST_ROWS:
            raise DataError(
                f"{self.path}: a sheet holds {MOST_ROWS - 1:,} rows and there are {rows:,}; use "
                ".csv or .parquet"
            )
        schema = common_schema(files)
        book = Workbook(write_only=True)
        sheet = book.create_sheet("predictions")
        sheet.append([_cell(sheet, name) for name in schema.names])
        for table in arrow_tables(files, schema):
            for values in zip(*(column.to_pylist() for column in table.columns), strict=True):
                sheet.append([_cell(sheet, value) for value in values])
        with atomic.new_file(self.path, advice=ADVICE) as scratch:
            book.save(scratch)


def _cell(sheet: Any, value: Any) -> Any:
    """A cell that Excel shows as it is: no formula, no character that XML cannot hold."""
    from openpyxl.cell import WriteOnlyCell

    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        value = value.isoformat()
    if value is None or isinstance(value, _PLAIN):
        return None if isinstance(value, float) and not math.isfinite(value) else value
    plain = _ESCAPE.sub("_x005F_", as_text(value))
    text = _NOT_XML.sub(lambda found: f"_x{ord(found[0]):04X}_", plain)
    cell = WriteOnlyCell(sheet, value="")
    cell.value = text
    cell.data_type = "s"
    return cell
