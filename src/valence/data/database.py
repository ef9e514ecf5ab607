"""Databases: opening one by its URL, for reading without rights to write, and its tables."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, Engine, make_url

from valence.config.database_url import VARIABLE, refuse_password
from valence.data.sqlite_file import is_sealed
from valence.errors import DataError, SpecError, UnknownNameError

TEXTS = "texts"
"""The table that imports write where no other is named."""
BUSY_SECONDS = 30
"""How long SQLite waits for another process that writes."""
EXTRAS = {"psycopg": "valence[postgres]"}
DRIVER_OPTIONS = ("timeout", "isolation_level", "detect_types", "cached_statements")
"""Of an SQLite URL, what is passed on when it is opened read-only."""
_PART = re.compile(r'"(?:[^"]|"")*"|[^."]+')
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
        return (
            f"the database reports an error ({reason}); check the URL, table, query and permissions"
        )

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
        schema, bare = split_table_name(name or "")
        known = self.tables()
        if name in known:  # a dot or a quote may be part of a name
            schema, bare = None, str(name)
        if not schema:
            if not known:
                raise DataError(f"{self.name} has no tables; create one with valence data import")
            bare = bare or (known[0] if len(known) == 1 else TEXTS)
            if name is None and bare not in known:
                raise DataError(
                    f"{self.name} has several tables ({', '.join(known[:20])}); choose one with "
                    "--table"
                )
            if bare not in known:
                raise UnknownNameError("table", bare, known)
        try:
            with self.translate_errors():
                return sa.Table(bare, sa.MetaData(), schema=schema, autoload_with=self.engine)
        except DataError:
            if schema:
                raise UnknownNameError("table", str(name), known) from None
            raise


def split_table_name(name: str) -> tuple[str | None, str]:
    """Schema (None where none is named) and table of ``table``, ``schema.table`` or ``"a.b"``.

    Double quotes hold a part that has a dot in it; two of them stand for one.
    """
    parts = _PART.findall(name)
    if ".".join(parts) != name:
        return None, name
    plain = [
        part[1:-1].replace('""', '"') if part.startswith('"') and len(part) > 1 else part
        for part in parts
    ]
    return (".".join(plain[:-1]) or None), (plain[-1] if plain else "")


@contextmanager
def open_database(name: str, *, create: bool = False) -> Iterator[Database]:
    """The database of a URL, closed when the block ends.

    Args:
        name: The URL; ``${NAME}`` in it is read from the environment.
        create: Whether it is written to, and a missing SQLite file created; else SQLite files
            are opened read-only, and transactions of PostgreSQL are READ ONLY.

    Raises:
        SpecError: if a password stands in the URL, or it is no URL.
        DataError: if a variable is not set, a driver is not installed, or a file is not there.
    """
    refuse_password(name)
    url, secrets = _expand_variables(name)
    if url.get_backend_name() == "sqlite":
        _check_file(name, url, create)
    engine = _engine(name, url if create else _read_only(url))
    journal = _Journal()
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", journal.write_ahead if create else _query_only)
    elif engine.dialect.name == "postgresql" and not create:
        engine = engine.execution_options(postgresql_readonly=True)
    try:
        yield Database(name, engine, secrets)
    finally:
        if create and engine.dialect.name == "sqlite":
            journal.put_back(engine)
        engine.dispose()


def _read_only(url: URL) -> URL:
    """An SQLite URL under which nothing can be written; others as they are."""
    path = url.database
    if url.get_backend_name() != "sqlite" or not path:
        return url
    query = {"mode": "ro", "uri": "true"}
    if path.startswith("file:"):
        return url.update_query_dict(query)
    file = os.path.abspath(path)
    if is_sealed(file):
        query["immutable"] = "1"
    own = {key: value for key, value in url.query.items() if key in DRIVER_OPTIONS}
    return url.set(database="file:" + quote(file), query=own).update_query_dict(query)


def _expand_variables(name: str) -> tuple[URL, tuple[str, ...]]:
    secrets: list[str] = []

    def value(match: re.Match[str], *, quoted: bool) -> str:
        text = os.environ.get(match.group(1))
        if text is None:
            raise DataError(
                f"The database URL uses the environment variable {match.group(1)}, which is not "
                "set; set it first"
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
            f"{name} is not a database URL; write sqlite:///file.db or "
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
        raise DataError(f"{name} has no file name; write sqlite:///file.db")
    if path.startswith("file:"):
        return
    folder = os.path.dirname(path)
    if folder and not os.path.isdir(folder):
        raise DataError(f"{name}: the folder {folder} does not exist; check the path, or create it")
    # SQLite creates an empty database under any name it is given.
    if not create and not os.path.isfile(path):
        raise DataError(
            f"{name}: the file does not exist; check the path, or create it with valence data "
            f"import"
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
        raise SpecError(f"{name} is not a valid database URL ({type(error).__name__})") from None


def _query_only(connection: Any, _: object) -> None:
    connection.execute("PRAGMA query_only=ON")


class _Journal:
    """The journal of an SQLite file while it is written, and as it was before."""

    def __init__(self) -> None:
        self.before: str | None = None

    def write_ahead(self, connection: Any, _: object) -> None:
        # Readers go on while an import writes; a killed writer loses only its open batch.
        if self.before is None:
            (self.before,) = connection.execute("PRAGMA journal_mode").fetchone()
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    def put_back(self, engine: Engine) -> None:
        """As before, or nobody could read the file on a disk that cannot be written."""
        if self.before in (None, "wal", "memory"):
            return
        engine.dispose()
        # Where another process has it open, that one puts it back.
        with suppress(exc.SQLAlchemyError), engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=0")
            connection.exec_driver_sql(f"PRAGMA journal_mode={self.before}")
