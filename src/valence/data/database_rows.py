"""Rows of a database: a table or a query, read in parts within a time limit."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy import exc

from valence.data.database import Database, open_database
from valence.errors import DataError

READ_ROWS = 20_000
"""Rows held at once while a table is read."""
QUERY_SECONDS = 300.0
"""How long the database may work on what is read, where nobody says."""
OWN_COLUMNS = ("id", "split", "row_key", "chars", "words", "clean_text")
"""Columns of an imported table that are no part of its rows."""
ALIASES = {
    "train": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test",
}  # fmt: skip
READER = "pg_read_all_data"
"""The role of PostgreSQL (14 and later) that reads all tables and nothing else."""
INSTRUCTIONS = 10_000  # of SQLite's machine between two looks at the clock
_ORDERED = re.compile(r"\border\s+by\b", re.IGNORECASE)


class Budget:
    """Seconds that a database may work; what is done with the rows meanwhile is not counted."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.seconds = name, seconds
        self.used = 0.0
        self._since: float | None = None

    @property
    def is_spent(self) -> bool:
        """Whether the time is over."""
        running = 0.0 if self._since is None else time.monotonic() - self._since
        return self.used + running >= self.seconds

    @contextmanager
    def working(self) -> Iterator[None]:
        """The database works; an error of it after the time is over is that of the limit.

        Raises:
            DataError: if the time is over.
        """
        self._since = time.monotonic()
        try:
            yield
        except exc.SQLAlchemyError:
            if not self.is_spent:
                raise
        spent = self.is_spent
        self.used += time.monotonic() - self._since
        self._since = None
        if spent:
            raise DataError(
                f"{self.name}: the query took longer than {self.seconds:g} s; select fewer rows "
                "with --query, or allow more time with --query-timeout"
            )


@contextmanager
def reading(
    database: Database, seconds: float, *, query: bool
) -> Iterator[tuple[sa.Connection, Budget]]:
    """A connection on which nothing can be written, and the time it has.

    Args:
        database: An open one.
        seconds: How long it may work.
        query: Whether a foreign SELECT is carried out, for which a superuser gives up his rights.

    Raises:
        DataError: if the database refuses.
    """
    budget = Budget(database.name, seconds)
    with database.translate_errors(), database.engine.connect() as connection:
        if database.engine.dialect.name == "sqlite":
            driver: Any = connection.connection.dbapi_connection
            driver.set_progress_handler(lambda: int(budget.is_spent), INSTRUCTIONS)
        elif _is_postgres(database):
            _limit(connection, seconds, query=query)
        yield connection, budget


def _is_postgres(database: Database) -> bool:
    return database.engine.dialect.name == "postgresql"


def _limit(connection: sa.Connection, seconds: float, *, query: bool) -> None:
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, round(seconds * 1000))}")
    if query and _may_lend(connection):
        # Rows hidden from the role are an error rather than left out.
        connection.exec_driver_sql("SET LOCAL row_security = off")
        connection.exec_driver_sql(f"SET LOCAL ROLE {READER}")


def _is_superuser(connection: sa.Connection) -> bool:
    return bool(connection.exec_driver_sql("SHOW is_superuser").scalar_one() == "on")


def _may_lend(connection: sa.Connection) -> bool:
    known = f"SELECT count(*) FROM pg_roles WHERE rolname = '{READER}'"
    return _is_superuser(connection) and bool(connection.exec_driver_sql(known).scalar_one())


@dataclass(frozen=True)
class SqlRows:
    """Rows of a table or a query, of one split or all.

    Attributes:
        name: URL of the database.
        source: A table, or a query as a subquery.
        order: Columns by which rows are sorted; the primary key, so that draws can be repeated.
        by_content: Columns by which they are sorted as text, where there is no such key.
        split: Column of the split, and the values that are read.
        without: Columns that are not read.
        timeout_seconds: How long the database may work.
    """

    name: str
    source: sa.Table | sa.TextClause
    order: tuple[str, ...] = ()
    by_content: tuple[str, ...] = ()
    split: tuple[str, tuple[str, ...]] | None = None
    without: tuple[str, ...] = ()
    timeout_seconds: float = QUERY_SECONDS

    @property
    def is_query(self) -> bool:
        """Whether a SELECT of the user's is carried out."""
        return not isinstance(self.source, sa.Table)

    def statement(self) -> sa.Select[Any]:
        """The SELECT that reads the rows."""
        columns: list[Any] = [sa.literal_column("*")]
        if isinstance(self.source, sa.Table):
            columns = [column for column in self.source.c if column.name not in self.without]
        chosen = sa.select(*columns).select_from(self.source)
        if self.split is not None:
            column, values = self.split
            chosen = chosen.where(sa.column(column).in_(values))
        keys: list[Any] = [sa.column(name) for name in self.order]
        keys += [sa.cast(sa.column(name), sa.Text).collate("C") for name in self.by_content]
        return chosen.order_by(*keys)

    def batches(self, rows: int) -> Iterator[pd.DataFrame]:
        """Tables of at most ``rows`` rows; the database is not read ahead."""
        for columns, part in self.records(rows):
            yield pd.DataFrame.from_records(part, columns=columns)

    def records(self, rows: int) -> Iterator[tuple[list[str], list[tuple[Any, ...]]]]:
        """Names of the columns, and at most ``rows`` rows with the values of the database."""
        with (
            open_database(self.name) as database,
            reading(database, self.timeout_seconds, query=self.is_query) as (open_, budget),
        ):
            with budget.working():
                result = open_.execution_options(yield_per=rows).execute(self.statement())
            columns = list(result.keys())
            parts = result.partitions()
            with closing(result):
                while True:
                    with budget.working():
                        part = next(parts, None)
                    if part is None:
                        return
                    yield columns, [tuple(row) for row in part]

    def count(self) -> int:
        """How many rows there are."""
        counted = sa.select(sa.func.count()).select_from(self.statement().order_by(None).subquery())
        return int(self._values(counted)[0])

    def distinct(self, column: str) -> list[Any]:
        """The values of a column."""
        chosen: sa.Select[Any] = sa.select(sa.column(column)).select_from(self.source).distinct()
        return self._values(chosen)

    def _values(self, statement: sa.Select[Any]) -> list[Any]:
        with (
            open_database(self.name) as database,
            reading(database, self.timeout_seconds, query=self.is_query) as (open_, budget),
            budget.working(),
        ):
            return list(open_.execute(statement).scalars())

    def read(self) -> pd.DataFrame:
        """All rows.

        Raises:
            DataError: if there are none.
        """
        parts = list(self.batches(READ_ROWS))
        if not parts:
            raise DataError(f"{self.name}: no rows found; check the table or the query")
        return pd.concat(parts, ignore_index=True)


def sql_tables(
    name: str,
    *,
    query: str | None,
    table: str | None,
    text_column: str | None,
    timeout_seconds: float | None = None,
) -> tuple[dict[str, SqlRows], list[str]]:
    """Rows of a database by split name, or under ``"all"``, and notes on them.

    A column named ``split`` with train, validation (valid, val, dev) or test in it gives splits.

    Raises:
        DataError, SpecError: if the database, the table or the query cannot be used.
    """
    rows, columns, notes = _rows(name, query, table, text_column, timeout_seconds)
    split = next((column for column in columns if column.lower() == "split"), None)
    if split is None:
        return {"all": rows}, notes
    values = rows.distinct(split)
    aliases: dict[str, list[str]] = {}
    for value in values:
        known = ALIASES.get(value.lower()) if isinstance(value, str) else None
        if known:
            aliases.setdefault(known, []).append(value)
    if not aliases:
        return {"all": rows}, notes
    unused = sorted(str(v) for v in values if not isinstance(v, str) or v.lower() not in ALIASES)
    if unused:
        notes.append(f"{name}: rows of split {', '.join(unused[:5])} are not used")
    parts = {
        known: replace(rows, split=(split, tuple(there)))
        for known in ("train", "validation", "test")
        if (there := aliases.get(known))
    }
    return parts, notes


def all_rows(
    name: str,
    *,
    query: str | None = None,
    table: str | None = None,
    timeout_seconds: float | None = None,
) -> SqlRows:
    """Every row and column of a table or a query, whatever its split.

    Raises:
        DataError, SpecError: if the database, the table or the query cannot be used.
    """
    rows, _, _ = _rows(name, query, table, None, timeout_seconds)
    return replace(rows, without=())


def _rows(
    name: str, query: str | None, table: str | None, text_column: str | None,
    timeout_seconds: float | None,
) -> tuple[SqlRows, list[str], list[str]]:  # fmt: skip
    """The rows, the names of their columns, and notes."""
    seconds = QUERY_SECONDS if timeout_seconds is None else timeout_seconds
    with open_database(name) as database, database.translate_errors():
        if query is not None:
            return _query_rows(database, query, seconds)
        source = database.table(table)
        by_key = bool(source.primary_key.columns) or not _is_postgres(database)
    columns = [column.name for column in source.c]
    ours = "row_key" in columns and (text_column is None or text_column in columns)
    hidden: tuple[str, ...] = OWN_COLUMNS if ours else ()
    if hidden and text_column == "clean_text":
        hidden = (*hidden, "text")
    rows = SqlRows(
        name, source, tuple(column.name for column in source.primary_key),
        by_content=() if by_key else tuple(columns),
        without=tuple(name for name in hidden if name != text_column), timeout_seconds=seconds,
    )  # fmt: skip
    return rows, columns, []


def _query_rows(
    database: Database, query: str, seconds: float
) -> tuple[SqlRows, list[str], list[str]]:
    # A colon is no parameter here; as a subquery, nothing but a SELECT is carried out.
    inner = sa.text("(" + query.strip().rstrip(";").replace(":", r"\:") + "\n) AS chosen")
    probe: sa.Select[Any] = sa.select(sa.literal_column("*")).select_from(inner).limit(0)
    notes = []
    with reading(database, seconds, query=True) as (connection, budget), budget.working():
        columns = list(connection.execute(probe).keys())
        if _is_postgres(database) and _is_superuser(connection):  # no role to lend
            notes.append(
                f"{database.name}: the query would run as a superuser, who can read the server's "
                f"files; connect as a role that can only read these "
                "tables"
            )
    by_content: tuple[str, ...] = ()
    if _is_postgres(database) and not _ORDERED.search(query):
        if len(set(columns)) == len(columns):
            by_content = tuple(columns)
        else:
            notes.append(
                f"{database.name}: the query has no ORDER BY, so the order of its rows may change; "
                "add one"
            )
    rows = SqlRows(database.name, inner, by_content=by_content, timeout_seconds=seconds)
    return rows, columns, notes
