"""Importing rows into a database, in parts and so that it can be repeated: :func:`import_rows`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateTable

from valence.config.data import DataSpec
from valence.config.database_url import is_sql_url, refuse_password
from valence.data.catalog import DATASETS
from valence.data.database import TEXTS, Database, open_database, split_table_name
from valence.data.groups import choose_rows
from valence.data.locate import SPLITS, Table, locate, refuse_subsampling
from valence.data.plain_values import texts_of_bytes
from valence.data.source_columns import column_of_splits, splits_of
from valence.data.tables import LABEL_COLUMNS, TEXT_COLUMNS, find_column, whole_characters
from valence.data.text import DEFAULT, clean_text
from valence.errors import DataError, SpecError

INSERTS: dict[str, Callable[[sa.Table], Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
REASONS = ("without text", "without label", "emptied by cleaning", "label not in the map")
Progress = Callable[[int], None]


@dataclass(frozen=True)
class ImportOptions:
    """How rows are imported.

    Attributes:
        table: Where they go; created if missing.
        clean: Names of ``CLEANERS``; none leaves ``clean_text`` null.
        split: Of a source of one table, the split its rows are stored under (``all`` when not
            given); of a source with splits, the only one that is imported.
        label_map: From labels of the source to stored ones; others are left out.
        batch_rows: Rows read, cleaned and written at once, each time in one transaction.
    """

    table: str = TEXTS
    clean: tuple[str, ...] = DEFAULT
    split: str | None = None
    label_map: Mapping[str, str] | None = None
    batch_rows: int = 10_000


@dataclass
class ImportReport:
    """What an import did.

    Attributes:
        table: Where the rows went.
        read: Rows of the source.
        added: Rows that were not there before.
        present: Rows that were there already.
        splits: Usable rows by split.
        left_out: Rows that were not stored, by reason (``REASONS``).
        mended: Stored rows with characters no database takes (NUL removed, halves of surrogate
            pairs replaced).
        seconds: Time taken.
    """

    table: str
    read: int = 0
    added: int = 0
    present: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    mended: int = 0
    seconds: float = 0.0


def import_rows(
    source: str | DataSpec,
    to: str,
    *,
    options: ImportOptions | None = None,
    data_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Copy the rows of a source into a table of an SQLite or PostgreSQL database.

    The table has the columns ``id``, ``split``, ``label``, ``text``, ``clean_text``, ``chars``,
    ``words`` and ``row_key``, a unique hash of split, label, text and how many times the source
    held the same before. So an interrupted import is completed by the same
    call, and a second import of a source adds nothing.

    Args:
        source: A file, a folder of split files, a card, a hub id, ``kaggle:owner/dataset`` with
            a file after another ``/``, or the URL of another database; or a spec that names one,
            its columns, encoding, table and groups.
        to: URL of the database; a password in it is written as ``${NAME}``.
        options: How.
        data_dir: Folder of corpora, as for ``load_dataset``.
        progress: Called after each batch with the rows of the source that are done.

    Raises:
        DataError: if the source cannot be read or the database written.
        SpecError: if the URL or an option is wrong, or the spec subsamples rows.
    """
    options = options or ImportOptions()
    spec = DataSpec(name=source) if isinstance(source, str) else source
    refuse_subsampling(spec, "an import reads all rows")
    if options.batch_rows < 1:
        raise SpecError(f"Invalid batch size {options.batch_rows}; use at least 1")
    refuse_password(to)
    if not is_sql_url(to):
        raise SpecError(
            f"{to} is not a database URL; write sqlite:///{Path(to).stem or 'texts'}.db"
        )
    clock = time.perf_counter()
    located = choose_rows(spec, locate(spec, data_dir)[0])
    column = column_of_splits(spec, located) if options.split is None else None
    tables = _chosen(located, spec.name, options)
    report = ImportReport(options.table)
    with open_database(to, create=True) as database:
        writer = _Writer(database, options.table)
        rows = _Rows(spec, options, report, split_column=column)
        for split, table in tables.items():
            for batch in table.batches(options.batch_rows):
                for own, part in rows.by_split(batch, split):
                    writer.write(rows.records(part, own), report)
                if progress is not None:
                    progress(report.read)
    if not report.splits:
        raise DataError(f"{spec.name}: no row has both a text and a label; check the columns")
    report.seconds = time.perf_counter() - clock
    return report


def _chosen(
    tables: Mapping[str, Table], source: str, options: ImportOptions
) -> Mapping[str, Table]:
    if options.split is None:
        return tables
    if "all" in tables:
        return {options.split: tables["all"]}
    if options.split not in tables:
        raise DataError(f"{source} has no {options.split} split; it has {', '.join(tables)}")
    return {options.split: tables[options.split]}


class _Writer:
    """Adds records to a table, which is created with the first."""

    def __init__(self, database: Database, name: str) -> None:
        self.database = database
        dialect = database.engine.dialect.name
        if dialect not in INSERTS:
            raise DataError(
                f"Rows can be imported into SQLite and PostgreSQL, not {dialect}; use "
                "sqlite:///file.db or postgresql://…"
            )
        self.table = _definition(name)
        insert = INSERTS[dialect](self.table)
        self.statement = insert.on_conflict_do_nothing(index_elements=["row_key"])
        self.ready = False

    def write(self, records: list[dict[str, Any]], report: ImportReport) -> None:
        """Add the records that are not there, all or none of them."""
        if not self.ready:
            self._create()
        if not records:
            return
        with self.database.translate_errors(), self.database.engine.begin() as open_:
            counted = open_.execution_options(preserve_rowcount=True)
            added = counted.execute(self.statement, records).rowcount
        report.added += added
        report.present += len(records) - added

    def _create(self) -> None:
        with self.database.translate_errors():
            with self.database.engine.begin() as open_:
                open_.execute(CreateTable(self.table, if_not_exists=True))
            inspector = sa.inspect(self.database.engine)
            there = inspector.get_columns(self.table.name, schema=self.table.schema)
        names = {column["name"] for column in there}
        missing = [column.name for column in self.table.c if column.name not in names]
        if missing:
            raise DataError(
                f"{self.database.name}: the table {self.table.fullname} was not created by an "
                f"import (it has no {missing[0]}); choose another with "
                f"--table"
            )
        self.ready = True


def _definition(name: str) -> sa.Table:
    schema, bare = split_table_name(name)
    if not bare:
        raise SpecError(f"{name!r} is not a table name; use a word such as {TEXTS}")
    return sa.Table(
        bare,
        sa.MetaData(),
        # SQLite numbers rows by itself only under the type INTEGER.
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("split", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("clean_text", sa.Text),
        sa.Column("chars", sa.Integer, nullable=False),
        sa.Column("words", sa.Integer, nullable=False),
        sa.Column("row_key", sa.Text, nullable=False, unique=True),
        schema=schema,
    )


class _Rows:
    """Turns tables of the source into records, and counts the rows left out."""

    def __init__(
        self, spec: DataSpec, options: ImportOptions, report: ImportReport, *,
        split_column: str | None = None,
    ) -> None:  # fmt: skip
        self.spec, self.split_column = spec, split_column
        self.source = spec.name
        self.options = options
        self.report = report
        self.card = DATASETS.get(spec.name)
        self.seen = Occurrences()
        self.columns: tuple[str, str] | None = None

    def by_split(self, batch: pd.DataFrame, split: str) -> list[tuple[str, pd.DataFrame]]:
        """The rows of each split of a batch: those that a column names, or all of ``split``."""
        if self.split_column is None:
            return [(split, batch)]
        splits = splits_of(batch[self.split_column], self.source, before=self.report.read)
        return [(name, batch[splits == name]) for name in SPLITS if (splits == name).any()]

    def records(self, batch: pd.DataFrame, split: str) -> list[dict[str, Any]]:
        """The rows of a batch that can be stored."""
        self.report.read += len(batch)
        text, label = self._find_columns(batch)
        empty = [None] * len(batch)
        texts = batch[text].tolist() if text in batch.columns else empty
        labels = batch[label].tolist() if label in batch.columns else empty
        records = [
            record
            for values in zip(
                texts_of_bytes(texts, self.source), texts_of_bytes(labels, self.source), strict=True
            )
            if (record := self._record(*values, split)) is not None
        ]
        self._number(records)
        if records:
            self.report.splits[split] = self.report.splits.get(split, 0) + len(records)
        return records

    def _find_columns(self, batch: pd.DataFrame) -> tuple[str, str]:
        if self.columns is None:
            names = [str(name) for name in batch.columns]
            given = self.spec.text_column, self.spec.label_column
            known = (self.card.text_column, self.card.label_column) if self.card else (None, None)
            text, label = (
                find_column(names, requested, usual, what=what, where=self.source)
                for requested, usual, what in (
                    (given[0] or known[0], TEXT_COLUMNS, "text"),
                    (given[1] or known[1], LABEL_COLUMNS, "label"),
                )
            )
            for name in (text, label):
                if names.count(name) > 1:
                    raise DataError(
                        f"{self.source}: several columns are named {name!r}; rename all but one"
                    )
            self.columns = (text, label)
        return self.columns

    def _record(self, text_value: Any, label_value: Any, split: str) -> dict[str, Any] | None:
        text, repaired = _storable(_as_text(text_value))
        label, _ = _storable(_as_text(label_value).strip())
        reason = ""
        cleaned = None
        if not text.strip():
            reason = "without text"
        elif not label:
            reason = "without label"
        elif self.options.label_map is not None and label not in self.options.label_map:
            reason = "label not in the map"
        elif self.options.clean:
            cleaned, _ = _storable(clean_text(text, self.options.clean))
            reason = "" if cleaned.strip() else "emptied by cleaning"
        if reason:
            self.report.left_out[reason] += 1
            return None
        self.report.mended += repaired
        return {
            "split": split,
            "label": self._stored(label),
            "text": text,
            "clean_text": cleaned,
            "chars": len(text),
            "words": len(text.split()),
        }

    def _stored(self, label: str) -> str:
        if self.options.label_map is not None:
            return self.options.label_map[label]
        classes = self.card.classes if self.card else ()
        if label not in classes and label.isdecimal() and int(label) < len(classes):
            return classes[int(label)]
        return label

    def _number(self, records: list[dict[str, Any]]) -> None:
        digests = [_digest(row["split"], row["label"], row["text"]) for row in records]
        keys = np.array([int.from_bytes(d[:8], "little") for d in digests], dtype=np.uint64)
        for row, digest, number in zip(records, digests, self.seen.number(keys), strict=True):
            row["row_key"] = (_digest(digest.hex(), str(number)) if number else digest).hex()


def _as_text(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float) and value.is_integer():  # integers that a gap made floats
        return str(int(value))
    return str(value)


def _storable(text: str) -> tuple[str, bool]:
    """The text without characters that UTF-8 or databases refuse, and whether it had any."""
    repaired = whole_characters(text.replace("\0", ""))
    return repaired, repaired != text


def _digest(*parts: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part.encode()
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.digest()


class Occurrences:
    """How many times each of a stream of 64-bit hashes came before, at 16 bytes a hash.

    Sorted arrays of growing size; two of like size are merged, so that a stream of N hashes
    takes O(N log N). Equal hashes of different rows would only give a row another number.
    """

    def __init__(self) -> None:
        self.levels: list[tuple[np.ndarray, np.ndarray]] = []

    def number(self, hashes: np.ndarray) -> list[int]:
        """For each of (N,) hashes, how often it came before, in this part or an earlier one."""
        if not len(hashes):
            return []
        distinct, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        before = np.zeros(len(distinct), dtype=np.int64)
        for known, times in self.levels:
            place = np.minimum(np.searchsorted(known, distinct), len(known) - 1)
            before += np.where(known[place] == distinct, times[place], 0)
        order = np.argsort(inverse, kind="stable")
        within = np.empty(len(hashes), dtype=np.int64)
        starts = np.cumsum(counts) - counts
        within[order] = np.arange(len(hashes)) - starts[inverse[order]]
        self._add(distinct, counts)
        numbers: list[int] = (before[inverse] + within).tolist()
        return numbers

    def _add(self, distinct: np.ndarray, counts: np.ndarray) -> None:
        self.levels.append((distinct, counts))
        while len(self.levels) > 1 and len(self.levels[-2][0]) <= 2 * len(self.levels[-1][0]):
            (a, m), (b, n) = self.levels.pop(), self.levels.pop()
            merged, inverse = np.unique(np.concatenate([a, b]), return_inverse=True)
            times = np.zeros(len(merged), dtype=np.int64)
            np.add.at(times, inverse, np.concatenate([m, n]))
            self.levels.append((merged, times))
