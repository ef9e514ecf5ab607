"""A copy of the rows without the copies: what ``valence audit --fix`` writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from valence.audit.checks import LabeledSource
from valence.data.groups import SOURCE_ROW
from valence.storage import atomic


def write_fixed(source: LabeledSource, folder: Path) -> list[str]:
    """Write every split as CSV, without rows that mislead; test rows are written as they are.

    From train and validation go, in this order: texts that are in a split of higher rank
    (test, then validation); texts with several labels, unless more than half of their rows
    agree, then only the rows that do not; second and further copies of a text.

    Args:
        source: The rows.
        folder: Gets ``train.csv`` …, or one file named as the source where it is one file.

    Returns:
        A line on every split.

    Raises:
        RunError: if the folder cannot be written.
    """
    lines = []
    seen: set[str] = set()
    for split in source.splits:
        table = source.tables[split]
        rows = source.of(split)
        why = pd.Series("", index=rows.index) if split == "test" else _reasons(rows, seen)
        seen |= set(rows["key"])
        gone = np.zeros(len(table), dtype=bool)
        gone[rows.loc[why != "", "row"].to_numpy(dtype=np.int64)] = True
        name = f"{Path(source.name).stem}.csv" if split == "all" else f"{split}.csv"
        with atomic.new_file(folder / name) as path:
            whole = table[~gone].drop(columns=SOURCE_ROW, errors="ignore")
            whole.to_csv(path, index=False)
        parts = [f"{count} {reason}" for reason, count in why[why != ""].value_counts().items()]
        done = f"{int(gone.sum())} of {len(table)} rows left out" if parts else "as it was"
        lines.append(f"{name}: {done}{' (' + ', '.join(parts) + ')' if parts else ''}")
    return lines


def _reasons(rows: pd.DataFrame, seen: set[str]) -> pd.Series:
    """Why every row goes; empty for those that stay."""
    why = pd.Series("", index=rows.index)
    why[rows["key"].isin(seen)] = "in test or validation"
    left = rows[why == ""]
    sizes = left.groupby("key")["label"].transform("size")
    agree = left.groupby(["key", "label"])["text"].transform("size")
    kinds = left.groupby("key")["label"].transform("nunique")
    why[left.index[(kinds > 1) & (agree * 2 <= sizes)]] = "contradicting"
    left = rows[why == ""]
    why[left.index[left.duplicated("key")]] = "repeated"
    return why
