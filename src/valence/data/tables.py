"""Reading tables: CSV, TSV, JSONL, Parquet and the hub, all to the same clean columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from valence.data.blank import is_blank
from valence.data.files import LABEL_COLUMNS as LABEL_COLUMNS
from valence.data.files import TEXT_COLUMNS as TEXT_COLUMNS
from valence.data.files import find_column as find_column
from valence.data.files import usual_column as usual_column
from valence.data.files import whole_characters as whole_characters
from valence.data.formats import FORMATS, reading
from valence.data.formats import SUFFIXES as SUFFIXES
from valence.data.labels import one_spelling, plain_texts
from valence.errors import DataError

BATCH_ROWS = 1_000_000  # of a table that is read whole
REGRESSION_VALUES = 20  # more distinct fractions than this are a measure, not classes


def read_table(path: Path, encoding: str | None = None, *, has_header: bool = True) -> pd.DataFrame:
    """All columns of a file, as text where the format has no types.

    Args:
        path: A file of one of the :data:`valence.data.formats.FORMATS`.
        encoding: Of the text; UTF-8 when None.
        has_header: Whether the first line of a CSV names the columns.

    Raises:
        DataError: if the file is missing, empty, not in this encoding, or broken; with the line.
    """
    tables = list(read_batches(path, BATCH_ROWS, encoding, has_header=has_header))
    if len(tables) == 1:
        return tables[0]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def read_batches(
    path: Path, rows: int, encoding: str | None = None, *, has_header: bool = True
) -> Iterator[pd.DataFrame]:
    """As :func:`read_table`, in parts of at most ``rows`` rows; the file is never held whole.

    Raises:
        DataError: as :func:`read_table`, when the place in the file is reached.
    """
    with reading(path, encoding, has_header=has_header) as (suffix, file):
        yield from FORMATS[suffix].batches(file, rows, encoding, has_header)


def open_hub(name: str, configuration: str | None) -> dict[str, Any]:
    """The splits of a hub data set as ``datasets.Dataset``, which stay on disk until read.

    Raises:
        DataError: if the extra is missing, the hub cannot be reached, or has no such data set.
    """
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"Reading {name} from the hub needs an extra: pip install 'valence[hub]'"
        ) from None
    try:
        splits = datasets.load_dataset(name, configuration)
    except Exception as error:  # the library raises errors of many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise DataError(
            f"Data set {name} cannot be loaded from the hub ({reason}); check the name and the "
            "network, or pass its folder with --data-dir"
        ) from None
    aliases = {"valid": "validation", "val": "validation", "dev": "validation"}
    return {
        aliases.get(split, split): rows
        for split, rows in splits.items()
        if aliases.get(split, split) in ("train", "validation", "test")
    }


def clean(
    table: pd.DataFrame,
    *,
    where: str,
    text_column: str | None,
    label_column: str | None,
    names: Sequence[str] = (),
    normalize_labels: bool = False,
) -> tuple[pd.DataFrame, list[str]]:
    """Columns ``text``, ``label`` (both text), ``row`` (number in the source) and the others.

    Rows without a text or without a label are left out and counted.

    Args:
        table: What was read.
        where: Name of the source, for messages.
        text_column: Its name, if it is not a usual one.
        label_column: Its name, if it is not a usual one.
        names: Names of the classes, if they are known; whole numbers may be their positions.
        normalize_labels: Whether labels that are spelled alike are one class.

    Returns:
        The table and notes on what was left out.

    Raises:
        DataError: if a column is missing or double, labels are a measure, or nothing is left.
    """
    columns = [str(name) for name in table.columns]
    double = {name for name in columns if columns.count(name) > 1}
    text = find_column(columns, text_column, TEXT_COLUMNS, what="text", where=where)
    label = find_column(columns, label_column, LABEL_COLUMNS, what="label", where=where)
    for name in (text, label):
        if name in double:
            raise DataError(f"{where}: several columns are named {name!r}; rename all but one")
    table = table.loc[:, [name not in double for name in columns]]
    texts, notes = plain_texts(table[text], where, what="text")
    labels, more = plain_texts(table[label], where, what="label")
    labels = labels.str.strip()
    _refuse_measures(labels, where)
    labels, spelled = one_spelling(labels, where, names=names, normalize=normalize_labels)
    notes += [*more, *spelled]
    others = table.drop(columns=[text, label])
    others = others.drop(columns=[n for n in ("text", "label", "row") if n in others.columns])
    frame = pd.DataFrame({"text": texts, "label": labels, "row": np.arange(len(table))})
    frame = pd.concat([frame, others], axis=1)
    blank = frame["text"].map(is_blank).astype(bool)
    unlabeled = ~blank & (frame["label"] == "")
    for mask, what in ((blank, "text"), (unlabeled, "label")):
        if mask.any():
            line = int(np.flatnonzero(mask)[0]) + 1
            notes.append(
                f"{where}: {int(mask.sum())} rows without {what} left out (first: row {line})"
            )
    frame = frame[~blank & ~unlabeled].reset_index(drop=True)
    if not len(frame):
        raise DataError(f"{where}: no row has both a text and a label; check the columns")
    return frame, notes


def _refuse_measures(labels: pd.Series, where: str) -> None:
    distinct = labels[labels != ""].unique()
    if len(distinct) > REGRESSION_VALUES and _all_fractions(distinct):
        raise DataError(
            f"{where}: the label column has {len(distinct)} different numbers, so it looks like a "
            f"measurement, not classes; bin it, or choose another column with "
            "--label-column"
        )


def _all_fractions(values: np.ndarray) -> bool:
    numbers = pd.to_numeric(pd.Series(values), errors="coerce")
    return bool(numbers.notna().all() and (numbers % 1 != 0).any())
