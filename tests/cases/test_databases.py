"""Databases in use: rights, time, names with dots, rows without a key, bytes, sealed disks."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from tests import postgres
from tests.conftest import make_reviews
from valence.config.data import DataSpec
from valence.data import database as database_module
from valence.data.database import open_database, split_table_name
from valence.data.database_rows import all_rows
from valence.data.sources import load_dataset
from valence.data.sql import import_rows
from valence.errors import DataError, UnknownNameError
from valence.inference.bulk.readers import open_source


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.server() as (url, password), pytest.MonkeyPatch.context() as patch:
        patch.setenv("VALENCE_TEST_PG", password)
        yield f"{url}/postgres"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/texts.db"
    return str(request.getfixturevalue("server"))


def run(url: str, *statements: str) -> None:
    with open_database(url, create=True) as database, database.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def fill(url: str, table: str, rows: int = 40) -> None:
    frame = make_reviews(rows)[["text", "label"]]
    with open_database(url, create=True) as database, database.engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {table}")
        connection.exec_driver_sql(f"CREATE TABLE {table} (text text, label text)")
        insert = sa.text(f"INSERT INTO {table} VALUES (:text, :label)")
        connection.execute(insert, frame.to_dict("records"))


@pytest.mark.parametrize(
    "attack",
    [
        "SELECT setval('counter', 99)::text AS text, 'x' AS label",
        "SELECT nextval('counter')::text AS text, 'x' AS label",
        "SELECT pg_read_file('/etc/passwd') AS text, 'x' AS label",
        "SELECT encode(pg_read_binary_file('/etc/passwd'), 'hex') AS text, 'x' AS label",
        "SELECT pg_ls_dir('/etc') AS text, 'x' AS label",
        "SELECT lo_import('/etc/passwd')::text AS text, 'x' AS label",
        "SELECT text, lo_export(1, '/tmp/valence-export')::text AS label FROM victims",
        "SELECT query_to_xml('DELETE FROM victims', true, true, '')::text AS text, 'x' AS label",
        "SELECT set_config('transaction_read_only', 'off', false) AS text, 'x' AS label",
        "SELECT pg_reload_conf()::text AS text, 'x' AS label",
        "WITH gone AS (DELETE FROM victims RETURNING *) SELECT * FROM gone",
    ],
)
def test_a_query_of_postgresql_changes_nothing_and_reads_no_file(server: str, attack: str) -> None:
    fill(server, "victims")
    run(server, "DROP SEQUENCE IF EXISTS counter", "CREATE SEQUENCE counter")
    with pytest.raises(DataError, match="the database reports an error"):
        load_dataset(DataSpec(name=server, query=attack))
    with open_database(server) as there, there.engine.connect() as connection:
        left = connection.exec_driver_sql("SELECT count(*) FROM victims").scalar_one()
        value = connection.exec_driver_sql("SELECT is_called FROM counter").scalar_one()
    assert (left, value) == (40, False)


def test_a_query_sees_all_rows_and_says_so_where_it_may_not(server: str) -> None:
    fill(server, "hidden")
    run(server, "ALTER TABLE hidden ENABLE ROW LEVEL SECURITY")
    with pytest.raises(DataError, match="row-level security"):
        load_dataset(DataSpec(name=server, query="SELECT * FROM hidden"))
    run(server, "ALTER TABLE hidden DISABLE ROW LEVEL SECURITY")
    assert len(load_dataset(DataSpec(name=server, query="SELECT * FROM hidden")).test.texts)


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE x (y)", "DELETE FROM texts", "PRAGMA user_version = 7"],
)
def test_sqlite_is_opened_read_only(tmp_path: Path, statement: str) -> None:
    url = f"sqlite:///{tmp_path}/texts.db"
    fill(url, "texts")
    before = (tmp_path / "texts.db").read_bytes()
    with (
        open_database(url) as database,
        database.engine.connect() as connection,
        suppress(sa.exc.OperationalError),
    ):
        connection.exec_driver_sql(statement)
    assert (tmp_path / "texts.db").read_bytes() == before


@pytest.mark.parametrize("name", ["with space.db", "per%cent.db", "que?ry.db", "ha#sh.db", "ü.db"])
def test_a_file_of_any_name_is_opened_read_only(tmp_path: Path, name: str) -> None:
    connection = sqlite3.connect(tmp_path / name)
    connection.execute("CREATE TABLE texts (text, label)")
    connection.executemany("INSERT INTO texts VALUES (?, ?)", [("a", "x"), ("b", "y")])
    connection.commit()
    connection.close()
    url = f"sqlite:///{tmp_path}/{quote(name)}"
    assert len(all_rows(url).read()) == 2


ENDLESS = (
    "WITH RECURSIVE n(text, label) AS (SELECT 1, 2 UNION ALL SELECT text + 1, label FROM n) "
    "SELECT {} FROM n"
)


@pytest.mark.parametrize("columns", ["text, label", "max(text) AS text, 1 AS label"])
def test_a_query_without_end_ends(url: str, columns: str) -> None:
    clock = time.monotonic()
    query = ENDLESS.format(columns).replace("text + 1", "(text + 1) % 1000")
    with pytest.raises(DataError, match=r"took longer than 1 s.*--query-timeout"):
        load_dataset(DataSpec(name=url if "sqlite" not in url else made(url), query=query,
                              query_timeout=1.0))  # fmt: skip
    assert time.monotonic() - clock < 10
    source = open_source(url, query=query, query_timeout=1.0)
    with pytest.raises(DataError, match="--query-timeout"):
        for _ in source.parts(1000):
            pass


def made(url: str) -> str:
    fill(url, "texts")
    return url


def test_time_between_parts_is_not_the_database_s(url: str) -> None:
    fill(url, "slowly", 30)
    rows = 0
    for part in open_source(url, table="slowly", query_timeout=0.5).parts(10):
        time.sleep(0.3)
        rows += len(part)
    assert rows == 30


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("texts", (None, "texts")), ("main.texts", ("main", "texts")), ('"a.b"', (None, "a.b")),
        ('main."a.b"', ("main", "a.b")), ('"a""b"', (None, 'a"b')), ('"a.b".c', ("a.b", "c")),
        ('q"uote', (None, 'q"uote')), ("", (None, "")), ("a.", (None, "a.")),
    ],
)  # fmt: skip
def test_names_of_tables(name: str, parts: tuple[str | None, str]) -> None:
    assert split_table_name(name) == parts


@pytest.mark.parametrize("table", ["reviews.2024", "my table", 'q"uote; drop', "ÜBER", "a.b.c"])
def test_a_table_is_read_under_any_way_to_write_it(tmp_path: Path, table: str) -> None:
    url = f"sqlite:///{tmp_path}/odd.db"
    quoted = '"' + table.replace('"', '""') + '"'
    fill(url, "plain")
    fill(url, quoted)
    for name in (table, quoted, f"main.{quoted}"):
        assert len(all_rows(url, table=name).read()) == 40
    with pytest.raises(UnknownNameError):
        all_rows(url, table="nothing.like.it")


def test_rows_without_a_key_are_the_same_after_an_update(server: str) -> None:
    fill(server, "unkeyed", 120)
    specs = [
        DataSpec(name=server, table="unkeyed"),
        DataSpec(name=server, query="SELECT * FROM unkeyed"),
    ]
    before = [load_dataset(spec, seed=3).test.texts for spec in specs]
    run(server, "UPDATE unkeyed SET label = label WHERE length(text) < 30")
    assert [load_dataset(spec, seed=3).test.texts for spec in specs] == before


def test_an_order_that_is_not_there_is_said(server: str) -> None:
    fill(server, "unkeyed", 60)
    query = "SELECT text, label, label FROM unkeyed"
    with pytest.raises(DataError, match="several columns"):
        load_dataset(DataSpec(name=server, query=query))
    query = "SELECT text, label, 1 AS a, 2 AS a FROM unkeyed"
    notes = load_dataset(DataSpec(name=server, query=query)).notes
    assert any("no ORDER BY" in note for note in notes)


def test_an_imported_file_can_be_read_on_a_sealed_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_reviews(60).to_csv(tmp_path / "rows.csv", index=False)
    url = f"sqlite:///{tmp_path}/new.db"
    import_rows(str(tmp_path / "rows.csv"), url)
    assert (tmp_path / "new.db").read_bytes()[18:20] == b"\x01\x01"
    assert not list(tmp_path.glob("new.db-*"))
    # One that another program left under write-ahead logging, without a log.
    connection = sqlite3.connect(tmp_path / "new.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    monkeypatch.setattr(database_module.os, "access", lambda path, mode: False)
    assert len(load_dataset(DataSpec(name=url)).test.texts)
    assert not list(tmp_path.glob("new.db-*"))


def test_a_log_of_the_user_s_own_stays(tmp_path: Path) -> None:
    make_reviews(30).to_csv(tmp_path / "rows.csv", index=False)
    connection = sqlite3.connect(tmp_path / "own.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    import_rows(str(tmp_path / "rows.csv"), f"sqlite:///{tmp_path}/own.db")
    assert (tmp_path / "own.db").read_bytes()[18:20] == b"\x02\x02"


def blobs(url: str, texts: list[bytes]) -> None:
    kind = "blob" if "sqlite" in url else "bytea"
    with open_database(url, create=True) as database, database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS blobs")
        connection.exec_driver_sql(f"CREATE TABLE blobs (text {kind}, label {kind})")
        insert = sa.text("INSERT INTO blobs VALUES (:text, :label)")
        labels = [b"good", b"bad"]
        connection.execute(
            insert, [{"text": t, "label": labels[i % 2]} for i, t in enumerate(texts)]
        )


def test_bytes_are_utf8_or_refused_everywhere(url: str, tmp_path: Path) -> None:
    texts = [f"größer {i} 服务".encode() for i in range(40)]
    blobs(url, texts)
    rows = load_dataset(DataSpec(name=url, table="blobs"))
    assert set(rows.classes) == {"good", "bad"}
    assert rows.test.texts[0].startswith("größer ")
    copy = f"sqlite:///{tmp_path}/copy.db"
    import_rows(DataSpec(name=url, table="blobs"), copy)
    assert set(all_rows(copy).read()["text"]) == {text.decode() for text in texts}
    blobs(url, [*texts, "größer".encode("latin-1")])
    with pytest.raises(DataError, match="not valid UTF-8"):
        load_dataset(DataSpec(name=url, table="blobs"))
    with pytest.raises(DataError, match="not valid UTF-8"):
        import_rows(DataSpec(name=url, table="blobs"), f"sqlite:///{tmp_path}/no.db")


def test_a_split_column_is_used_and_imported(tmp_path: Path) -> None:
    frame = make_reviews(60)[["text", "label"]]
    frame["split"] = ["train"] * 40 + ["dev"] * 10 + ["test"] * 10
    frame.to_csv(tmp_path / "sp.csv", index=False)
    data = load_dataset(DataSpec(name=str(tmp_path / "sp.csv")))
    assert (len(data.train), len(data.validation), len(data.test)) == (40, 10, 10)
    assert any("splits by column 'split'" in note for note in data.notes)
    url = f"sqlite:///{tmp_path}/sp.db"
    report = import_rows(str(tmp_path / "sp.csv"), url)
    assert report.splits == {"train": 40, "validation": 10, "test": 10}
    again = load_dataset(DataSpec(name=url))
    assert sorted(again.test.texts) == sorted(data.test.texts)
    frame.loc[30, "split"] = "later"
    frame.to_csv(tmp_path / "sp.csv", index=False)
    with pytest.raises(DataError, match="row 31 says 'later'"):
        import_rows(DataSpec(name=str(tmp_path / "sp.csv"), split_column="split"), url)
