"""The label file: nothing lost when the process is killed, nothing changed or deleted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from valence.config.data import DataSpec
from valence.data.label_file import is_label_file
from valence.data.sources import load_dataset
from valence.errors import DataError, RunError
from valence.labeling.store import Decision, LabelStore

WRITER = """
import sys
from pathlib import Path
from valence.labeling.store import Decision, LabelStore
store = LabelStore(Path(sys.argv[1]))
for i in range(10_000):
    number = store.add(Decision(i % 50, f"p{i}", "label", "good", 0.5, token=f"token-{i:08d}"))
    print(number, flush=True)
"""


def new_store(path: Path, rows: int = 50) -> LabelStore:
    return LabelStore.create(
        path, [f"text {i}" for i in range(rows)], source_rows=list(range(10, 10 + rows)),
        classes=["good", "bad"], about={"source": "pool.csv"}, order=list(range(rows)),
        extra=[{"stars": i % 5} for i in range(rows)],
    )  # fmt: skip


def test_a_killed_writer_loses_no_decision_it_was_answered(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    new_store(path).close()
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as own:
        assert own.stdout is not None
        confirmed = [int(own.stdout.readline()) for _ in range(40)]
        os.kill(own.pid, signal.SIGKILL)
        confirmed += [int(line) for line in own.stdout.read().split()]
    store = LabelStore(path)
    stored = [one.id for one in store.decisions()]
    assert set(confirmed) <= set(stored)
    assert stored == list(range(1, len(stored) + 1))
    store.add(Decision(0, "after", "label", "bad"))
    assert len(store.decisions()) == len(stored) + 1


def test_an_undo_is_a_decision_too(tmp_path: Path) -> None:
    store = new_store(tmp_path / "labels.db")
    store.add(Decision(3, "ann", "label", "good"))
    store.add(Decision(4, "ann", "skip"))
    first, second = store.undo("ann"), store.undo("ann")
    assert (first.row, second.row) == (4, 3)  # type: ignore[union-attr]
    assert store.undo("ann") is None
    assert [one.action for one in store.decisions()] == ["label", "skip", "undo", "undo"]
    assert store.standing() == []
    assert store.labels() == []


def test_a_decision_that_is_sent_twice_is_stored_once(tmp_path: Path) -> None:
    store = new_store(tmp_path / "labels.db")
    decision = Decision(3, "ann", "label", "good", token="a-token-of-a-page")
    assert store.add(decision) == store.add(decision)
    assert len(store.decisions()) == 1
    assert store.undo("ann", "undo-token") == store.undo("ann", "undo-token")
    assert len(store.decisions()) == 2


def test_the_most_frequent_label_of_a_row_counts(tmp_path: Path) -> None:
    store = new_store(tmp_path / "labels.db")
    for person, label in (("ann", "good"), ("ben", "bad"), ("eve", "bad")):
        store.add(Decision(7, person, "label", label))
    store.add(Decision(8, "ann", "label", "good"))
    store.add(Decision(8, "ben", "label", "bad"))  # of equal ones the first
    store.add(Decision(9, "ann", "label", "good"))
    store.add(Decision(9, "ann", "label", "bad"))  # she has changed her mind
    assert store.labels() == [
        (17, "text 7", "bad", 2), (18, "text 8", "good", 1), (19, "text 9", "bad", 1)
    ]  # fmt: skip


def test_nobody_gets_a_row_that_another_has_in_hand(tmp_path: Path) -> None:
    store = new_store(tmp_path / "labels.db")
    assert store.lease([1, 2], "ann", "random", 60) == [1, 2]
    assert store.lease([2, 3], "ben", "random", 60) == [3]
    store.add(Decision(1, "ann", "label", "good"))
    assert store.lease([1], "ben", "random", 60) == []
    assert store.lease([1], "ben", "shared", 60) == [1]
    assert store.lease([4], "ann", "random", -1) == [4]
    assert store.lease([4], "ben", "random", 60) == [4]


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (Decision(0, "ann", "label", "great"), "Unknown label .great.; the labels are good, bad"),
        (Decision(0, "ann", "label"), "A label comes with the action label"),
        (Decision(0, "ann", "guess"), "cannot be 'guess'"),
    ],
)
def test_wrong_decisions_are_refused(tmp_path: Path, decision: Decision, words: str) -> None:
    store = new_store(tmp_path / "labels.db")
    with pytest.raises(DataError, match=words):
        store.add(decision)
    assert store.decisions() == []


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    path.write_text("no database")
    assert not is_label_file(path)
    with pytest.raises(DataError, match="holds no labels of valence label"):
        LabelStore(path)
    with pytest.raises(RunError, match="is there already"):
        new_store(path)


def test_a_data_set_is_read_from_the_labels(tmp_path: Path) -> None:
    store = new_store(tmp_path / "labels.db")
    for row in range(40):
        store.add(Decision(row, "ann", "label", "bad" if row % 3 == 0 else "good"))
    data = load_dataset(DataSpec(name=str(tmp_path / "labels.db")))
    texts = [*data.train.texts, *data.validation.texts, *data.test.texts]
    assert sorted(texts) == sorted(f"text {i}" for i in range(40))
    assert data.classes == ("bad", "good")


def test_an_empty_label_file_says_so(tmp_path: Path) -> None:
    new_store(tmp_path / "labels.db").close()
    with pytest.raises(DataError, match="has no labels yet"):
        load_dataset(DataSpec(name=str(tmp_path / "labels.db")))


@pytest.mark.parametrize(
    "words", ["ПЛОХО", "плохо", "STRASSE", "straße", "ärger", "\uff37ifi", "100%_"]
)
def test_a_search_finds_texts_in_any_case_and_script(tmp_path: Path, words: str) -> None:
    texts = ["очень Плохо", "die Straße", "viel ÄRGER", "the WiFi", "100%_ sure", "other"]
    store = LabelStore.create(
        tmp_path / "labels.db", texts, source_rows=range(6), classes=["good", "bad"], about={},
        order=range(6),
    )  # fmt: skip
    hits = [text for _, text, _ in store.search(words, 5)]
    assert len(hits) == 1
    assert hits != ["other"]
