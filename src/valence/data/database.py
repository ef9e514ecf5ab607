"""Databases as sources: opening one by its URL, its tables, and rows in parts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import pandas as pd
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, Engine, make_url

from valence.config.database_url import VARIABLE, refuse_password
from valence.errors import DataError, SpecError, UnknownNameError

TEXTS = "texts"
"""The table that imports write where no other is named."""
BUSY_SECONDS = 30
"""How long SQLite waits for another process that writes."""
READ_ROWS = 20_000
"""Rows held at once while a table is read."""
OWN_COLUMNS = ("id", "split", "row_key", "chars", "words", "clean_text")
"""Columns of an imported table that are no part of its rows."""
EXTRAS = {"psycopg": "valence[postgres]"}
ALIASES = {
    "train": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test",
}  # fmt: skip
_AUTHORITY = re.compile(r"([A-Za-z][\w+.-]*://)([^@/?]*@)?([^?]*)(\?.*)?", re.DOTALL)


@dataclass(frozen=True)
class Database:
    """An open database.

    Attributes:
        name: Its URL as it was written, which holds no secret.
        engine: Connections to it.
        secrets: Values of environment variables in the URL, never to be shown.
    """

    name: str
    engine: Engine
    secrets: tuple[str, ...]

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Raise errors of the database as a DataError, without secrets and row contents."""
        try:
            yield
        except (exc.SQLAlchemyError, UnicodeError) as error:
            raise DataError(f"{self.name}: {self._reason(error)}") from None

    def _reason(self, error: Exception) -> str:
        cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig else error
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
        for secret in self.secrets:
            reason = reason.replace(secret, "***")
        return f"the database refuses ({reason}); check the URL, the table, the query and rights"

    def tables(self) -> list[str]:
        """Names of tables and views."""
        with self.translate_errors():
            inspector = sa.inspect(self.engine)
            return sorted([*inspector.get_table_names(), *inspector.get_view_names()])

    def table(self, name: str | None) -> sa.Table:
        """A table with its columns: the one named, the only one, or ``texts``.

        Raises:
            DataError: if there is none, or several and none named.
            UnknownNameError: with the closest name.
        """
        schema, _, bare = (name or "").rpartition(".")
        if not schema:
            known = self.tables()
            if not known:
                raise DataError(f"{self.name} has no tables; fill one with valence data import")
            bare = bare or (known[0] if len(known) == 1 else TEXTS)
            if name is None and bare not in known:
                raise DataError(
                    f"{self.name} has several tables ({', '.join(known[:20])}); "
                    "name one with --table"
                )
            if bare not in known:
                raise UnknownNameError("table", bare, known)
        try:
            with self.translate_errors():
                return sa.Table(
                    bare, sa.MetaData(), schema=schema or None, autoload_with=self.engine
                )
        except DataError:
            if schema:
                raise UnknownNameError("table", str(name), self.tables()) from None
            raise


@contextmanager
def open_database(name: str, *, create: bool = False) -> Iterator[Database]:
    """The database of a URL, closed when the block ends.

    Args:
        name: The URL; ``${NAME}`` in it is read from the environment.
        create: Whether a missing SQLite file is created.

    Raises:
        SpecError: if a password stands in the URL, or it is no URL.
        DataError: if a variable is not set, a driver is not installed, or a file is not there.
    """
    refuse_password(name)
    url, secrets = _expand_variables(name)
    if url.get_backend_name() == "sqlite":
        _check_file(name, url, create)
    engine = _engine(name, url)
    if create and engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _write_ahead)
    try:
        yield Database(name, engine, secrets)
    finally:
        engine.dispose()


def _expand_variables(name: str) -> tuple[URL, tuple[str, ...]]:
    secrets: list[str] = []

    def value(match: re.Match[str], *, quoted: bool) -> str:
        text = os.environ.get(match.group(1))
        if text is None:
            raise DataError(
                f"The database URL names the environment variable {match.group(1)}, "
                "which is not set; export it first"
            )
        if len(text) > 1:
            secrets.append(text)
        return quote(text, safe="") if quoted else text

    def put(part: str | None, *, quoted: bool) -> str:
        return VARIABLE.sub(lambda match: value(match, quoted=quoted), part or "")

    parts = _AUTHORITY.fullmatch(name)
    if parts is None:
        whole = put(name, quoted=False)
    else:
        scheme, user, place, query = parts.groups()
        whole = scheme + put(user, quoted=True) + put(place, quoted=False) + put(query, quoted=True)
    try:
        url = make_url(whole)
    except (exc.ArgumentError, ValueError):
        raise SpecError(
            f"{name} is no database URL; write sqlite:///file.db or "
            "postgresql://user:${PGPASSWORD}@host/database"
        ) from None
    secrets += [url.password] if isinstance(url.password, str) and url.password else []
    return url, tuple(secrets)


def driver_url(name: str) -> str:
    """A URL as drivers read it: ``${NAME}`` filled in, PostgreSQL with the installed driver.

    Raises:
        DataError: if a variable is not set.
        SpecError: if it is no URL.
    """
    return _with_driver(_expand_variables(name)[0]).render_as_string(hide_password=False)


def _with_driver(url: URL) -> URL:
    plain = url.drivername in ("postgresql", "postgres")
    return url.set(drivername="postgresql+psycopg") if plain else url


def _check_file(name: str, url: URL, create: bool) -> None:
    path = url.database
    if not path or path == ":memory:":
        raise DataError(f"{name} names no file; write sqlite:///file.db")
    if path.startswith("file:"):
        return
    folder = os.path.dirname(path)
    if folder and not os.path.isdir(folder):
        raise DataError(f"{name}: there is no folder {folder}; check the path, or create it")
    # SQLite creates an empty database under any name it is given.
    if not create and not os.path.isfile(path):
        raise DataError(
            f"{name}: no such file; check the path, or fill it with valence data import"
        )


def _engine(name: str, url: URL) -> Engine:
    url = _with_driver(url)
    options: dict[str, Any] = {"hide_parameters": True}
    if url.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": BUSY_SECONDS}
    try:
        return sa.create_engine(url, **options)
    except exc.NoSuchModuleError:
        known = ("sqlite", "postgresql", "mysql", "mariadb", "mssql", "oracle")
        raise UnknownNameError("kind of database", url.drivername, known) from None
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(str(error.name))
        needed = f"an extra: pip install '{extra}'" if extra else f"its driver: {error.name}"
        raise DataError(f"Opening {name} needs {needed}") from None
    except (exc.ArgumentError, TypeError) as error:
        raise SpecError(f"{name} is no usable database URL ({type(error).__name__})") from None


def _write_ahead(connection: Any, _: object) -> None:
    # Readers go on while an import writes; a killed writer loses only its open batch.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


@dataclass(frozen=True)
class SqlRows:
    """Rows of a table or a query, of one split or all.

    Attributes:
        name: URL of the database.
        source: A table, or a query as a subquery.
        order: Columns by which rows are sorted; the primary key, so that draws can be repeated.
        split: Column of the split, and the values that are read.
        without: Columns that are not read.
    """

    name: str
    source: sa.Table | sa.TextClause
    order: tuple[str, ...] = ()
    split: tuple[str, tuple[str, ...]] | None = None
    without: tuple[str, ...] = ()

    def statement(self) -> sa.Select[Any]:
        """The SELECT that reads the rows."""
        columns: list[Any] = [sa.literal_column("*")]
        if isinstance(self.source, sa.Table):
            columns = [column for column in self.source.c if column.name not in self.without]
        chosen = sa.select(*columns).select_from(self.source)
        if self.split is not None:
            column, values = self.split
            chosen = chosen.where(sa.column(column).in_(values))
        return chosen.order_by(*(sa.column(name) for name in self.order))

    def batches(self, rows: int) -> Iterator[pd.DataFrame]:
        """Tables of at most ``rows`` rows; the database is not read ahead."""
        for columns, part in self.records(rows):
            yield pd.DataFrame.from_records(part, columns=columns)

    def records(self, rows: int) -> Iterator[tuple[list[str], list[tuple[Any, ...]]]]:
        """Names of the columns, and at most ``rows`` rows with the values of the database."""
        with (
            open_database(self.name) as database,
            database.translate_errors(),
            database.engine.connect() as open_,
        ):
            result = open_.execution_options(yield_per=rows).execute(self.statement())
            columns = list(result.keys())
            for part in result.partitions():
                yield columns, [tuple(row) for row in part]

    def count(self) -> int:
        """How many rows there are."""
        counted = sa.select(sa.func.count()).select_from(self.statement().order_by(None).subquery())
        with (
            open_database(self.name) as database,
            database.translate_errors(),
            database.engine.connect() as open_,
        ):
            return int(open_.execute(counted).scalar_one())

    def read(self) -> pd.DataFrame:
        """All rows.

        Raises:
            DataError: if there are none.
        """
        parts = list(self.batches(READ_ROWS))
        if not parts:
            raise DataError(f"{self.name}: there are no rows; check the table or the query")
        return pd.concat(parts, ignore_index=True)


def sql_tables(
    name: str, *, query: str | None, table: str | None, text_column: str | None
) -> tuple[dict[str, SqlRows], list[str]]:
    """Rows of a database by split name, or under ``"all"``, and notes on rows not used.

    A column named ``split`` with train, validation (valid, val, dev) or test in it gives splits.

    Raises:
        DataError, SpecError: if the database, the table or the query cannot be used.
    """
    with open_database(name) as database, database.translate_errors():
        rows, columns = _rows(database, query, table, text_column)
        split = next((column for column in columns if column.lower() == "split"), None)
        if split is None:
            return {"all": rows}, []
        chosen: sa.Select[Any] = sa.select(sa.column(split)).select_from(rows.source).distinct()
        with database.engine.connect() as open_:
            values = [value for (value,) in open_.execute(chosen)]
    aliases: dict[str, list[str]] = {}
    for value in values:
        known = ALIASES.get(value.lower()) if isinstance(value, str) else None
        if known:
            aliases.setdefault(known, []).append(value)
    if not aliases:
        return {"all": rows}, []
    unused = sorted(str(v) for v in values if not isinstance(v, str) or v.lower() not in ALIASES)
    notes = []
    if unused:
        notes.append(f"{name}: rows of split {', '.join(unused[:5])} are not used")
    parts = {
        known: SqlRows(name, rows.source, rows.order, (split, tuple(there)), rows.without)
        for known in ("train", "validation", "test")
        if (there := aliases.get(known))
    }
    return parts, notes


def all_rows(name: str, *, query: str | None = None, table: str | None = None) -> SqlRows:
    """Every row and column of a table or a query, whatever its split.

    Raises:
        DataError, SpecError: if the database, the table or the query cannot be used.
    """
    with open_database(name) as database, database.translate_errors():
        rows, _ = _rows(database, query, table, None)
    return replace(rows, without=())


def _rows(
    database: Database, query: str | None, table: str | None, text_column: str | None
) -> tuple[SqlRows, list[str]]:
    if query is None:
        source = database.table(table)
        columns = [column.name for column in source.c]
        order = tuple(column.name for column in source.primary_key)
        ours = "row_key" in columns and (text_column is None or text_column in columns)
        hidden: tuple[str, ...] = OWN_COLUMNS if ours else ()
        if hidden and text_column == "clean_text":
            hidden = (*hidden, "text")
        without = tuple(name for name in hidden if name != text_column)
        return SqlRows(database.name, source, order, without=without), columns
    # A colon is no parameter here; as a subquery, nothing but a SELECT is carried out.
    inner = sa.text("(" + query.strip().rstrip(";").replace(":", r"\:") + "\n) AS chosen")
    probe: sa.Select[Any] = sa.select(sa.literal_column("*")).select_from(inner).limit(0)
    with database.engine.connect() as open_:
        columns = list(open_.execute(probe).keys())
    return SqlRows(database.name, inner), columns
