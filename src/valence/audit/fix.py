"""The rows without duplicates and contradictions: what ``valence audit --fix`` writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from valence.audit.checks import LabeledSource
from valence.data.groups import SOURCE_ROW
from valence.storage import atomic


def write_fixed(source: LabeledSource, folder: Path) -> list[str]:
    """Write every split as CSV, without misleading rows; test rows are written as they are.

    Train and validation lose, in this order: texts that are in a split of higher priority
    (test, then validation); texts with several labels, except the rows of a label that has
    more than half of them; repeated texts.

    Args:
        source: The rows.
        folder: Gets ``train.csv`` …, or one file named as the source where it is one file.

    Returns:
        A note on every split.

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
        dropped = np.zeros(len(table), dtype=bool)
        dropped[rows.loc[why != "", "row"].to_numpy(dtype=np.int64)] = True
        name = f"{Path(source.name).stem}.csv" if split == "all" else f"{split}.csv"
        with atomic.new_file(folder / name) as path:
            whole = table[~dropped].drop(columns=SOURCE_ROW, errors="ignore")
            whole.to_csv(path, index=False)
        parts = [f"{count} {reason}" for reason, count in why[why != ""].value_counts().items()]
        done = f"removed {int(dropped.sum())} of {len(table)} rows ({', '.join(parts)})"
        lines.append(f"{name}: {done if parts else 'nothing to fix; copied unchanged'}")
    return lines


def _reasons(rows: pd.DataFrame, seen: set[str]) -> pd.Series:
    """Why each row is left out; empty for the others."""
    why = pd.Series("", index=rows.index)
    why[rows["key"].isin(seen)] = "also in test or validation"
    left = rows[why == ""]
    sizes = left.groupby("key")["label"].transform("size")
    votes = left.groupby(["key", "label"])["text"].transform("size")
    kinds = left.groupby("key")["label"].transform("nunique")
    why[left.index[(kinds > 1) & (votes * 2 <= sizes)]] = "contradicting"
    left = rows[why == ""]
    why[left.index[left.duplicated("key")]] = "repeated"
    return why
