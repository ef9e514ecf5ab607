"""Rows sampled from a stream without holding it in memory: :func:`draw_rows`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from valence.data.tables import LABEL_COLUMNS, TEXT_COLUMNS, find_column
from valence.errors import DataError

KEY = "__key__"
MAX_CLASSES = 1000  # labels of more values are not classes, which keep a row each


def draw_rows(
    batches: Iterable[pd.DataFrame],
    size: int,
    *,
    seed: int,
    where: str,
    text_column: str | None = None,
    label_column: str | None = None,
) -> tuple[pd.DataFrame, int]:
    """``size`` rows sampled at random from all that have a text and a label.

    Every row gets a random key, and the rows of the smallest keys are selected; so the sample
    depends on the seed and the order of the rows, not on the size of the batches. Every label
    keeps at least one row.

    Args:
        batches: The source in parts, each under the same columns.
        size: Rows requested; all rows where there are fewer.
        seed: Decides which rows.
        where: Name of the source, for messages.
        text_column: Its name, if it is not a usual one.
        label_column: Its name, if it is not a usual one.

    Returns:
        The rows in the order of the source, and how many there were to sample from.

    Raises:
        DataError: if a column is missing or no row can be used.
    """
    rng = np.random.default_rng(seed)
    selected: pd.DataFrame | None = None
    seen, text, label = 0, "", ""
    for batch in batches:
        if selected is None:
            columns = [str(name) for name in batch.columns]
            text = find_column(columns, text_column, TEXT_COLUMNS, what="text", where=where)
            label = find_column(columns, label_column, LABEL_COLUMNS, what="label", where=where)
            for name in (text, label):
                if columns.count(name) > 1:
                    raise DataError(
                        f"{where}: several columns are named {name!r}; rename all but one"
                    )
        usable = batch[_filled(batch, text) & _filled(batch, label)]
        usable = usable.set_axis(np.arange(seen, seen + len(usable)))
        usable = usable.assign(**{KEY: rng.random(len(usable))})
        seen += len(usable)
        both = usable if selected is None else pd.concat([selected, usable])
        selected = _smallest(both, size, label, spare=True)
    if selected is None or not seen:
        raise DataError(f"{where}: no row has both a text and a label; check the columns")
    chosen = _smallest(selected, size, label, spare=False)
    return chosen.sort_index().drop(columns=KEY).reset_index(drop=True), seen


def _filled(batch: pd.DataFrame, name: str) -> pd.Series:
    if name not in batch.columns:  # JSON rows may lack a field throughout a batch
        return pd.Series(False, index=batch.index)
    column = batch[name]
    return column.notna() & (column.astype(str).str.strip() != "")


def _smallest(rows: pd.DataFrame, size: int, label: str, *, spare: bool) -> pd.DataFrame:
    """The rows of the smallest keys, and the smallest of every label.

    Args:
        rows: With their keys.
        size: How many.
        label: Name of the label column.
        spare: Whether the rows of rare labels come on top of ``size``, as more may follow.
    """
    ranked = rows.iloc[np.argsort(rows[KEY].to_numpy(), kind="stable")]
    if label not in ranked.columns:
        return ranked.iloc[:size]
    first = ~ranked[label].astype(str).duplicated().to_numpy()
    if first.sum() > MAX_CLASSES:
        first[:] = False
    if spare:
        return ranked[first | (np.arange(len(ranked)) < size)]
    order = np.argsort(~first, kind="stable")
    return ranked.iloc[order[:size]]
