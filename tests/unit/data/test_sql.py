"""Databases: SQLite always, PostgreSQL where its programs are installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from tests import postgres
from tests.conftest import make_reviews
from valence.config.data import DataSpec
from valence.config.database_url import is_sql_url, refuse_password, short_name
from valence.config.spec import RunSpec, build
from valence.data.database import open_database
from valence.data.sources import load_dataset, load_split
from valence.data.sql import ImportOptions, Occurrences, import_rows
from valence.errors import DataError, SpecError, UnknownNameError, ValenceError


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[str]:
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.server() as (url, password), pytest.MonkeyPatch.context() as patch:
        patch.setenv("VALENCE_TEST_PG", password)
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/texts.db"
    server = request.getfixturevalue("postgres_server")
    name = f"d{abs(hash(request.node.nodeid)):x}"
    with open_database(f"{server}/postgres") as there:
        engine = there.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as open_:
            open_.execute(sa.text(f"CREATE DATABASE {name}"))
    return f"{server}/{name}"


def rows_of(url: str, table: str = "texts") -> pd.DataFrame:
    with open_database(url) as database, database.engine.connect() as open_:
        return pd.read_sql_query(sa.text(f"SELECT * FROM {table} ORDER BY id"), open_)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "corpus"
    place.mkdir()
    make_reviews(140).to_csv(place / "train.csv", index=False)
    make_reviews(21, seed=1).to_json(place / "dev.jsonl", orient="records", lines=True)
    make_reviews(35, seed=2).to_parquet(place / "test.parquet")
    return place


def test_a_folder_goes_in_once_and_comes_back(url: str, folder: Path) -> None:
    told: list[int] = []
    first = import_rows(
        str(folder), url, options=ImportOptions(batch_rows=30), progress=told.append
    )
    assert (first.read, first.added, first.present) == (196, 196, 0)
    assert first.splits == {"train": 140, "validation": 21, "test": 35}
    assert told == [30, 60, 90, 120, 140, 161, 191, 196]
    again = import_rows(str(folder), url, options=ImportOptions(batch_rows=77))
    assert (again.read, again.added, again.present) == (196, 0, 196)
    stored = rows_of(url)
    assert list(stored) == [
        "id", "split", "label", "text", "clean_text", "chars", "words", "row_key"
    ]  # fmt: skip
    assert (stored["chars"] == stored["text"].str.len()).all()
    assert stored["row_key"].is_unique
    from_files = load_dataset(DataSpec(name=str(folder)), seed=1)
    from_rows = load_dataset(DataSpec(name=url), seed=1)
    assert from_rows.fingerprint == from_files.fingerprint
    assert list(from_rows.train.extra) == []


def test_what_cannot_be_stored_is_counted(url: str, tmp_path: Path) -> None:
    texts = ["fine", "fine", "fine", "", "lost", "https://t.co/x", "odd", "a\0b", "@me so so"]
    labels = ["4", "4", "0", "4", "", "4", "2", "0", "0"]
    file = tmp_path / "rows.csv"
    pd.DataFrame({"tweet": texts, "target": labels}).to_csv(file, index=False)
    options = ImportOptions(label_map={"0": "negative", "4": "positive"}, split="train")
    report = import_rows(str(file), url, options=options)
    assert report.left_out == {
        "without text": 1, "without label": 1, "emptied by cleaning": 1, "label not in the map": 1
    }  # fmt: skip
    assert (report.read, report.added, report.mended) == (9, 5, 1)
    stored = rows_of(url)
    assert stored["text"].tolist() == ["fine", "fine", "fine", "ab", "@me so so"]
    assert stored["clean_text"].tolist() == ["fine", "fine", "fine", "ab", "so so"]
    assert stored["label"].tolist() == ["positive", "positive", "negative", "negative", "negative"]
    assert set(stored["split"]) == {"train"}
    assert import_rows(str(file), url, options=options).added == 0
    more = pd.DataFrame({"tweet": ["fine"] * 3, "target": ["4"] * 3})
    more.to_csv(file, index=False)  # a third time the same text is a row that was not there
    assert import_rows(str(file), url, options=options).added == 1


def test_json_rows_of_mixed_types(url: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(
        '{"text": "one \\ud83d", "label": 1}\n{"text": "two \\ud83d\\ude00"}\n'
        '{"text": 3, "label": 0}\n'
        '{"label": 1}\n{"text": "four", "label": 1.0}\n',
        encoding="utf-8",
    )
    report = import_rows(str(file), url, options=ImportOptions(clean=(), batch_rows=2))
    stored = rows_of(url)
    assert stored["text"].tolist() == ["one \ufffd", "3", "four"]
    assert stored["label"].tolist() == ["1", "0", "1"]
    assert stored["clean_text"].isna().all()
    assert report.left_out["without text"] == 1


def test_reading_a_table_a_query_and_the_cleaned_text(url: str, tmp_path: Path) -> None:
    frame = make_reviews(140)
    frame["text"] += " @you"
    frame.to_csv(tmp_path / "a.csv", index=False)
    import_rows(str(tmp_path / "a.csv"), url, options=ImportOptions(table="tweets"))
    import_rows(str(tmp_path / "a.csv"), url, options=ImportOptions(table="others"))
    raw = load_dataset(DataSpec(name=url, table="tweets"), seed=1)
    assert len(raw.train) + len(raw.validation) + len(raw.test) == 140
    assert all(text.endswith("@you") for text in raw.train.texts)
    cleaned = load_dataset(DataSpec(name=url, table="tweets", text_column="clean_text"), seed=1)
    assert not any("@you" in text for text in cleaned.train.texts)
    query = (
        "SELECT text, label FROM tweets WHERE label <> 'meh' AND text LIKE '%@you' AND ':x' <> '';"
    )
    chosen = load_dataset(DataSpec(name=url, query=query), seed=1)
    assert chosen.classes == ("bad", "good")
    loaded = load_split(DataSpec(name=url, table="tweets"), raw.classes)
    assert str(loaded) == f"140 rows of {url}"
    with pytest.raises(UnknownNameError, match="did you mean 'tweets'"):
        load_dataset(DataSpec(name=url, table="tweet"))
    with pytest.raises(
        DataError, match=r"several tables \(others, tweets\); choose one with --table"
    ):
        load_dataset(DataSpec(name=url))
    with pytest.raises(DataError, match="did you mean 'clean_text'"):
        load_dataset(DataSpec(name=url, table="tweets", text_column="clean_txt"))
    with pytest.raises(DataError, match="lable") as told:
        load_dataset(DataSpec(name=url, query="SELECT text, lable FROM tweets"))
    assert "\n" not in str(told.value)
    with pytest.raises(DataError):
        load_dataset(DataSpec(name=url, query="DELETE FROM tweets"))
    assert len(rows_of(url, "tweets")) == 140


def test_a_foreign_table(url: str, tmp_path: Path) -> None:
    with open_database(url, create=True) as database, database.engine.begin() as open_:
        open_.execute(sa.text("CREATE TABLE notes (split TEXT, text TEXT, label INTEGER)"))
        values = [{"s": s, "t": f"text {i}", "l": i % 2} for s in ("train", "val", "spare")
                  for i in range(20)]  # fmt: skip
        open_.execute(sa.text("INSERT INTO notes VALUES (:s, :t, :l)"), values)
    data = load_dataset(DataSpec(name=url), seed=1)
    assert (data.classes, len(data.validation)) == (("0", "1"), 20)
    assert any("split spare are not used" in note for note in data.notes)
    assert any("test split drawn at random" in note for note in data.notes)
    make_reviews(20).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(DataError, match="was not created by an import"):
        import_rows(str(tmp_path / "x.csv"), url, options=ImportOptions(table="notes"))


def test_a_card_gives_its_labels_names(tmp_path: Path) -> None:
    place = tmp_path / "sst5"
    place.mkdir()
    pd.DataFrame({"text": ["so bad", "so so", "so good"], "label": [0, 2, 4]}).to_csv(
        place / "train.csv", index=False
    )
    url = f"sqlite:///{tmp_path}/x.db"
    import_rows("sst5", url, data_dir=tmp_path)
    assert rows_of(url)["label"].tolist() == ["very negative", "neutral", "very positive"]


def test_only_some_splits(url: str, folder: Path) -> None:
    import_rows(str(folder), url, options=ImportOptions(split="test"))
    with pytest.raises(DataError, match="has no train split; it has test"):
        load_dataset(DataSpec(name=url))
    with pytest.raises(DataError, match="no valid split; it has train, validation, test"):
        import_rows(str(folder), url, options=ImportOptions(split="valid"))


KILLED_ROWS = 30_000


def test_killed_in_the_middle_and_imported_again(url: str, tmp_path: Path) -> None:
    file = tmp_path / "many.csv"
    texts = [f"text {i % 20_000}" for i in range(KILLED_ROWS)]  # ten thousand come twice
    labels = np.where(np.arange(KILLED_ROWS) % 3 > 0, "good", "bad")
    pd.DataFrame({"text": texts, "label": labels}).to_csv(file, index=False)
    words = ["data", "import", str(file), "--to", url, "--batch-rows", "50"]
    process = subprocess.Popen([sys.executable, "-m", "valence", *words], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while _count(url) < 1000:
            assert process.poll() is None, "the import ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    there = _count(url)
    assert 1000 <= there < KILLED_ROWS
    assert there % 50 == 0  # a batch is there whole or not at all
    report = import_rows(str(file), url)
    assert (report.present, report.added) == (there, KILLED_ROWS - there)
    stored = rows_of(url)
    assert sorted(stored["text"]) == sorted(texts)
    assert stored["row_key"].is_unique


def _count(url: str) -> int:
    try:
        with (
            open_database(url) as database,
            database.translate_errors(),
            database.engine.connect() as open_,
        ):
            return int(open_.execute(sa.text("SELECT count(*) FROM texts")).scalar_one())
    except DataError:  # there is no file or no table yet
        return 0


def test_two_imports_at_once(tmp_path: Path) -> None:
    make_reviews(3000).drop_duplicates("text").to_csv(tmp_path / "a.csv", index=False)
    url = f"sqlite:///{tmp_path}/both.db"
    words = ["data", "import", str(tmp_path / "a.csv"), "--to", url, "--batch-rows", "20"]
    both = [
        subprocess.Popen([sys.executable, "-m", "valence", *words, "--quiet"],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]  # fmt: skip
    ends = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    added = [int(out.split("added\t")[1].split()[0]) for out, _ in ends]
    assert sum(added) == len(rows_of(url)) == len(pd.read_csv(tmp_path / "a.csv"))


def test_a_draw_of_training_rows(url: str, folder: Path) -> None:
    import_rows(str(folder), url)
    spec = DataSpec(name=url, sample=40)
    drawn = load_dataset(spec, seed=3)
    assert (len(drawn.train), len(drawn.validation), len(drawn.test)) == (40, 21, 35)
    assert set(drawn.train.labels) == {0, 1, 2}
    assert drawn.fingerprint == load_dataset(spec, seed=3).fingerprint
    assert drawn.fingerprint != load_dataset(spec, seed=4).fingerprint
    same = load_dataset(DataSpec(name=str(folder), sample=40), seed=3)  # files draw alike
    assert drawn.train.texts == same.train.texts
    assert any("40 of 140 rows drawn (seed 3)" in note for note in drawn.notes)


def test_a_password_is_kept_nowhere(
    postgres_server: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VALENCE_TEST_WRONG", "wrong-pass@word")
    url = postgres_server.replace("VALENCE_TEST_PG", "VALENCE_TEST_WRONG") + "/postgres"
    with pytest.raises(DataError, match="password authentication failed") as told:
        load_dataset(DataSpec(name=url))
    assert "wrong-pass" not in str(told.value)
    password = os.environ["VALENCE_TEST_PG"]
    whole = postgres_server.replace("${VALENCE_TEST_PG}", "{}")
    from urllib.parse import quote

    monkeypatch.setenv("VALENCE_TEST_URL", whole.format(quote(password, safe="")) + "/postgres")
    name = "${VALENCE_TEST_URL}"
    import_rows(str(folder), name, options=ImportOptions(table="kept"))
    data = load_dataset(DataSpec(name=name, table="kept"))
    kept = RunSpec(data=DataSpec(name=name, table="kept")).to_yaml() + repr(data.notes) + data.name
    assert password not in kept
    with pytest.raises(ValenceError) as told:
        load_dataset(DataSpec(name=name, table="kpet"))
    assert password not in str(told.value)


LITERAL = [
    "postgresql://me:secret@host/db",
    "postgresql+psycopg://me:secret@host:5432/db",
    "postgresql://me:se/cr@et@host/db",
    "postgresql://me:pre${X}secret@host/db",
    "postgresql://host/db?user=me&password=secret",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dsecret",
]


@pytest.mark.parametrize("url", LITERAL)
def test_a_literal_password_is_refused_without_being_shown(url: str) -> None:
    for call in (
        refuse_password,
        lambda u: DataSpec(name=u),
        lambda u: build(DataSpec, {"name": u}),
        lambda u: import_rows("x.csv", u),
        lambda u: RunSpec().override({"data.name": u}),
    ):
        with pytest.raises(SpecError, match=r"\$\{PGPASSWORD\}") as told:
            call(url)
        assert "secret" not in str(told.value)


def test_what_a_database_url_is() -> None:
    for url in (
        "sqlite:///a@b/c:d.db",
        "postgresql://me@host:5432/db",
        "postgresql:///db",
        "postgresql://${USER}:${PW}@host/db?password=${PW}",
        "${DATABASE_URL}",
    ):
        refuse_password(url)
        assert is_sql_url(url)
    for name in ("demo", "a/b", "x.csv", "https://x.org/y.csv", "C:/data.csv"):
        assert not is_sql_url(name)
    assert short_name("sqlite:///data/tweets.db") == "tweets"
    assert short_name("postgresql://h/reviews?sslmode=require") == "reviews"
    with pytest.raises(SpecError, match="is for databases"):
        DataSpec(name="x.csv", table="t")
    with pytest.raises(SpecError, match="not both"):
        DataSpec(name="sqlite:///x.db", table="t", query="SELECT 1")


def test_databases_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def why(url: str) -> str:
        with pytest.raises(ValenceError) as told:
            load_dataset(DataSpec(name=url))
        assert "\n" not in str(told.value)
        return str(told.value)

    assert "the file does not exist" in why(f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()
    assert "has no file name" in why("sqlite://")
    assert "does not exist; check the path" in why(f"sqlite:///{tmp_path}/no/x.db")
    (tmp_path / "text.db").write_text("no database at all, " * 100, encoding="utf-8")
    assert "file is not a database" in why(f"sqlite:///{tmp_path}/text.db")
    (tmp_path / "void.db").touch()
    assert "has no tables" in why(f"sqlite:///{tmp_path}/void.db")
    assert "did you mean 'postgresql'" in why("postgre://host/db")
    assert "not a database URL" in why("postgresql://host:port/db")
    assert "NO_SUCH_NAME, which is not set" in why("postgresql://me:${NO_SUCH_NAME}@host/db")
    assert "Connection refused" in why("postgresql://me@127.0.0.1:1/db")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "pip install 'valence[postgres]'" in why("postgresql://me@127.0.0.1:1/db")


def test_sources_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to = f"sqlite:///{tmp_path}/x.db"
    bad = tmp_path / "latin.csv"
    bad.write_bytes(b"text,label\n" + b"fine,good\n" * 3000 + b"caf\xe9,good\n")
    with pytest.raises(DataError, match=r"latin\.csv, line 3002: not UTF-8, probably cp1252"):
        import_rows(str(bad), to)
    make_reviews(20).rename(columns={"text": "tekst"}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match="no column 'text'") as told:
        import_rows(DataSpec(name=str(tmp_path / "t.csv"), text_column="text"), to)
    assert "did you mean 'tekst'" in str(told.value)
    with pytest.raises(SpecError, match="is not a database URL; write sqlite:///"):
        import_rows(str(tmp_path / "t.csv"), "x.db")
    with pytest.raises(UnknownNameError, match="file or data set"):
        import_rows("nothing", to)
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"set KAGGLE_API_TOKEN, or put the kaggle\.json"):
        import_rows("kaggle:owner/tweets", to)
    with pytest.raises(DataError, match="write kaggle:owner/dataset"):
        import_rows("kaggle:owner", to)
    (tmp_path / "kaggle.json").write_text("{}", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(DataError, match=r"pip install 'valence\[kaggle\]'"):
        import_rows("kaggle:owner/tweets", to)


def test_a_hub_data_set(tmp_path: Path) -> None:
    place = tmp_path / "hub" / "set"
    place.mkdir(parents=True)
    make_reviews(40).to_csv(place / "train.csv", index=False)
    make_reviews(20, seed=1).to_csv(place / "test.csv", index=False)
    from valence.data.locate import HubRows
    from valence.data.tables import open_hub

    splits = open_hub(str(place), None)
    sizes = [len(batch) for batch in HubRows(splits["train"]).batches(15)]
    assert sizes == [15, 15, 10]


def test_occurrences_are_counted_over_parts() -> None:
    draw = np.random.default_rng(0)
    stream = draw.integers(0, 50, size=3000).astype(np.uint64)
    seen = Occurrences()
    numbers: list[int] = []
    for part in np.split(stream, [7, 7, 900, 1000, 2500]):
        numbers += seen.number(part)
    counts: dict[int, int] = {}
    for value, number in zip(stream.tolist(), numbers, strict=True):
        assert number == counts.get(value, 0)
        counts[value] = number + 1
