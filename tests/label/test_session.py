"""A session: rows for several people, the random sample, fits in the background."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from valence.config.data import DataSpec
from valence.errors import DataError, ModelError
from valence.labeling.job import LabelJob, LabelNames, open_session
from valence.labeling.sampling import SamplingSettings
from valence.labeling.session import LabelingSession
from valence.labeling.store import Decision

NAMES = LabelNames.parse("food,room,staff")


def opened(pool: Path, folder: Path, shared: int = 0, **settings: object) -> LabelingSession:
    job = LabelJob(
        folder / "labels.db", DataSpec(name=str(pool)), names=NAMES, encoder="none",
        settings=SamplingSettings(**settings), shared=shared,  # type: ignore[arg-type]
    )  # fmt: skip
    return open_session(job, lambda line: None)


def wait_for(met: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end
        time.sleep(0.02)


def label(session: LabelingSession, topics: pd.DataFrame, count: int, person: str = "ann") -> None:
    for _ in range(count):
        (item,) = session.next_items(person, 1)
        own = topics["label"][item.row]
        session.decide(Decision(item.row, person, "label", own, chosen_by=item.chosen_by))


def test_the_model_is_fitted_and_the_estimate_covers_the_truth(
    pool: Path, topics: pd.DataFrame, tmp_path: Path
) -> None:
    session = opened(pool, tmp_path, random_share=0.4)  # at least 20 rows for the estimate
    session.start()
    try:
        assert session.background.wait()
        assert session.background.state.phase == "ready"
        label(session, topics, 20)  # the first ten in random order may be of one class
        assert session.background.wait()
        for _ in range(10):
            fits = session.background.state.fits
            assert fits > 0
            label(session, topics, 10)
            assert session.background.wait()
            assert session.background.state.fits == fits + 1
        state = session.state("ann")
        assert state["labeled"] == 120
        assert state["counts"]["staff"] >= 10  # one row in twenty is of this class
        assert state["changed"] is not None
        probs = session.background.state.probs
        assert probs is not None
        right = (probs.argmax(axis=1) == topics["label"].map(NAMES.classes.index)).mean()
        assert right > 0.8
        assert state["estimate"]["low"] < state["estimate"]["value"] <= state["estimate"]["high"]
        assert state["forecast"]["labels"] == 100
        assert session.next_items("ann", 1)[0].suggestion in NAMES.classes
    finally:
        session.close()


def test_labels_that_were_too_few_for_a_fit_count_for_the_next(
    pool: Path, topics: pd.DataFrame, tmp_path: Path
) -> None:
    session = opened(pool, tmp_path)
    (item,) = session.next_items("ann", 1)
    session.decide(Decision(item.row, "ann", "label", topics["label"][item.row]))
    session.start()  # takes the one label, which is of one class
    try:
        wait_for(lambda: session.background.state.phase == "ready")
        wait_for(lambda: session.background.pop(lambda row: False) is not None)
        label(session, topics, 9)
        assert session.background.wait()
        assert session.background.state.fits == 1
        assert session.background.state.last_labels == 10
    finally:
        session.close()


def test_a_session_goes_on_where_it_was(pool: Path, topics: pd.DataFrame, tmp_path: Path) -> None:
    session = opened(pool, tmp_path)
    label(session, topics, 15)
    rows = [one.row for one in session.store.decisions()]
    session.store.close()
    lines: list[str] = []
    job = LabelJob(tmp_path / "labels.db", encoder="none")
    again = open_session(job, lines.append)
    assert "continued after 15 decisions on 400 rows" in lines[0]
    assert again.state("ann")["labeled"] == 15
    label(again, topics, 15)
    later = [one.row for one in again.store.decisions()]
    assert len(set(later)) == 30
    assert later[:15] == rows
    again.store.close()


def test_the_random_sample_is_the_beginning_of_a_random_order(
    pool: Path, topics: pd.DataFrame, tmp_path: Path
) -> None:
    session = opened(pool, tmp_path, random_share=1.0)
    label(session, topics, 30)
    rows = [one.row for one in session.store.decisions()]
    assert rows == session.store.sample_order()[:30]
    assert {one.chosen_by for one in session.store.decisions()} == {"random"}
    session.store.close()


def test_several_people_share_a_part_and_nothing_else(
    pool: Path, topics: pd.DataFrame, tmp_path: Path
) -> None:
    session = opened(pool, tmp_path, shared=5)
    for _ in range(25):
        for person in ("ann", "ben", "eve"):
            label(session, topics, 1, person)
    rows = [one.row for one in session.store.decisions()]
    shared = set(session.store.sample_order()[:5])
    alone = [row for row in rows if row not in shared]
    assert len(alone) == len(set(alone))
    assert sorted(row for row in rows if row in shared) == sorted([*shared] * 3)
    assert session.agreement() == {"alpha": 1.0, "rows": 5, "people": 3}
    session.store.close()


def test_undo_puts_a_row_back(pool: Path, tmp_path: Path) -> None:
    session = opened(pool, tmp_path)
    (item,) = session.next_items("ann", 1)
    session.decide(Decision(item.row, "ann", "label", "food"))
    assert session.state("ann")["counts"]["food"] == 1
    back = session.undo("ann")
    assert back is not None
    assert back.row == item.row
    assert session.state("ann")["counts"]["food"] == 0
    assert session.undo("ann") is None
    assert session.next_items("ann", 1)[0].row == item.row
    assert item.row not in {one.row for one in session.next_items("ben", 10)}
    session.store.close()


def test_a_pool_without_rows_left_says_so(topics: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "small.csv"
    topics[["text"]][:6].to_csv(path, index=False)
    session = opened(path, tmp_path)
    label(session, topics, 6)
    assert session.next_items("ann", 3) == []
    assert session.state("ann")["labeled"] == 6
    session.store.close()


def test_blank_and_repeated_texts_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "pool.csv"
    pd.DataFrame({"text": ["a b", "", "a b", "c d"]}).to_csv(path, index=False)
    lines: list[str] = []
    job = LabelJob(tmp_path / "labels.db", DataSpec(name=str(path)), names=NAMES, encoder="none")
    session = open_session(job, lines.append)
    assert session.texts == ["a b", "c d"]
    assert any("1 rows without a text left out" in line for line in lines)
    assert any("1 rows with a text that was there before" in line for line in lines)
    session.store.close()


@pytest.mark.parametrize(
    ("text", "words"), [("good", "1 labels"), ("good,good", "there twice"), ("a,,b", "")]
)
def test_label_names(text: str, words: str) -> None:
    if words:
        with pytest.raises(DataError, match=words):
            LabelNames.parse(text)
    else:
        assert LabelNames.parse(text).classes == ("a", "b")


def test_label_names_with_their_words(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("C01: infections by bacteria\nC02\n", encoding="utf-8")
    names = LabelNames.parse(str(path))
    assert names.classes == ("C01", "C02")
    assert names.words == ("C01 infections by bacteria", "C02")


def test_other_labels_than_those_of_the_file_are_refused(pool: Path, tmp_path: Path) -> None:
    opened(pool, tmp_path).store.close()
    job = LabelJob(tmp_path / "labels.db", names=LabelNames.parse("x,y"))
    with pytest.raises(DataError, match="has the labels food, room, staff"):
        open_session(job, lambda line: None)
    with pytest.raises(ModelError, match="nowhere"):
        open_session(LabelJob(tmp_path / "labels.db", model=Path("nowhere")), lambda line: None)
    none = LabelJob(tmp_path / "other.db", DataSpec(name=str(pool)))
    with pytest.raises(DataError, match="Which labels"):
        open_session(none, lambda line: None)


def test_a_model_suggests_from_the_start(pool: Path, topics: pd.DataFrame, tmp_path: Path) -> None:
    from valence.methods.registry import make_spec
    from valence.runs.runner import run
    from valence.runs.store import RunStore

    topics.to_csv(tmp_path / "labeled.csv", index=False)
    store = RunStore(tmp_path / "runs")
    spec = make_spec("tfidf-lr", DataSpec(name=str(tmp_path / "labeled.csv")))
    model = store.path(run(spec, store=store, keep_model=True).key) / "model"
    job = LabelJob(tmp_path / "labels.db", DataSpec(name=str(pool)), model, encoder="none")
    session = open_session(job, lambda line: None)
    session.start()
    try:
        wait_for(lambda: session.background.state.probs is not None)
        items = session.next_items("ann", 10)
        right = [item.suggestion == topics["label"][item.row] for item in items]
        assert sum(right) >= 8
    finally:
        session.close()
