"""DataFrames of every library, in and out; never column names for texts, nor letters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import valence
from tests.conftest import make_reviews
from valence.data.frames import as_frame, frames_as_names, held_frame, list_of_texts
from valence.errors import DataError
from valence.inference.predictor import Predictor
from valence.runs.store import RunStore

TABLE = make_reviews(140).rename(columns={"text": "comment", "label": "stars"})


def to_polars(table: pd.DataFrame) -> Any:
    return pytest.importorskip("polars", reason="pip install polars").from_pandas(table)


class Older:
    """A frame that speaks the older interchange protocol alone."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table

    def __dataframe__(self, nan_as_null: bool = False, allow_copy: bool = True) -> object:
        return self.table.__dataframe__(nan_as_null, allow_copy)


KINDS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda table: table,
    "polars": to_polars,
    "pyarrow": lambda table: pa.Table.from_pandas(table, preserve_index=False),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    result = valence.train(TABLE, "tfidf-lr", runs=runs)
    assert result.spec.data.text_column == "comment"
    return RunStore(runs).path(result.key) / "model"


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_loaded_as_files_are(kind: str, tmp_path: Path) -> None:
    TABLE.to_csv(tmp_path / "rows.csv", index=False)
    file = valence.load_dataset(tmp_path / "rows.csv", seed=1)
    frame = KINDS[kind](TABLE)
    assert valence.load_dataset(frame, seed=1).fingerprint == file.fingerprint
    named = valence.load_dataset(frame, text="comment", label="stars", seed=1)
    assert named.fingerprint == file.fingerprint
    assert valence.load_dataset(str(tmp_path / "rows.csv"), seed=1).fingerprint == file.fingerprint


@pytest.mark.filterwarnings("ignore:.*interchange:Warning")
def test_the_older_protocol_is_read() -> None:
    frame = as_frame(Older(TABLE))
    assert frame is not None
    assert frame["comment"].tolist() == TABLE["comment"].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_compare_takes_frames_and_holds_them_no_longer(kind: str, tmp_path: Path) -> None:
    outcome = valence.compare(
        KINDS[kind](TABLE), ["majority", "tfidf-lr"], seeds=[1], runs=tmp_path
    )
    assert not outcome.failures
    names = {result.spec.data.name for result in outcome.results}
    assert len(names) == 1
    with pytest.raises(DataError, match="was a DataFrame in memory"):
        held_frame(names.pop())
    again = valence.compare(TABLE, ["majority", "tfidf-lr"], seeds=[1], runs=tmp_path)
    assert [cell.status for cell in again.cells] == ["cached", "cached"]


def test_names_of_frames_are_of_their_content() -> None:
    with frames_as_names([TABLE, TABLE.copy(), TABLE.iloc[1:], "demo"]) as names:
        assert names[0] == names[1] != names[2]
        assert names[3] == "demo"
        assert held_frame(names[0]) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_scores_the_column_it_was_trained_on(kind: str, model: Path) -> None:
    rows = TABLE.head(6).assign(text="of no use", label="given")
    predictor = Predictor(model)
    table = predictor.table(KINDS[kind](rows))
    assert list(table.columns[:5]) == ["comment", "stars", "number", "text", "label_given"]
    assert table["label"].tolist() == predictor.predict(rows["comment"].tolist())
    assert predictor.predict(KINDS[kind](rows)) == table["label"].tolist()
    np.testing.assert_allclose(
        predictor.predict_proba(rows), predictor.predict_proba(rows["comment"])
    )


def test_the_index_is_kept_and_rows_without_a_text_get_no_label(model: Path) -> None:
    rows = pd.DataFrame({"comment": ["good", None, "bad"]}, index=["x", "y", "y"])
    table = Predictor(model).table(rows)
    assert table.index.tolist() == ["x", "y", "y"]
    assert table["label"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_the_estimator_takes_frames_and_columns(kind: str) -> None:
    frame, labels = KINDS[kind](TABLE[["number", "comment"]]), TABLE["stars"]
    of_frame = valence.SentimentClassifier("tfidf-lr").fit(frame, labels)
    assert of_frame.text_column_ == "comment"
    of_list = valence.SentimentClassifier("tfidf-lr").fit(TABLE["comment"].tolist(), labels)
    assert of_frame.predict(frame).tolist() == of_list.predict(TABLE["comment"]).tolist()


WRONG: dict[str, Any] = {
    "one text": "a good film",
    "bytes": b"a good film",
    "a mapping": {"text": ["a"]},
    "a set": {"a"},
    "a number": 3,
    "numbers": [1, 2],
    "a missing text": ["a", None],
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_list_of_texts_is_one_line(name: str, model: Path) -> None:
    for call in (list_of_texts, Predictor(model).predict, Predictor(model).table):
        with pytest.raises(DataError) as refused:
            call(WRONG[name])
        assert "\n" not in str(refused.value)


def test_wrong_columns_are_named(model: Path) -> None:
    with pytest.raises(DataError, match="no column 'coment'; did you mean 'comment'"):
        Predictor(model).table(TABLE, text="coment")
    with pytest.raises(DataError, match="no column 'starz'"):
        valence.load_dataset(TABLE, label="starz")
    double = pd.concat([TABLE, TABLE[["comment"]]], axis=1)
    with pytest.raises(DataError, match="several columns 'comment'"):
        Predictor(model).table(double)
