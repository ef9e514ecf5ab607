"""Label files of ``valence label``: their format, and reading them as a source of rows.

A label file may come from anyone. Its tables and views must be those of :data:`SCHEMA` to the
letter, so that nothing in it runs but what Valence wrote, and its values must be of their types.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from valence.data.sqlite_file import reading_uri
from valence.errors import DataError

APPLICATION_ID = 0x56414C42
"""In the header of a label file, as SQLite's ``PRAGMA application_id``."""
FORMAT = 1
VIEW = "labels"
"""The view of a label file with one row per labeled text."""
SCHEMA = f"""
PRAGMA application_id={APPLICATION_ID};
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE rows (
  row INTEGER PRIMARY KEY, source_row INTEGER NOT NULL, text TEXT NOT NULL, extra TEXT NOT NULL);
CREATE TABLE decisions (
  id INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL REFERENCES rows(row),
  person TEXT NOT NULL, time REAL NOT NULL, action TEXT NOT NULL, label TEXT, seconds REAL,
  suggestion TEXT, was_shown INTEGER NOT NULL DEFAULT 0, note TEXT NOT NULL DEFAULT '',
  chosen_by TEXT NOT NULL DEFAULT '', undoes INTEGER REFERENCES decisions(id),
  token TEXT UNIQUE);
CREATE INDEX decisions_row ON decisions(row);
CREATE INDEX decisions_undoes ON decisions(undoes);
CREATE TABLE leases (
  row INTEGER NOT NULL, person TEXT NOT NULL, until REAL NOT NULL, chosen_by TEXT NOT NULL,
  PRIMARY KEY (row, person));
CREATE TABLE sample (place INTEGER PRIMARY KEY, row INTEGER NOT NULL UNIQUE);
CREATE VIEW standing AS
  SELECT * FROM (
    SELECT d.*, row_number() OVER (PARTITION BY row, person ORDER BY id DESC) AS newest
    FROM decisions d
    WHERE action <> 'undo' AND id NOT IN (SELECT undoes FROM decisions WHERE undoes IS NOT NULL)
  ) WHERE newest = 1;
CREATE VIEW {VIEW} AS
  SELECT r.source_row AS source_row, r.text AS text, v.label AS label, v.votes AS votes
  FROM (
    SELECT row, label, votes,
      row_number() OVER (PARTITION BY row ORDER BY votes DESC, first) AS best
    FROM (SELECT row, label, count(*) AS votes, min(id) AS first FROM standing
          WHERE action = 'label' GROUP BY row, label)
  ) v JOIN rows r ON r.row = v.row WHERE v.best = 1 ORDER BY r.row;
"""
MOST_CLASSES = 1000
_OBJECTS = (
    "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_stat%' "
    "ORDER BY type, name"
)
_FAULTS = {
    "rows": "SELECT count(*) <> coalesce(max(row) + 1, 0) OR coalesce(min(row), 0) <> 0 "
    "OR total(typeof(text) <> 'text' OR typeof(extra) <> 'text' "
    "OR typeof(source_row) <> 'integer') FROM rows",
    "decisions": "SELECT total(typeof(person) <> 'text' OR typeof(time) <> 'real' "
    "OR typeof(action) <> 'text' OR typeof(label) NOT IN ('text', 'null') "
    "OR typeof(seconds) NOT IN ('real', 'null') OR typeof(suggestion) NOT IN ('text', 'null') "
    "OR typeof(note) <> 'text' OR typeof(chosen_by) <> 'text' "
    "OR row NOT IN (SELECT row FROM rows)) FROM decisions",
    "sample": "SELECT (SELECT count(*) FROM sample) <> (SELECT count(*) FROM rows) "
    "OR EXISTS (SELECT 1 FROM sample WHERE row NOT IN (SELECT row FROM rows))",
}
"""Table → a query whose answer is above 0 where its values are not of their types."""


def is_label_file(path: Path) -> bool:
    """Whether a file is a label file."""
    try:
        with path.open("rb") as file:
            head = file.read(72)
    except OSError:
        return False
    return head[:15] == b"SQLite format 3" and head[68:72] == APPLICATION_ID.to_bytes(4, "big")


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Raise what SQLite reports while a label file is read as a DataError."""
    try:
        yield
    except (sqlite3.Error, UnicodeError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise DataError(f"{path} cannot be read: {reason}; copy the file again") from None


def read_about(connection: sqlite3.Connection, path: Path) -> dict[str, Any]:
    """What a label file says of itself, once its format and types are checked.

    Args:
        connection: The open file.
        path: Its name, for messages.

    Raises:
        DataError: if it was not written by ``valence label``, by a newer version, or is damaged.
    """
    with translate_errors(path):
        connection.execute("PRAGMA trusted_schema=OFF")
        objects = connection.execute(_OBJECTS).fetchall()
        if ("table", "about") not in {(kind, name) for kind, name, *_ in objects}:
            raise DataError(f"{path} does not have the tables of valence label; use another file")
        about = _plain_about(connection, path)
        if isinstance(about.get("format"), int) and about["format"] > FORMAT:
            raise DataError(f"{path} was written by a newer version of Valence; update it")
        with closing(sqlite3.connect(":memory:")) as own:
            own.executescript(SCHEMA)
            expected = own.execute(_OBJECTS).fetchall()
        if objects != expected or about.get("format") != FORMAT:
            raise DataError(f"{path} does not have the tables of valence label; use another file")
        damaged = [t for t, query in _FAULTS.items() if connection.execute(query).fetchone()[0]]
        labels = connection.execute(
            "SELECT DISTINCT label FROM decisions WHERE label IS NOT NULL LIMIT ?",
            (len(about["classes"]) + 1,),
        ).fetchall()
    if not {label for (label,) in labels} <= set(about["classes"]):
        damaged.append("decisions")
    if damaged:
        raise DataError(f"{path} is damaged: its table {damaged[0]!r}; use a copy of the file")
    return about


def _plain_about(connection: sqlite3.Connection, path: Path) -> dict[str, Any]:
    rows = connection.execute("SELECT key, value FROM about LIMIT 100").fetchall()
    try:
        about = {str(key): json.loads(value) for key, value in rows}
    except (ValueError, TypeError, RecursionError):
        about = {}
    names, words = _texts(about.get("classes")), _texts(about.get("words", about.get("classes")))
    if not 2 <= len(names) == len(set(names)) == len(words) <= MOST_CLASSES or "" in names:
        raise DataError(f"{path} is damaged: its table 'about'; use a copy of the file")
    return about


def _texts(values: object) -> list[str]:
    """A list of texts; empty where it is none."""
    is_plain = isinstance(values, list) and all(isinstance(value, str) for value in values)
    return values if is_plain else []  # type: ignore[return-value]


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
        with (
            translate_errors(self.path),
            closing(sqlite3.connect(reading_uri(str(self.path)), uri=True)) as connection,
        ):
            connection.execute("PRAGMA query_only=ON")
            read_about(connection, self.path)
            cursor = connection.execute(f"SELECT text, label, source_row, votes FROM {VIEW}")
            rows = cursor.fetchall()
        if not rows:
            raise DataError(f"{self.path} has no labels yet; label rows with valence label")
        return pd.DataFrame(rows, columns=pd.Index(["text", "label", "source_row", "votes"]))

    def batches(self, rows: int) -> Iterator[pd.DataFrame]:
        """Tables of at most ``rows`` rows."""
        table = self.read()
        for start in range(0, len(table), rows):
            yield table[start : start + rows].reset_index(drop=True)
