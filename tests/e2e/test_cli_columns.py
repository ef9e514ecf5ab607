"""From a file with names of its own to a scored file: nothing is named, everything is said."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import make_reviews


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    table = make_reviews(140).rename(columns={"text": "comment", "label": "sentiment"})
    table.insert(0, "id", [f"r{i:04d}" for i in range(140)])
    table.insert(1, "date", "2026-01-01")
    path = tmp_path / "rows.csv"
    table.drop(columns="number").to_csv(path, index=False)
    return path


def test_train_and_predict_find_the_columns(valence, rows: Path, tmp_path: Path) -> None:
    code, _, err = valence("train", rows, "--method", "tfidf-lr", "--out", "m")
    assert code == 0, err
    assert err.count("texts from column 'comment' (by its name)") == 1
    other = pd.DataFrame({"text": ["no text of a person"] * 3, "comment": ["good"] * 3})
    other.to_excel(tmp_path / "other.xlsx", index=False)
    code, _, err = valence("predict", "m", "other.xlsx", "--out", "scored.csv")
    assert code == 0, err
    assert "Note: texts from column 'comment', as in training" in err
    assert list(pd.read_csv(tmp_path / "scored.csv")["label"]) == ["good"] * 3
    foreign = pd.DataFrame({"n": range(40), "words": make_reviews(40)["text"]})
    foreign.to_csv(tmp_path / "foreign.csv", index=False)
    code, _, err = valence("predict", "m", "foreign.csv", "--out", "scored.csv")
    assert code == 0, err
    assert "texts from column 'words' (the longest texts" in err


def test_compare_says_what_it_guessed_once(valence, rows: Path) -> None:
    code, _, err = valence("compare", rows, "--methods", "majority,tfidf-lr", "--seeds", "45,46")
    assert code == 0, err
    assert err.count("texts from column 'comment'") == 1


def test_audit_and_data_show_guess_too(valence, rows: Path) -> None:
    for words in (("data", "show", rows), ("audit", rows, "--fast")):
        code, _, err = valence(*words)
        assert code == 0, err
        assert err.count("texts from column 'comment'") == 1


@pytest.mark.parametrize(
    "name", ["mistyped.xlsx", "rows.xlxs", "rows.cvs", "notes.docx", "clip.mp4"]
)
def test_a_file_that_is_not_there_is_no_text(valence, rows: Path, name: str) -> None:
    assert valence("train", rows, "--method", "majority", "--out", "m")[0] == 0
    code, out, err = valence("predict", "m", name)
    assert (code, out) == (1, "")
    assert f"File {name} does not exist" in err
    code, out, _ = valence("predict", "m", "a text that ends in clip.mp4")
    assert code == 0
    assert "a text that ends" in out


def test_scored_rows_do_not_replace_their_source(valence, rows: Path) -> None:
    assert valence("train", rows, "--method", "majority", "--out", "m")[0] == 0
    before = rows.read_bytes()
    code, _, err = valence("predict", "m", rows, "--out", rows)
    assert code == 1
    assert "is the input file; use another --out" in err
    assert rows.read_bytes() == before
