"""Labels in an SQLite file: one row per decision, nothing changed or deleted.

The file is in write-ahead mode and every decision is synced to the disk before it is answered, so
that a killed process loses none. Its view ``labels`` has one row per labeled text; ``valence fit``
reads it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valence.data.label_file import (
    FORMAT,
    SCHEMA,
    VIEW,
    is_label_file,
    read_about,
    translate_errors,
)
from valence.errors import DataError, RunError

ACTIONS = ("label", "skip", "unsure", "undo")
BUSY_SECONDS = 30.0


@dataclass(frozen=True)
class Decision:
    """What a person decided on a row.

    Attributes:
        row: Its number in the file.
        person: Who.
        action: One of :data:`ACTIONS`.
        label: The label; None for other actions.
        seconds: From the text on the screen to the decision; None where not known.
        suggestion: The model's label at that time; None without a model.
        was_shown: Whether the person had the suggestion on the screen.
        note: Words of the person.
        chosen_by: The strategy that chose the row, ``random`` for the random sample, ``shared``
            for the part that everybody labels, ``search`` for a row the person looked up.
        undoes: Number of the decision that this one takes back.
        id: Number of the decision; 0 before it is stored.
        time: Seconds since 1970; 0 before it is stored.
        token: Of the page that sent it, so that a decision that is sent twice is stored once.
    """

    row: int
    person: str
    action: str
    label: str | None = None
    seconds: float | None = None
    suggestion: str | None = None
    was_shown: bool = False
    note: str = ""
    chosen_by: str = ""
    undoes: int | None = None
    id: int = 0
    time: float = 0.0
    token: str | None = None


class LabelStore:
    """The file; usable from several threads, and open in several processes.

    Args:
        path: An existing file of labels; see :meth:`create`.

    Raises:
        DataError: if it is no such file, or damaged.
    """

    def __init__(self, path: Path) -> None:
        if not is_label_file(path):
            raise DataError(
                f"{path} holds no labels of valence label; name another file with --out"
            )
        self.path = path
        self._lock = threading.Lock()
        with translate_errors(path):
            self._connection = _connect(path)
        try:
            self.about: Mapping[str, Any] = read_about(self._connection, path)
        except DataError:
            self.close()
            raise

    @classmethod
    def create(
        cls, path: Path, texts: Sequence[str], *, source_rows: Sequence[int],
        classes: Sequence[str], about: Mapping[str, Any], order: Sequence[int],
        extra: Sequence[Mapping[str, Any]] | None = None,
    ) -> LabelStore:  # fmt: skip
        """Make a file for a pool; it gets its name when it is whole.

        Args:
            path: Where; nothing may be there.
            texts: N texts.
            source_rows: N row numbers in the source.
            classes: Label names.
            about: What else is to be remembered, as plain values.
            order: The N rows in random order: the random sample is its beginning.
            extra: Other columns of the N rows.

        Raises:
            RunError: if the file is there already, or cannot be written.
        """
        from valence.storage import atomic

        if path.exists():
            raise RunError(f"{path} is there already; name another file with --out")
        columns = extra or [{}] * len(texts)
        with atomic.new_file(path) as scratch:
            try:
                connection = sqlite3.connect(scratch)
                connection.executescript(SCHEMA)
                values = {"format": FORMAT, "classes": list(classes), **about}
                connection.executemany(
                    "INSERT INTO about VALUES (?, ?)",
                    [(k, json.dumps(v, ensure_ascii=False)) for k, v in values.items()],
                )
                connection.executemany(
                    "INSERT INTO rows VALUES (?, ?, ?, ?)",
                    (
                        (i, int(number), text, json.dumps(own, ensure_ascii=False, default=str))
                        for i, (number, text, own) in enumerate(
                            zip(source_rows, texts, columns, strict=True)
                        )
                    ),
                )
                connection.executemany(
                    "INSERT INTO sample VALUES (?, ?)", ((i, int(r)) for i, r in enumerate(order))
                )
                connection.commit()
                connection.close()
            except sqlite3.Error as error:
                raise RunError(f"Cannot write {path}: {error}; free some of the disk") from None
        return cls(path)

    @property
    def classes(self) -> tuple[str, ...]:
        """Label names."""
        return tuple(self.about["classes"])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def texts(self) -> list[str]:
        """The N texts."""
        return [text for (text,) in self._read("SELECT text FROM rows ORDER BY row")]

    def sample_order(self) -> list[int]:
        """The N rows in random order."""
        return [row for (row,) in self._read("SELECT row FROM sample ORDER BY place")]

    def add(self, decision: Decision) -> int:
        """Store a decision; returns its number when it is on the disk.

        A lease of the person on the row ends with it.

        Raises:
            DataError: if the label is unknown, or there is nothing to undo.
            RunError: if the disk refuses.
        """
        self._check(decision)
        values = (
            decision.row, decision.person, decision.time or time.time(), decision.action,
            decision.label, decision.seconds, decision.suggestion, int(decision.was_shown),
            decision.note, decision.chosen_by, decision.undoes, decision.token,
        )  # fmt: skip
        with self._writing() as connection:
            before = connection.execute(
                "SELECT id FROM decisions WHERE token = ?", (decision.token,)
            ).fetchone()
            if before is not None:
                return int(before[0])
            number = connection.execute(
                "INSERT INTO decisions (row, person, time, action, label, seconds, suggestion, "
                "was_shown, note, chosen_by, undoes, token) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values,
            ).lastrowid  # fmt: skip
            connection.execute(
                "DELETE FROM leases WHERE row = ? AND person = ?", (decision.row, decision.person)
            )
        assert number is not None
        return number

    def undo(self, person: str, token: str | None = None) -> Decision | None:
        """Take back the last decision of a person; returns it, or None where there is none left."""
        if token is not None:
            sent = self._decisions("WHERE token = ?", (token,))
            if sent:
                return next(iter(self._decisions("WHERE id = ?", (sent[0].undoes,))), None)
        last_ones = self._decisions(
            "WHERE person = ? AND action <> 'undo' AND id NOT IN "
            "(SELECT undoes FROM decisions WHERE undoes IS NOT NULL) ORDER BY id DESC LIMIT 1",
            (person,),
        )
        if not last_ones:
            return None
        last = last_ones[0]
        self.add(Decision(last.row, person, "undo", undoes=last.id, chosen_by=last.chosen_by,
                          token=token))  # fmt: skip
        return last

    def decisions(self) -> list[Decision]:
        """Every decision in its order."""
        return self._decisions("ORDER BY id", ())

    def standing(self) -> list[Decision]:
        """The last decision of every person on every row that was not taken back, in order."""
        rows = self._read(f"SELECT {_COLUMNS} FROM standing ORDER BY id")
        return [_decision(row) for row in rows]

    def labels(self) -> list[tuple[int, str, str, int]]:
        """Row in the source, text, label and votes of every labeled text."""
        return [
            tuple(row) for row in self._read(f"SELECT source_row, text, label, votes FROM {VIEW}")
        ]

    def extra_of_labeled(self) -> list[dict[str, Any]]:
        """The other columns of the pool, of the rows of :meth:`labels`."""
        extras = self._read(
            "SELECT extra FROM rows WHERE row IN (SELECT row FROM standing WHERE action = 'label') "
            "ORDER BY row"
        )
        try:
            return [dict(json.loads(extra)) for (extra,) in extras]
        except (ValueError, TypeError, RecursionError):
            raise DataError(f"{self.path} is damaged: other columns of its rows") from None

    def lease(self, rows: Sequence[int], person: str, chosen_by: str, seconds: float) -> list[int]:
        """Reserve rows for a person; returns those that nobody else has in hand.

        Args:
            rows: Row numbers.
            person: Who gets them.
            chosen_by: See :class:`Decision`; rows chosen as ``shared`` may be with several people.
            seconds: For how long.
        """
        now = time.time()
        granted = []
        with self._writing() as connection:
            connection.execute("DELETE FROM leases WHERE until < ?", (now,))
            for row in rows:
                taken = connection.execute(
                    "SELECT 1 FROM leases WHERE row = ? AND person <> ? LIMIT 1", (row, person)
                ).fetchone()
                decided = connection.execute(
                    "SELECT 1 FROM standing WHERE row = ? AND CASE ? WHEN 'shared' THEN person = ? "
                    "WHEN 'search' THEN person <> ? ELSE 1 END LIMIT 1",
                    (row, chosen_by, person, person),
                ).fetchone()
                if decided or (taken and chosen_by != "shared"):
                    continue
                connection.execute(
                    "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)",
                    (row, person, now + seconds, chosen_by),
                )
                granted.append(row)
        return granted

    def leases(self) -> list[tuple[int, str, str]]:
        """Row, person and ``chosen_by`` of every lease that has not run out."""
        return [
            tuple(row)
            for row in self._read(
                "SELECT row, person, chosen_by FROM leases WHERE until >= ? ORDER BY until",
                (time.time(),),
            )
        ]

    def search(self, words: str, most: int) -> list[tuple[int, str, str | None]]:
        """Row, text and label of the first rows that contain some words, in any case."""
        voted = self._read(
            "SELECT r.row, r.text, s.label FROM rows r LEFT JOIN "
            "(SELECT row, max(label) AS label FROM standing WHERE action = 'label' GROUP BY row) s "
            "ON s.row = r.row WHERE instr(folded(r.text), ?) ORDER BY r.row LIMIT ?",
            (_folded(words), most),
        )
        return [tuple(row) for row in voted]

    def _check(self, decision: Decision) -> None:
        if decision.action not in ACTIONS:
            raise DataError(f"A decision cannot be {decision.action!r}; write {', '.join(ACTIONS)}")
        if (decision.action == "label") != (decision.label is not None):
            raise DataError("A label comes with the action label, and with no other")
        if decision.label is not None and decision.label not in self.classes:
            raise DataError(
                f"Unknown label {decision.label!r}; the labels are {', '.join(self.classes[:20])}"
            )

    def _decisions(self, where: str, values: Sequence[Any]) -> list[Decision]:
        rows = self._read(f"SELECT {_COLUMNS} FROM decisions {where}", values)
        return [_decision(row) for row in rows]

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock, translate_errors(self.path):
            return self._connection.execute(query, tuple(values)).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise RunError(
                    f"Cannot write {self.path}: {error}; free some of the disk, or copy the file "
                    "to another one"
                ) from None


_COLUMNS = (
    "row, person, action, label, seconds, suggestion, was_shown, note, chosen_by, undoes, id, "
    "time, token"
)


def _decision(values: Sequence[Any]) -> Decision:
    given = list(values)
    given[6] = bool(given[6])
    return Decision(*given)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.create_function("folded", 1, _folded, deterministic=True)
    return connection


def _folded(text: str) -> str:
    """The text for a search in any case; SQLite's own ``lower`` knows ASCII letters only."""
    return unicodedata.normalize("NFKC", text).casefold()
