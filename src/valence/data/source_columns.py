"""The columns of a source that a spec leaves open: as in a training, usual, or guessed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from valence.config.data import DataSpec
from valence.config.database_url import is_sql_url
from valence.data.catalog import DATASETS
from valence.data.columns import SAMPLE, guess_label_column, guess_text_column, is_row
from valence.data.groups import SOURCE_ROW
from valence.data.locate import SPLITS, InMemoryRows, Table
from valence.data.plain_values import text_of_bytes
from valence.data.tables import LABEL_COLUMNS, TEXT_COLUMNS, usual_column
from valence.errors import DataError

SPLIT, IGNORED = "split", "none"
SPLIT_VALUES = {**SPLITS, "train": ("train", "training")}
_SPLIT_OF = {alias: name for name, aliases in SPLIT_VALUES.items() for alias in aliases}


def read_columns(
    spec: DataSpec, tables: Mapping[str, Table], *, trained_on: DataSpec | None = None
) -> tuple[DataSpec, dict[str, Table], list[str]]:
    """What the columns of a source say: which hold texts and labels, and the rows of each split.

    Args:
        spec: Names the source; cards, databases and intensities are left as they are.
        tables: Its tables, by split.
        trained_on: The data of a saved model, whose columns are taken where the source has them.

    Returns:
        The spec with the columns that it leaves open and that have no usual name, the tables by
        split, and notes on what was guessed or found.

    Raises:
        DataError: if nothing can be guessed, several columns are alike, or a split is unknown.
    """
    spec, notes = with_columns(spec, tables, trained_on=trained_on)
    return spec, dict(_split_by_column(spec, tables, notes)), notes


def _split_by_column(
    spec: DataSpec, tables: Mapping[str, Table], notes: list[str]
) -> Mapping[str, Table]:
    """The tables of a source without splits whose column says which split a row is of."""
    column = column_of_splits(spec, tables)
    if column is None:
        return tables
    whole = tables["all"].read()
    splits = splits_of(whole[column], spec.name)
    if not (splits == "train").any():
        raise _wrong_split(spec.name, column, "no row is train")
    parts: dict[str, Table] = {
        name: InMemoryRows(whole[splits == name].reset_index(drop=True))
        for name in SPLIT_VALUES
        if (splits == name).any()
    }
    sizes = ", ".join(f"{int((splits == name).sum())} {name}" for name in parts)
    notes.append(
        f"{spec.name}: splits by column {column!r}: {sizes}; ignore it with --split-column none"
    )
    return parts


def column_of_splits(spec: DataSpec, tables: Mapping[str, Table]) -> str | None:
    """The column of a source that says which split a row is of; None where there is none.

    Raises:
        DataError: if the spec names one that is not there.
    """
    requested = spec.split_column
    own = spec.name in DATASETS or spec.target != "classes" or requested == IGNORED
    if own or "all" not in tables or (requested is None and is_sql_url(spec.name)):
        return None
    head = _head(tables["all"])
    column = requested or usual_column(list(head), [SPLIT])
    if column is not None and column not in head:
        raise DataError(f"{spec.name}: no split column {column!r}; columns: {', '.join(head)}")
    if column is None or requested is not None:
        return column
    return column if {_plain(value) for value in head[column]} <= set(_SPLIT_OF) else None


def splits_of(values: Any, where: str, *, before: int = 0) -> Any:
    """The split that each value of a column of pandas names.

    Args:
        values: The column.
        where: Name of the source, for messages.
        before: Rows of the source before these.

    Raises:
        DataError: if a value names none, with its row.
    """
    splits = values.map(lambda value: _SPLIT_OF.get(_plain(value)))
    unknown = np.flatnonzero(splits.isna())
    if len(unknown):
        row = int(unknown[0])
        what = f"row {before + row + 1} says {_plain(values.iloc[row])!r}"
        raise _wrong_split(where, str(values.name), what)
    return splits


def _wrong_split(where: str, column: str, what: str) -> DataError:
    return DataError(
        f"{where}: column {column!r} names splits, but {what}; use train, validation or test, or "
        "ignore the column with --split-column none"
    )


def _plain(value: object) -> str:
    return str(text_of_bytes(value, "the column of splits")).strip().lower()


def with_columns(
    spec: DataSpec, tables: Mapping[str, Table], *, trained_on: DataSpec | None = None
) -> tuple[DataSpec, list[str]]:
    """The spec with the columns that it leaves open and that have no usual name.

    Args:
        spec: Names the source; cards, databases and intensities are left as they are.
        tables: Its tables, by split.
        trained_on: The data of a saved model, whose columns are taken where the source has them.

    Returns:
        The spec, and a note on what was guessed.

    Raises:
        DataError: if nothing can be guessed, or several columns are alike.
    """
    own = spec.name in DATASETS or is_sql_url(spec.name) or spec.target != "classes"
    if own or (spec.text_column and spec.label_column):
        return spec, []
    head = _head(tables.get("train") or tables.get("all") or next(iter(tables.values())))
    if trained_on is not None:
        spec = _as_in_training(spec, trained_on, head)
    guessed: dict[str, str] = {}
    words: list[str] = []
    text = spec.text_column or usual_column(list(head), TEXT_COLUMNS)
    if text is None:
        choice = guess_text_column(head, where=spec.name)
        text = guessed["text_column"] = choice.name
        words.append(f"texts from column {choice.name!r} ({choice.reason})")
    if spec.label_column is None and usual_column(list(head), LABEL_COLUMNS) is None:
        choice = guess_label_column(head, text=text, where=spec.name)
        guessed["label_column"] = choice.name
        words.append(f"labels from column {choice.name!r} ({choice.reason})")
    if words and is_row(head, text=text, label=guessed.get("label_column", "")):
        raise DataError(
            f"{spec.name}: the first line looks like data, not column names; use --no-header, or "
            "add a header line such as text,label"
        )
    note = f"{spec.name}: {', '.join(words)}; choose others with --text-column, --label-column"
    return spec.model_copy(update=guessed), [note] if words else []


def _head(table: Table) -> dict[str, list[object]]:
    """The first values of every column; none of several columns of one name."""
    batch = next(iter(table.batches(SAMPLE)), pd.DataFrame())
    names = [str(name) for name in batch.columns]
    return {
        name: batch.iloc[:, place].tolist() if names.count(name) == 1 else []
        for place, name in enumerate(names)
        if name != SOURCE_ROW
    }


def _as_in_training(
    spec: DataSpec, trained_on: DataSpec, head: Mapping[str, list[object]]
) -> DataSpec:
    """The spec with the columns of a training, where they are there and none is named."""
    names = {"text_column": trained_on.text_column, "label_column": trained_on.label_column}
    known = {field: name for field, name in names.items() if name in head}
    return spec.model_copy(
        update={f: name for f, name in known.items() if getattr(spec, f) is None}
    )  # fmt: skip


def columns_beyond(given: DataSpec, spec: DataSpec) -> tuple[tuple[str, str], ...]:
    """The columns that a spec names and the given one does not, as dotted settings."""
    fields = ("text_column", "label_column")
    named = {field: getattr(spec, field) for field in fields if getattr(given, field) is None}
    return tuple((f"data.{field}", name) for field, name in named.items() if name is not None)
