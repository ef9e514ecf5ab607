"""Columns that nobody names: the texts are the longest, the labels few; two alike are an error."""

from __future__ import annotations

import random
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import make_reviews
from valence.config.data import DataSpec
from valence.data.columns import guess_label_column, guess_text_column
from valence.data.sources import load_dataset, load_split
from valence.errors import DataError
from valence.methods.registry import make_spec
from valence.runs.runner import run
from valence.runs.store import RunStore

ROWS = 60


WORDS = ["room", "staff", "food", "clean", "cold", "kind", "slow"]


def prose(seed: int, words: int = 9) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=words)) for _ in range(ROWS)]


TEXTS = prose(0)
LABELS = [("good", "bad", "fine")[i % 3] for i in range(ROWS)]
IDS = [f"R{i:05d}" for i in range(ROWS)]
DATES = [f"2026-01-{1 + i % 28:02d}" for i in range(ROWS)]
NUMBERS = [str(i * 37 % 1000) for i in range(ROWS)]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("comment", "sentiment"), ("Kommentar", "Bewertung"), ("commentaire", "note"),
        ("comentario", "etiqueta"), ("отзыв", "оценка"), ("评论", "标签"), ("レビュー", "ラベル"),
        ("recensione", "valutazione"), ("komentarz", "ocena"), ("opmerking", "beoordeling"),
        ("리뷰", "라벨"), ("yorum", "duygu"), ("Review Text", "star_rating"),
        ("reviewBody", "overallSentiment"),
    ],
)  # fmt: skip
def test_names_of_many_languages(text: str, label: str) -> None:
    columns = {"id": IDS, "title": prose(1, words=2), text: TEXTS, label: LABELS, "tone": LABELS}
    assert guess_text_column(columns, where="x").name == text
    assert guess_label_column(columns, text=text, where="x").name == label


def test_without_names_the_longest_texts_and_the_only_few_values() -> None:
    columns = {"a": IDS, "b": DATES, "c": NUMBERS, "d": TEXTS, "e": ["x"] * ROWS, "f": LABELS}
    text = guess_text_column(columns, where="x")
    assert (text.name, "longest" in text.reason) == ("d", True)
    label = guess_label_column(columns, text="d", where="x")
    assert (label.name, label.reason) == ("f", "the only column with few values (3)")


@pytest.mark.parametrize("column", [IDS, DATES, NUMBERS, ["x"] * ROWS, [None] * ROWS])
def test_ids_dates_numbers_and_constants_are_neither(column: list[str | None]) -> None:
    columns = {"comment": column, "other": column}
    with pytest.raises(DataError, match="--text-column"):
        guess_text_column(columns, where="x")
    with pytest.raises(DataError, match="--label-column"):
        guess_label_column({"rating": column, "q": TEXTS}, text="q", where="x")


def test_texts_of_scripts_without_spaces_are_texts() -> None:
    columns = {"a": IDS, "b": [f"房间很干净员工也很好{i}" for i in range(ROWS)]}
    assert guess_text_column(columns, where="x").name == "b"


def test_two_alike_are_named() -> None:
    columns = {"pros": TEXTS, "cons": prose(2), "mood": LABELS, "tone": LABELS}
    with pytest.raises(DataError, match=r"'pros' and 'cons' look alike.*--text-column"):
        guess_text_column(columns, where="x")
    with pytest.raises(DataError, match=r"'mood' and 'tone' look alike.*--label-column"):
        guess_label_column(columns, text="pros", where="x")


def own_names(path: Path, text: str = "comment", label: str = "stimmung") -> Path:
    table = make_reviews(140).rename(columns={"text": text, "label": label})
    table.insert(0, "date", "2026-01-01")
    table.to_csv(path, index=False)
    return path


def test_guessed_columns_are_noted_and_recorded_in_run_and_model(tmp_path: Path) -> None:
    path = own_names(tmp_path / "rows.csv")
    spec = make_spec("tfidf-lr", DataSpec(name=str(path)))
    data = load_dataset(spec.data, seed=45)
    assert data.columns == (("data.text_column", "comment"), ("data.label_column", "stimmung"))
    assert sum("texts from column 'comment'" in note for note in data.notes) == 1
    store = RunStore(tmp_path / "runs")
    result = run(spec, store=store)
    assert result.spec.data.text_column == "comment"
    assert result.spec.data.label_column == "stimmung"
    named = DataSpec(name=str(path), text_column="comment", label_column="stimmung")
    assert run(make_spec("tfidf-lr", named), store=store).key == result.key
    assert store.key(spec, data) == result.key


def test_usual_names_are_not_guessed_and_keep_their_key(reviews: Path) -> None:
    data = load_dataset(DataSpec(name=str(reviews)), seed=45)
    assert data.columns == ()
    assert not any("texts from column" in note for note in data.notes)


def test_rows_of_a_saved_model_are_read_as_in_its_training(tmp_path: Path) -> None:
    path = own_names(tmp_path / "rows.csv")
    table = pd.read_csv(path).assign(text="the same", label="x")
    table.to_csv(tmp_path / "more.csv", index=False)
    trained_on = DataSpec(name="a.csv", text_column="comment", label_column="stimmung")
    classes = ("bad", "good", "meh")
    rows = load_split(
        DataSpec(name=str(tmp_path / "more.csv")), classes, trained_on=trained_on
    ).rows
    assert set(rows.texts) == set(table["comment"])


def with_splits(path: Path, names: tuple[str, ...], column: str = "split") -> Path:
    table = make_reviews(140)[["text", "label"]]
    table[column] = [names[i % len(names)] for i in range(140)]
    table.to_csv(path, index=False)
    return path


def test_a_column_of_splits_is_read_and_said(tmp_path: Path) -> None:
    path = with_splits(tmp_path / "a.csv", ("Train", "train", "train", "dev", "test"))
    data = load_dataset(DataSpec(name=str(path)), seed=1)
    table = pd.read_csv(path)
    assert data.test.texts == table.loc[table["split"] == "test", "text"].tolist()
    assert len(data.validation) == (table["split"] == "dev").sum()
    assert any(
        "splits by column 'split': 84 train, 28 validation, 28 test" in n for n in data.notes
    )
    ignored = load_dataset(DataSpec(name=str(path), split_column="none"), seed=1)
    assert any(note.startswith("test split drawn at random") for note in ignored.notes)
    rows = load_split(DataSpec(name=str(path)), data.classes)
    assert (rows.split, rows.rows.texts) == ("test", data.test.texts)


def test_a_split_that_is_missing_is_made_and_other_columns_are_none(tmp_path: Path) -> None:
    path = with_splits(tmp_path / "a.csv", ("train", "train", "test"), "part")
    assert any(
        n.startswith("test split drawn") for n in load_dataset(DataSpec(name=str(path))).notes
    )
    named = load_dataset(DataSpec(name=str(path), split_column="part"))
    assert len(named.test) == 46
    assert any(n.startswith("validation split drawn") for n in named.notes)
    other = with_splits(tmp_path / "b.csv", ("left", "right"))
    assert any(
        n.startswith("test split drawn") for n in load_dataset(DataSpec(name=str(other))).notes
    )
    with pytest.raises(DataError, match=r"row 1 says 'left'; use train, .*--split-column none"):
        load_dataset(DataSpec(name=str(other), split_column="split"))
    with pytest.raises(DataError, match="no split column 'set'; columns: text, label, split"):
        load_dataset(DataSpec(name=str(other), split_column="set"))
