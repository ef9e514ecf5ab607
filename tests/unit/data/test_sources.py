"""Loading rows: every format, every bad input a one-line error, splits and cuts as asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.features import mmsa, write_mmsa
from valence.audit.checks import read_source
from valence.config.data import DataSpec
from valence.data.sources import load_dataset, load_split
from valence.data.sql import import_rows
from valence.data.tables import open_hub
from valence.errors import DataError, SpecError, UnknownNameError, ValenceError

ROWS = pd.DataFrame(
    {
        "text": [f"text number {i}, with a comma" for i in range(60)],
        "label": ["good"] * 40 + ["bad"] * 15 + ["so-so"] * 5,
    }
)


def load(path: Path, **fields: object):
    return load_dataset(DataSpec(name=str(path), **fields), seed=3)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    write = {
        "csv": lambda: ROWS.to_csv(path, index=False),
        "tsv": lambda: ROWS.to_csv(path, index=False, sep="\t"),
        "jsonl": lambda: ROWS.to_json(path, orient="records", lines=True),
        "parquet": lambda: ROWS.to_parquet(path),
    }
    write[suffix]()
    data = load(path)
    texts = [*data.train.texts, *data.validation.texts, *data.test.texts]
    assert sorted(texts) == sorted(ROWS["text"])
    assert data.classes == ("bad", "good", "so-so")
    labels = dict(zip(ROWS["text"], ROWS["label"], strict=True))
    for split in (data.train, data.validation, data.test):
        assert [data.classes[y] for y in split.labels] == [labels[t] for t in split.texts]
        assert len(np.unique(split.labels)) == 3
    assert any("test split drawn at random" in note for note in data.notes)


def test_folder_with_dev_and_other_columns(tmp_path: Path) -> None:
    table = ROWS.rename(columns={"text": "Review", "label": "stars"}).assign(language="en")
    for name in ("train", "dev", "test"):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    data = load(tmp_path, text_column="Review", label_column="stars")
    assert (len(data.train), len(data.validation), len(data.test)) == (60, 60, 60)
    assert data.notes == ()
    assert set(data.train.extra["language"]) == {"en"}
    assert (
        len(load_split(DataSpec(name=str(tmp_path), label_column="stars"), data.classes).rows) == 60
    )


def numbers(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"text {i}" for i in range(rows)], "label": np.arange(rows) / 9})


def test_a_model_is_held_to_all_rows_of_a_file(tmp_path: Path) -> None:
    """Those with numbers too, which were split as for a training."""
    numbers(100).to_csv(tmp_path / "numbers.csv", index=False)
    spec = DataSpec(name=str(tmp_path / "numbers.csv"), target="intensity")
    for split in ("test", "train", "validation"):
        loaded = load_split(spec, (), split=split)
        assert (len(loaded.rows), loaded.split) == (100, "all")
        assert str(loaded) == f"100 rows of {spec.name}"
    assert loaded.rows.labels.tolist() == pytest.approx((np.arange(100) / 9).tolist())
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    loaded = load_split(DataSpec(name=str(tmp_path / "rows.csv")), ("bad", "good", "so-so"))
    assert (len(loaded.rows), loaded.split) == (60, "all")


def test_a_model_is_held_to_one_split_of_several(tmp_path: Path) -> None:
    for name, rows in (("train", 30), ("dev", 20), ("test", 10)):
        numbers(rows).to_csv(tmp_path / f"{name}.csv", index=False)
    spec = DataSpec(name=str(tmp_path), target="intensity")
    sizes = {s: len(load_split(spec, (), split=s).rows) for s in ("train", "validation", "test")}
    assert sizes == {"train": 30, "validation": 20, "test": 10}
    assert str(load_split(spec, ())) == f"10 rows of {tmp_path} (test)"
    numbers(10).assign(mode=["test"] * 4 + ["TRAIN "] * 6).to_csv(tmp_path / "m.csv", index=False)
    moded = spec.model_copy(update={"name": str(tmp_path / "m.csv")})
    assert [len(load_split(moded, (), split=s).rows) for s in ("test", "train")] == [4, 6]
    with pytest.raises(DataError, match="has no validation split; it has train, test"):
        load_split(moded, (), split="validation")
    with pytest.raises(UnknownNameError, match="Unknown split 'tests'; did you mean 'test'"):
        load_split(spec, (), split="tests")
    archive = DataSpec(name=str(write_mmsa(tmp_path / "a.pkl", mmsa(7))), target="intensity")
    loaded = load_split(archive, (), split="validation")
    assert (len(loaded.rows), loaded.rows.features is not None) == (7, True)
    classes = load_split(archive.model_copy(update={"target": "classes"}), ("Positive", "Negative"))
    assert len(classes.rows) == 7
    with pytest.raises(SpecError, match="features have no groups"):
        load_split(archive.model_copy(update={"group": "speaker"}), ())


def test_a_model_knows_the_rows_of_the_built_in_corpus_by_name() -> None:
    own = load_dataset(DataSpec())
    turned = (*own.classes[::-1], "more")
    loaded = load_split(DataSpec(), turned)
    names = [turned[label] for label in loaded.rows.labels]
    assert names == [own.classes[label] for label in own.test.labels]
    with pytest.raises(DataError, match="the model has the classes good, bad"):
        load_split(DataSpec(), ("good", "bad"))


def test_settings_that_cut_are_refused_where_a_model_is_held_to_rows(tmp_path: Path) -> None:
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    cut = DataSpec(name=str(tmp_path / "rows.csv"), train_total=9)
    with pytest.raises(SpecError, match=r"data\.train_total is for training"):
        load_split(cut, ("bad", "good", "so-so"))
    with pytest.raises(SpecError, match=r"an audit reads all rows, so remove it"):
        read_source(cut)
    with pytest.raises(SpecError, match=r"an import reads all rows, so remove it"):
        import_rows(cut, f"sqlite:///{tmp_path}/x.db")


def test_rows_of_groups_for_a_model(tmp_path: Path) -> None:
    table = ROWS.assign(place=["inn", "bar", ""] * 20)
    table.to_csv(tmp_path / "rows.csv", index=False)
    classes = ("bad", "good", "so-so")
    spec = DataSpec(name=str(tmp_path / "rows.csv"), group="place", groups=("bar",))
    loaded = load_split(spec, classes)
    assert (len(loaded.rows), loaded.group) == (20, "place")
    assert loaded.rows.ids[0] == "all-1", "the number of the row in the file"
    with pytest.raises(UnknownNameError, match="Unknown place 'bat'; did you mean 'bar'"):
        load_split(spec.model_copy(update={"groups": ("bat",)}), classes)
    with pytest.raises(DataError, match="no column 'plaice' for groups; did you mean 'place'"):
        load_split(spec.model_copy(update={"group": "plaice", "groups": None}), classes)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_files_of_other_encodings(tmp_path: Path, encoding: str, suffix: str) -> None:
    table = ROWS.assign(text=ROWS["text"] + " né à Zürich")
    path = tmp_path / f"rows.{suffix}"
    if suffix == "jsonl":
        text = table.to_json(orient="records", lines=True, force_ascii=False)
        path.write_text(text, encoding=encoding)
    else:
        table.to_csv(path, index=False, sep="," if suffix == "csv" else "\t", encoding=encoding)
    data = load(path, encoding=encoding)
    assert data.train.texts[0].endswith("né à Zürich")
    assert data.fingerprint == load(path, encoding=encoding, sample=60).fingerprint
    if encoding == "utf-16":  # its byte order mark says so
        assert load(path).fingerprint == data.fingerprint
        return
    with pytest.raises(DataError, match=rf"rows\.{suffix}.*: not UTF-8[;,]"):
        load(path)


def test_seed_decides_the_split_and_cut_seed_fixes_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    ROWS.to_csv(path, index=False)
    prints = [
        load_dataset(DataSpec(name=str(path), cut_seed=cut), seed=seed).fingerprint
        for cut, seed in ((None, 1), (None, 1), (None, 2), (5, 1), (5, 2))
    ]
    assert prints[0] == prints[1] != prints[2]
    assert prints[3] == prints[4]


def test_cuts_by_counts_total_and_ratio_leave_test_alone(tmp_path: Path) -> None:
    for name in ("train", "validation", "test"):
        ROWS.to_csv(tmp_path / f"{name}.csv", index=False)
    counts = load(tmp_path, train_counts={"good": 9, "bad": 4, "so-so": 1}, validation_per_class=5)
    assert counts.train.counts(3).tolist() == [4, 9, 1]
    assert counts.validation.counts(3).tolist() == [5, 5, 5]
    assert len(counts.test) == 60
    assert counts.tail == (2,)
    assert len(load(tmp_path, train_total=30).train) == 30
    assert load(tmp_path, imbalance_ratio=10).train.counts(3).tolist() == [13, 40, 4]


BAD = {
    "missing file": (None, {}, "does not exist"),
    "empty file": (b"", {}, "is empty"),
    "missing column": (b"body,label\na,x\n", {"text_column": "txt"}, "columns: body, label"),
    "no usual column": (b"body,label\na,x\n", {}, "Set it with --text-column"),
    "one class": (b"text,label\na,x\nb,x\nc,x\n", {}, "at least two classes"),
    "not utf-8": (b"text,label\na,x\n\xe9t\xe9,y\n", {}, "line 3: not UTF-8"),
    "unclosed quote": (b'text,label\n"a,x\nb,y\n', {}, "cannot be read as csv"),
    "too many fields": (b"text,label\na,x\nb,y,z,w\n", {}, "line 3"),
    "double column": (b"text,text,label\na,b,x\n", {}, "several columns are named 'text'"),
    "no rows": (b"text,label\n", {}, "no row has both"),
    "blank texts": (b"text,label\n ,x\n,y\n", {}, "no row has both"),
    "unknown class": (b"text,label\na,x\nb,y\n", {"classes": ("x", "z")}, "unknown label 'y'"),
    "count too large": (
        b"text,label\n" + b"".join(b"t%d,%s\n" % (i, b"xy"[i % 2 : i % 2 + 1]) for i in range(20)),
        {"train_counts": {"x": 99, "y": 1}},
        "99 were requested",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_one_line_with_what_where_and_what_to_do(tmp_path: Path, case: str) -> None:
    content, fields, words = BAD[case]
    path = tmp_path / "bad.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValenceError, match=words) as caught:
        load(path, **fields)
    message = str(caught.value)
    assert "\n" not in message
    assert "bad.csv" in message or "Class" in message


def test_broken_json_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n{"text": \n')
    with pytest.raises(DataError, match="line 2: not valid JSON"):
        load(path)


def test_measure_is_not_taken_for_classes(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    ROWS.assign(label=np.linspace(-3, 3, 60)).to_csv(path, index=False)
    with pytest.raises(DataError, match="looks like a measurement"):
        load(path)


def test_rows_without_text_or_label_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    table = ROWS.copy()
    table.loc[[0, 1], "text"] = ["", "   "]
    table.loc[50, "label"] = None
    table.to_csv(path, index=False)
    data = load(path)
    assert len(data.train) + len(data.validation) + len(data.test) == 57
    assert any("2 rows without text" in note and "row 1" in note for note in data.notes)
    assert any("1 rows without label" in note for note in data.notes)


def test_label_of_test_unknown_in_train(tmp_path: Path) -> None:
    ROWS.to_csv(tmp_path / "train.csv", index=False)
    ROWS.assign(label="weird").to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(DataError, match=r"\(test\), row 1: unknown label 'weird'; the classes are"):
        load(tmp_path)


def test_huge_cell_nul_and_words_that_look_like_missing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    texts = ["x" * 10_000_000, "nul\x00byte", "NA", "null"]
    rows = [{"text": t, "label": "ab"[i // 4 % 2]} for i, t in enumerate(texts * 4)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    data = load(path)
    kept = {t for s in (data.train, data.validation, data.test) for t in s.texts}
    assert kept == set(texts)
    csv = tmp_path / "rows.csv"
    pd.DataFrame([row for row in rows if row["text"] != texts[1]]).to_csv(csv, index=False)
    data = load(csv)
    assert {t for s in (data.train, data.validation, data.test) for t in s.texts} == kept - {
        texts[1]
    }


def test_integer_labels_stay_in_numeric_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    ROWS.assign(label=[10, 9, 2] * 20).to_csv(path, index=False)
    assert load(path).classes == ("2", "9", "10")


def test_unknown_name_answers_with_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="'tweeteval'"):
        load_dataset(DataSpec(name="tweet-eval"))


def test_hub_out_of_reach_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VALENCE_DATA", raising=False)
    with pytest.raises(DataError, match="--data-dir"):
        load_dataset(DataSpec(name="sst5"), data_dir=None)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("sst5", (8534, 1100, 2210)),
        ("tweeteval", (48667, 2000, 12284)),
        ("smp2020", (26659, 1992, 4972)),
    ],
)
def test_real_corpora(real_data: Path, name: str, sizes: tuple[int, ...]) -> None:
    data = load_dataset(DataSpec(name=name), data_dir=real_data)
    assert (len(data.train), len(data.validation), len(data.test)) == sizes


def test_real_published_cut(real_data: Path) -> None:
    counts = {
        "very positive": 600, "positive": 300, "neutral": 150, "negative": 80, "very negative": 20,
    }  # fmt: skip
    spec = DataSpec(name="sst5", train_counts=counts, validation_per_class=80)
    data = load_dataset(spec, seed=45, data_dir=real_data)
    assert data.train.counts(5).tolist() == [20, 80, 150, 300, 600]
    assert data.validation.counts(5).tolist() == [80] * 5
    assert len(data.test) == 2210
    assert data.tail == (0, 1)


def test_real_single_file(real_data: Path) -> None:
    data = load_dataset(DataSpec(name=str(real_data / "cr/all.csv")), seed=1)
    assert sum(len(s) for s in (data.train, data.validation, data.test)) == 3765


def test_hub_reader_names_the_splits(tmp_path: Path) -> None:
    """The library reads a local folder by the same call as a hub id."""
    for name in ("train", "test"):
        ROWS.to_csv(tmp_path / f"{name}.csv", index=False)
    tables = open_hub(str(tmp_path), None)
    assert set(tables) == {"train", "test"}
    assert list(tables["test"]["text"]) == list(ROWS["text"])
