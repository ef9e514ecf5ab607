"""Label files of ``valence label`` as a source of rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from valence.errors import DataError

APPLICATION_ID = 0x56414C42
"""In the header of a label file, as SQLite's ``PRAGMA application_id``."""
VIEW = "labels"
"""The view of a label file with one row per labeled text."""


def is_label_file(path: Path) -> bool:
    """Whether a file is a label file."""
    try:
        with path.open("rb") as file:
            head = file.read(72)
    except OSError:
        return False
    return head[:15] == b"SQLite format 3" and head[68:72] == APPLICATION_ID.to_bytes(4, "big")


@dataclass(frozen=True)
class LabelFileRows:
    """The labeled rows of a label file: ``text``, ``label``, ``source_row`` and ``votes``.

    Attributes:
        path: The file.
    """

    path: Path

    def read(self) -> pd.DataFrame:
        """All rows.

        Raises:
            DataError: if no row has a label, or the file cannot be read.
        """
        try:
            with closing(sqlite3.connect(self.path)) as connection:
                cursor = connection.execute(f"SELECT text, label, source_row, votes FROM {VIEW}")
                rows = cursor.fetchall()
        except sqlite3.Error as error:
            raise DataError(f"{self.path} cannot be read: {error}; copy the file again") from None
        if not rows:
            raise DataError(f"{self.path} has no labels yet; label rows with valence label")
        return pd.DataFrame(rows, columns=pd.Index(["text", "label", "source_row", "votes"]))

    def batches(self, rows: int) -> Iterator[pd.DataFrame]:
        """Tables of at most ``rows`` rows."""
        table = self.read()
        for start in range(0, len(table), rows):
            yield table[start : start + rows].reset_index(drop=True)
