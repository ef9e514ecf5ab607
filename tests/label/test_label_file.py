"""A label file may come from anyone: nothing of it runs, nothing wrong in it is believed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.label.test_store import new_store
from valence.config.data import DataSpec
from valence.data.sources import load_dataset
from valence.errors import DataError
from valence.labeling.store import Decision, LabelStore

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"
FOREIGN = {
    "an endless view": "DROP VIEW labels; CREATE VIEW labels AS "
    f"{ENDLESS} i AS source_row, 'a' AS text, 'b' AS label, 1 AS votes FROM n",
    "a view for a table": f"DROP TABLE sample; CREATE VIEW sample AS {ENDLESS} i AS row FROM n",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON decisions BEGIN DELETE FROM rows; END",
    "a column more": "ALTER TABLE rows ADD COLUMN more TEXT",
    "an endless about": "DROP TABLE about; CREATE VIEW about AS "
    f"{ENDLESS} 'format' AS key, '1' AS value FROM n",
}
DAMAGED = {
    "a gap in the rows": "DELETE FROM sample WHERE row = 3; DELETE FROM rows WHERE row = 3",
    "bytes for a text": "UPDATE rows SET text = x'ff00' WHERE row = 3",
    "text that is no UTF-8": "UPDATE rows SET text = CAST(x'ff41' AS TEXT) WHERE row = 3",
    "bytes for a label": "UPDATE decisions SET label = x'00'",
    "a label of no class": "UPDATE decisions SET label = 'other'",
    "a decision on no row": "UPDATE decisions SET row = 99",
    "a sample of other rows": "UPDATE sample SET row = 99 WHERE row = 3",
    "no classes": "DELETE FROM about WHERE key = 'classes'",
    "classes twice": "UPDATE about SET value = '[\"good\", \"good\"]' WHERE key = 'classes'",
    "classes of numbers": "UPDATE about SET value = '[1, 2]' WHERE key = 'classes'",
    "no JSON": "UPDATE about SET value = '[' WHERE key = 'classes'",
    "deep JSON": f"UPDATE about SET value = '{'[' * 100_000}' WHERE key = 'classes'",
    "words of another count": "INSERT INTO about VALUES ('words', '[\"a\"]')",
}


def changed_file(folder: Path, script: str) -> Path:
    path = folder / "labels.db"
    store = new_store(path)
    for row in range(6):
        store.add(Decision(row, "ann", "label", ("good", "bad")[row % 2]))
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_with_other_tables_is_refused(tmp_path: Path, kind: str) -> None:
    path = changed_file(tmp_path, FOREIGN[kind])
    with pytest.raises(DataError, match="does not have the tables of valence label"):
        LabelStore(path)
    with pytest.raises(DataError, match="does not have the tables of valence label"):
        load_dataset(DataSpec(name=str(path)), seed=45)


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = changed_file(tmp_path, DAMAGED[kind])
    for read in (
        lambda: LabelStore(path).texts(), lambda: load_dataset(DataSpec(name=str(path)), seed=45)
    ):  # fmt: skip
        with pytest.raises(DataError, match=r"damaged|cannot be read") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_newer_file_says_so(tmp_path: Path) -> None:
    newer = "UPDATE about SET value = '2' WHERE key = 'format'; ALTER TABLE rows ADD COLUMN more"
    with pytest.raises(DataError, match="newer version"):
        LabelStore(changed_file(tmp_path, newer))


def test_a_file_is_read_without_writing_beside_it(tmp_path: Path) -> None:
    path = changed_file(tmp_path, "")
    before = path.read_bytes()
    data = load_dataset(DataSpec(name=str(path)), seed=45)
    assert set(data.classes) == {"good", "bad"}
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["labels.db"]


def test_a_file_in_a_folder_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    path = changed_file(tmp_path, "")
    with pytest.MonkeyPatch.context() as patch:  # root may write everywhere
        patch.setattr("valence.data.sqlite_file.os.access", lambda *_: False)
        assert len(load_dataset(DataSpec(name=str(path)), seed=45).classes) == 2
    assert [one.name for one in tmp_path.iterdir()] == ["labels.db"]
