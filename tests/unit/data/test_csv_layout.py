"""CSV files of spreadsheets: other separators, a line that names it, UTF-16, no header."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import make_reviews
from valence.config.data import DataSpec
from valence.data.csv_layout import SAMPLE_BYTES, csv_layout
from valence.data.sources import load_dataset
from valence.errors import DataError
from valence.inference.bulk.readers import open_source

TABLE = make_reviews(70)[["text", "label"]]
WRITTEN = {
    "semicolons": ("a.csv", TABLE.to_csv(index=False, sep=";"), "utf-8", "semicolons"),
    "a mark and tabs": ("a.csv", TABLE.to_csv(index=False, sep="\t"), "utf-8-sig", "tabs"),
    "bars": ("a.csv", TABLE.to_csv(index=False, sep="|"), "utf-8", "bars"),
    "a named one": ("a.csv", "sep=;\n" + TABLE.to_csv(index=False, sep=";"), "utf-8", "semicolons"),
    "UTF-16": ("a.tsv", TABLE.to_csv(index=False, sep="\t"), "utf-16", "read as UTF-16"),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_spreadsheets_write_is_read_the_same_by_both_readers(
    name: str, tmp_path: Path
) -> None:
    file, text, encoding, words = WRITTEN[name]
    path = tmp_path / file
    path.write_text(text, encoding=encoding, newline="")
    data = load_dataset(DataSpec(name=str(path)), seed=1)
    assert words in data.notes[0]
    texts = sorted([*data.train.texts, *data.validation.texts, *data.test.texts])
    assert texts == sorted(TABLE["text"])
    parts = list(open_source(str(path)).parts(1000))
    assert parts[0].names == ["text", "label"]
    assert [value for part in parts for value in part.values(0)] == TABLE["text"].tolist()


def test_separators_within_texts_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nsome; more,a\nless; b; c,b\n")
    assert csv_layout(path, None).separator == ","
    path.write_text("text\nsome; more\nless\n")
    assert csv_layout(path, None).separator == ","
    path.write_text('text;label\n"a; b; c";x\n1,5;y\n')
    assert csv_layout(path, None).separator == ";"


def test_a_row_that_the_sample_cuts_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    row = "x" * (SAMPLE_BYTES // 3) + ";a\n"
    path.write_text("text;label\n" + row * 4)
    assert csv_layout(path, None).separator == ";"


def test_a_file_without_a_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    TABLE.to_csv(path, index=False, header=False)
    with pytest.raises(DataError, match="the first line looks like data"):
        load_dataset(DataSpec(name=str(path)))


def test_texts_of_a_tsv_may_begin_with_a_quote(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    texts = [('"' if i % 3 == 0 else "") + text for i, text in enumerate(TABLE["text"])]
    lines = [f"{text}\t{label}\n" for text, label in zip(texts, TABLE["label"], strict=True)]
    path.write_text("text\tlabel\n" + "".join(lines))
    data = load_dataset(DataSpec(name=str(path)), seed=1)
    assert "quotes at the beginning" in data.notes[0]
    read = [*data.train.texts, *data.validation.texts, *data.test.texts]
    assert sorted(read) == sorted(texts)
    parts = list(open_source(str(path)).parts(1000))
    assert [value for part in parts for value in part.values(0)] == texts


def test_labels_of_odd_digits_are_labels_like_others(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    TABLE.replace({"good": "①", "bad": "③", "meh": "--2"}).to_csv(path, index=False)
    assert load_dataset(DataSpec(name=str(path)), seed=1).classes == ("--2", "①", "③")
