"""Rows as people have them: separators, encodings, quotes, types, splits, compression."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_reviews
from valence.config.data import DataSpec
from valence.data.csv_layout import CsvLayout
from valence.data.csv_records import MOST_COLUMNS, csv_records
from valence.data.dataset import Dataset
from valence.data.sources import load_dataset
from valence.errors import DataError
from valence.inference.bulk.readers import open_source

SPLITS = ("train", "validation", "test")
ROWS = make_reviews(90)[["text", "label"]]


def load(path: Path, **given_: object) -> Dataset:
    return load_dataset(DataSpec(name=str(path), **given_), seed=1)  # type: ignore[arg-type]


def size(data: Dataset) -> int:
    return len(data.train) + len(data.validation) + len(data.test)


def texts(data: Dataset) -> set[str]:
    return {*data.train.texts, *data.validation.texts, *data.test.texts}


def streamed(path: Path, **given_: object) -> int:
    return sum(len(part) for part in open_source(str(path), **given_).parts(20))  # type: ignore[arg-type]


def refused(path: Path, words: str, **given_: object) -> bool:
    """Whether both readers refuse a file in the same words."""
    reasons = []
    for read in (load, streamed):
        with pytest.raises(DataError) as error:
            read(path, **given_)
        reasons.append(str(error.value))
    return all(re.search(words, reason) for reason in reasons)


def test_01_a_mark_and_a_quoted_header_with_an_index(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    ROWS.to_csv(path, encoding="utf-8-sig", quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    assert texts(load(path)) == set(ROWS["text"])
    assert streamed(path) == 90


@pytest.mark.parametrize(("mark", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
@pytest.mark.parametrize("named", [True, False])
def test_02_the_separator_is_found_and_said(
    mark: str, word: str, named: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    start = f"sep={mark}\n" if named else ""
    path.write_text(start + ROWS.to_csv(index=False, sep=mark))
    data = load(path)
    assert any(word in note for note in data.notes)
    assert size(data) == streamed(path) == 90


@pytest.mark.parametrize(("mark", "name"), [(";", "a.tsv"), (",", "a.tsv"), (";", "a.csv")])
def test_02_the_rows_that_agree_name_the_separator(mark: str, name: str, tmp_path: Path) -> None:
    """Whatever the suffix says, whatever signs the texts hold."""
    rows = ROWS.assign(text=[f"{text}, so\u2028so, yes" for text in ROWS["text"]])
    path = tmp_path / name
    path.write_text(rows.to_csv(index=False, sep=mark), newline="")
    assert texts(load(path)) == set(rows["text"])
    assert streamed(path) == 90
    path.write_text("text;label (a, b)\n" + ROWS.to_csv(index=False, header=False, sep=";"))
    assert streamed(path) == 90


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_05_25_other_separators_are_checked_alike(mark: str, tmp_path: Path) -> None:
    lines = ROWS.to_csv(index=False, sep=mark).splitlines()
    path = tmp_path / "a.csv"
    path.write_text("\n".join([*lines[:12], f"good{mark} but long{mark}pos", *lines[12:]]))
    assert refused(path, "line 13 has 3 values and the first line 2; put values with")
    path.write_text("\n".join([*lines[:12], '"' + lines[12], *lines[13:]]))
    assert refused(path, 'a quote " in line 13 is never closed')


LANGUAGES = {
    "cp1252": "Für 5 € – völlig in Ordnung, “gern” wieder",
    "cp1250": "Film był bardzo dobry, choć jedzenie zimne, a pokój głośny",
    "iso8859_2": "Jídlo bylo skvělé, číšník příjemný, šéf též",
    "cp1254": "Yemek soğuktu, garson kabaydı, çok kötü şey",
    "cp1257": "Maistas buvo šaltas, kambarys švarus, bet triukšmingas, padavėjas nemandagus",
    "cp1251": "Очень хороший фильм, смотрел с удовольствием",
    "koi8_r": "Очень хороший фильм, смотрел с удовольствием",
    "cp1253": "Το φαγητό ήταν κρύο, ο σερβιτόρος αγενής",
    "cp1256": "كان الطعام باردا والنادل وقحا",
    "cp874": "อาหารเย็นชืด พนักงานหยาบคาย",
    "cp932": "料理は冷たくて、店員の態度も悪かった",
    "euc_jp": "料理は冷たくて、店員の態度も悪かった",
    "cp949": "방은 깨끗하지만 시끄러워요",
    "gb18030": "这部电影非常好看，我很喜欢",
    "big5": "這部電影非常好看，我很喜歡",
    "mac_roman": "Das Essen war köstlich, schöne Größe, für alle",
    "utf-16-le": "The room wasn’t clean",
    "utf-16-be": "The room was clean",
    "utf-32-le": "The room was clean",
}


@pytest.mark.parametrize("encoding", LANGUAGES)
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_03_the_likely_encoding_is_named_and_taken(
    encoding: str, suffix: str, tmp_path: Path
) -> None:
    rows = ROWS.assign(text=[f"{LANGUAGES[encoding]} {i}" for i in range(90)])
    content = {
        "csv": rows.to_csv(index=False, sep=";"), "tsv": rows.to_csv(index=False, sep="\t"),
        "jsonl": rows.to_json(orient="records", lines=True, force_ascii=False),
    }[suffix]  # fmt: skip
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content.encode(encoding))
    assert refused(path, f"not UTF-8, probably {encoding}; try --encoding {encoding}")
    assert texts(load(path, encoding=encoding)) == set(rows["text"])
    assert streamed(path, encoding=encoding) == 90


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("text", ["größer 服务 👍", "plain"])
def test_03_a_byte_order_mark_names_the_encoding(encoding: str, text: str, tmp_path: Path) -> None:
    rows = ROWS.assign(text=[f"{text} {i}" for i in range(90)])
    for suffix, mark in (("csv", ","), ("csv", ";"), ("tsv", "\t"), ("csv", "\t")):
        path = tmp_path / f"a.{suffix}"
        start = f"sep={mark}\r\n" if suffix == "csv" else ""
        path.write_bytes((start + rows.to_csv(index=False, sep=mark)).encode(encoding))
        data = load(path)
        assert texts(data) == set(rows["text"])
        assert streamed(path) == 90
        said = any(encoding.upper() in note for note in data.notes)
        assert said == (encoding != "utf-8-sig")
    path = tmp_path / "a.jsonl"
    rows.to_json(path, orient="records", lines=True, force_ascii=False)
    path.write_bytes(path.read_text().encode(encoding))
    assert texts(load(path)) == set(rows["text"])
    assert streamed(path) == 90


def test_04_quotes_in_a_tsv_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    lines = [f'"{text}\t{label}' if i % 9 == 0 else f"{text}\t{label}"
             for i, (text, label) in enumerate(ROWS.itertuples(index=False))]  # fmt: skip
    path.write_text("text\tlabel\n" + "\n".join(lines) + "\n")
    data = load(path)
    assert size(data) == streamed(path) == 90
    assert sum(text.startswith('"') for text in texts(data)) == 10


@pytest.mark.parametrize(
    "row", ["good, but long,pos", '"He said \\"great\\", ok",pos', "pos,good, but long"]
)
def test_05_unquoted_commas_are_an_error_with_the_line(row: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "good,pos\n" * 12 + row + "\n" + "bad,neg\n" * 9)
    assert refused(path, r"line 14 has [34] values and the first line 2; put .* in quotes")


def test_05_separators_at_the_end_are_no_values(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "good,pos,,\n" * 12 + "bad,neg\n" * 9)
    assert size(load(path)) == streamed(path) == 21


def test_06_words_for_nothing_are_texts_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    labels = ["null", "NA", "None"] * 30
    ROWS.assign(text=["NA", "null", "nan"] * 30, label=labels).to_csv(path, index=False)
    data = load(path)
    assert data.classes == ("NA", "None", "null")
    assert texts(data) == {"NA", "null", "nan"}


@pytest.mark.parametrize("mark", ['"open', 'say "x" to', '"a" b "c'])
@pytest.mark.parametrize("between", [1, 2, 30])
def test_25_an_open_quote_never_loses_rows(mark: str, between: int, tmp_path: Path) -> None:
    lines = [f"{text},{label}" for text, label in ROWS.itertuples(index=False)]
    for at in (20, 20 + between):
        lines[at] = f"{mark} film {at},{ROWS['label'][at]}"
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    try:
        assert size(load(path)) == streamed(path) == 90
    except DataError:
        assert refused(path, r'a quote " in line 22 (makes one value of the lines|is never closed)')


def test_25_a_closed_quote_over_rows_is_found_too(tmp_path: Path) -> None:
    lines = [f"{text},{label}" for text, label in ROWS.itertuples(index=False)]
    lines[30] = f'"open film,{ROWS["label"][30]}'
    lines[33] = f'the end",{ROWS["label"][33]}'
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    assert refused(path, r'a quote " in line 32 makes one value of the lines to 35')


VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=20)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=9), st.sampled_from(",;\t|")
)
def test_25_what_is_written_well_is_read_as_it_is(
    rows: list[tuple[str, str, str]], mark: str
) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=mark, quoting=csv.QUOTE_ALL).writerows([("a", "b", "c"), *rows])
    file.seek(0)
    names, records = csv_records(file, CsvLayout(mark, "utf-8"))
    assert names == ["a", "b", "c"]
    assert [tuple(value or "" for value in record) for record in records] == rows


def test_a_table_of_too_many_columns_is_refused_at_once(tmp_path: Path) -> None:
    wide = [f"c{i}" for i in range(300_000)]
    path = tmp_path / "a.csv"
    path.write_text(",".join(wide) + "\n" + ",".join("1" * 300_000) + "\n")
    assert refused(path, f"300000 columns; at most {MOST_COLUMNS}")
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(dict.fromkeys(wide, 1)) + "\n")
    assert refused(path, f"more than {MOST_COLUMNS} columns")


@pytest.mark.parametrize("line", ['{"text": ' + "[" * 50_000, "[" * 50_000, '{"a": ' * 9000])
def test_deep_json_is_one_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good", "label": "pos"}\n' + line + "\n")
    assert refused(path, "line 2: (values are nested too deeply|not valid JSON)")


def test_a_number_of_many_digits_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good", "label": ' + "9" * 5000 + "}\n")
    assert refused(path, "line 1: a number is too long")


def test_a_small_parquet_of_gigabytes_is_refused(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["x" * 10**6]))
    label = pa.array(["a", "b"] * 1500)
    pq.write_table(pa.table({"text": text, "label": label}), path)
    assert path.stat().st_size < 3 * 10**6
    with pytest.raises(DataError, match=r"bytes but its rows more than|says it has"):
        load(path)
    first = next(iter(open_source(str(path)).parts(4096)))
    assert len(first) < 200, "a stream holds a bounded part"


def test_12_a_column_of_splits_is_used_and_can_be_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    names = (["train"] * 6 + ["dev"] + ["valid"] + ["test"] * 2) * 9
    ROWS.assign(split=names).to_csv(path, index=False)
    data = load(path)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [54, 18, 18]
    assert any(
        "splits by column 'split': 54 train, 18 validation, 18 test" in n for n in data.notes
    )
    assert len(load(path, split_column="none").train) != 54
    ROWS.assign(fold=names).to_csv(path, index=False)
    assert len(load(path, split_column="fold").validation) == 18
    ROWS.assign(split=["a", "b"] * 45).to_csv(path, index=False)
    assert not any("splits by column" in note for note in load(path).notes)


@pytest.mark.parametrize("text", ["\u200b", "\u200b\u200d \ufeff", "\u2060", "\u00ad", "  \t"])
def test_17_invisible_texts_are_empty(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    odd = ["👩‍👩‍👧 family", "שלום עולם", "x\u200by", "e\u0301", "🙂"]
    rows = ROWS.assign(text=[*odd, text] * 15)
    rows.to_csv(path, index=False)
    data = load(path)
    assert size(data) == 75
    assert texts(data) == set(odd)


def test_19_a_file_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    ROWS.to_csv(path, index=False, header=False)
    with pytest.raises(DataError, match=r"first line looks like data.*--no-header"):
        load(path)
    data = load(path, header=False)
    assert size(data) == streamed(path, has_header=False) == 90
    assert texts(data) == set(ROWS["text"])
    assert any("'column 1'" in note for note in data.notes)
    path = tmp_path / "a.jsonl"
    ROWS.to_json(path, orient="records", lines=True)
    with pytest.raises(DataError, match="--no-header is for CSV"):
        load(path, header=False)


def test_data_show_reads_a_bounded_part(tmp_path: Path, valence: Any) -> None:
    path = tmp_path / "a.csv"
    ROWS.to_csv(path, index=False)
    code, printed, error = valence("data", "show", path, "--rows", 50, "--json")
    assert code == 0, error
    shown = json.loads(printed)
    assert sum(row[split] for row in shown["classes"] for split in SPLITS) == 50
    assert any("only the first 50 rows" in note for note in shown["notes"])
    whole = json.loads(valence("data", "show", path, "--rows", 90, "--json")[1])
    assert not any("only the first" in note for note in whole["notes"])


def test_data_show_refuses_300_000_columns_at_once(tmp_path: Path, valence: Any) -> None:
    path = tmp_path / "a.csv"
    path.write_text(("x," * 300_000 + "\n") * 3)
    clock = time.monotonic()
    code, _, error = valence("data", "show", path)
    assert (code, "300001 columns" in error) == (1, True)
    assert time.monotonic() - clock < 10


def test_12_splits_are_those_of_the_rows_after_an_import_too(tmp_path: Path, valence: Any) -> None:
    path = tmp_path / "a.csv"
    names = (["train"] * 7 + ["valid"] + ["test"] * 2) * 9
    ROWS.assign(split=names).to_csv(path, index=False)
    database = f"sqlite:///{tmp_path / 'rows.db'}"
    code, _, error = valence("data", "import", path, "--to", database)
    assert code == 0, error
    data = load_dataset(DataSpec(name=database), seed=1)
    own = ROWS[[name == "test" for name in names]]
    assert set(data.test.texts) <= set(own["text"])
    assert len(data.validation) <= 9
