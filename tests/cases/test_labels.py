"""Labels of any type and spelling, and tables that are compressed."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from tests.cases.test_tables import ROWS, load, refused, size, streamed, texts
from valence.config.data import DataSpec
from valence.errors import DataError


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (pd.array([1, 2, None] * 30, dtype="Int64"), ("1", "2")),
        (pd.array([1.0, 2.0, None] * 30, dtype="Float64"), ("1", "2")),
        ([1.0, 2.0, None] * 30, ("1", "2")),
        (pd.array([True, False, None] * 30, dtype="boolean"), ("False", "True")),
        (pd.Categorical(["a", "b", None] * 30), ("a", "b")),
        (pd.Categorical([3, 4, None] * 30), ("3", "4")),
        (pd.to_datetime(["2026-01-01", "2026-02-01", None] * 30), ("2026-01-01", "2026-02-01")),
        ([b"a", "größer".encode(), None] * 30, ("a", "größer")),
    ],
)  # fmt: skip
def test_10_types_of_parquet_with_missing_cells(
    labels: object, classes: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    ROWS.assign(label=labels).to_parquet(path)
    data = load(path)
    assert data.classes == classes
    assert size(data) == 60
    assert any("30 rows without label left out" in note for note in data.notes)


def jsonl(path: Path, labels: list[object], texts_: list[object] | None = None) -> Path:
    """Rows with the given labels in turn."""
    rows = [
        {"text": (texts_ or list(ROWS["text"]))[i % len(texts_ or ROWS)],
         "label": labels[i % len(labels)]} for i in range(90)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_11_lists_of_one_are_unwrapped_and_said(tmp_path: Path) -> None:
    data = load(jsonl(tmp_path / "a.jsonl", [["neg"], ["pos"], "neg"]))
    assert data.classes == ("neg", "pos")
    assert any("read from a list of one value" in note for note in data.notes)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (["neg", "pos"], "the label of row 2 is a list of 2"),
        ({"value": "neg"}, "the label of row 2 is an object with 'value'"),
        ([{"value": "neg"}], "the label of row 2 is an object"),
    ],
)
def test_11_objects_and_several_labels_are_refused(odd: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        load(jsonl(tmp_path / "a.jsonl", ["neg", odd]))


def test_11_a_text_in_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the text of row 1 is a list of 3; join"):
        load(jsonl(tmp_path / "a.jsonl", ["neg", "pos"], [["a", "good", "film"]]))


@pytest.mark.parametrize("labels", [[1, 1.0, 2], ["1", "1.0", "2"], [1, "1.0", 2.0]])
def test_11_one_and_one_point_zero_are_one_class(labels: list[object], tmp_path: Path) -> None:
    data = load(jsonl(tmp_path / "a.jsonl", labels))
    assert data.classes == ("1", "2")
    if "1.0" in labels:
        assert any("are one class" in note for note in data.notes)


def test_11_half_a_character_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good \\ud83d", "label": "a"}\n{"text": "bad", "label": "b"}\n' * 20)
    assert texts(load(path)) == {"good \ufffd", "bad"}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "xlsx"])
def test_11_half_a_character_in_names_and_lists_is_replaced(
    suffix: str, tmp_path: Path, valence: Any
) -> None:
    rows = [json.dumps({"text": f"film {i}", "label": "ab"[i % 2]}) for i in range(40)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    valence("train", tmp_path / "train.jsonl", "--method", "tfidf-lr", "--out", tmp_path / "model")
    odd = {"text": "film", "note \ud800": "\udc00", "tags": [{"a\ud801": "b\ud801"}]}
    (tmp_path / "new.jsonl").write_text(json.dumps(odd) + "\n")
    out = tmp_path / f"scored.{suffix}"
    valence("predict", tmp_path / "model", tmp_path / "new.jsonl", "--out", out)
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        "csv": pd.read_csv, "parquet": pd.read_parquet,
        "xlsx": lambda path: pd.read_excel(path, engine="openpyxl"),
        "jsonl": lambda path: pd.read_json(path, lines=True),
    }  # fmt: skip
    frame = readers[suffix](out)
    assert list(frame["note \ufffd"]) == ["\ufffd"]
    assert "a\ufffd" in str(frame["tags"][0])


SPELLED = [
    "neg",
    "neg",
    "Neg",
    "neg\u200b",
    " neg ",
    "ne\u0301g",
    "n\u00e9g",
    "n\u00e9g",
    "pos",
    "pos",
]


def test_15_spellings_of_a_label_are_said_and_normalized(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    ROWS.assign(label=SPELLED * 9).to_csv(path, index=False)
    data = load(path)
    assert len(data.classes) == 6
    note = next(note for note in data.notes if "--normalize-labels" in note)
    assert "'Neg' and 'neg'" in note
    assert load(path, normalize_labels=True).classes == ("neg", "n\u00e9g", "pos")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["yes", "no"], ("no", "yes")), (["001", "010"], ("001", "010")),
        (["1.0", "2.0"], ("1.0", "2.0")), (["on", "off"], ("off", "on")),
        (["①", "②"], ("①", "②")), (["-2", "--2"], ("--2", "-2")), (["-1", "+1"], ("-1", "+1")),
        (["²", "½"], ("²", "½")),
        (["bad\nvery", "<b>good</b>|/.."], ("<b>good</b>|/..", "bad\nvery")),
    ],
)  # fmt: skip
def test_09_16_26_labels_are_read_as_they_are(
    labels: list[str], classes: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    ROWS.assign(label=labels * 45).to_csv(path, index=False)
    assert load(path).classes == classes


def test_16_the_error_on_a_tail_says_to_quote_it() -> None:
    from valence.config.overrides import parse_setting
    from valence.config.spec import build
    from valence.errors import SpecError

    path, value = parse_setting("data.tail=[no]")
    with pytest.raises(SpecError, match="quote"):
        build(DataSpec, {"name": "demo", path.removeprefix("data."): value})


PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
    ".zst": lambda raw: pa.compress(raw, codec="zstd", asbytes=True),
}  # fmt: skip


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("inner", [".csv", ".jsonl"])
def test_18_compressed_tables_are_read(suffix: str, inner: str, tmp_path: Path) -> None:
    path = tmp_path / f"reviews{inner}{suffix}"
    text = (
        ROWS.to_csv(index=False) if inner == ".csv" else ROWS.to_json(orient="records", lines=True)
    )
    path.write_bytes(PACKED[suffix](text.encode()))
    data = load(path)
    assert (data.name, size(data), streamed(path)) == ("reviews", 90, 90)
    path.write_bytes(path.read_bytes()[:-20])
    assert refused(path, "cannot be unpacked|cannot be read")
    path.write_bytes(text.encode())
    assert refused(path, "cannot be unpacked|cannot be read")


def test_18_a_zip_of_one_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "reviews.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner/reviews.csv", ROWS.to_csv(index=False))
    assert size(load(path)) == streamed(path) == 90
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more.csv", "text,label\n")
    assert refused(path, "contains 2 files")


def test_18_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv.gz"
    path.write_bytes(gzip.compress(b"text,label\n" + b"a" * (1 << 27)))
    assert refused(path, "unpacks to more than 200 times its size")


def test_18_a_folder_of_compressed_splits(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(ROWS.to_csv(index=False).encode()))
    assert len(load(tmp_path).test) == 90


def test_22_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    frame = pd.concat([ROWS, ROWS["label"]], axis=1)
    frame.to_csv(path, index=False)
    with pytest.raises(DataError, match="several columns are named 'label'"):
        load(path)
    frame.set_axis(["text", "label", "note"], axis=1).to_csv(path, index=False)
    assert list(load(path).train.extra.columns) == ["note"]


def test_27_a_label_that_training_lacks_is_named_with_its_row(tmp_path: Path) -> None:
    ROWS.to_csv(tmp_path / "train.csv", index=False)
    ROWS.assign(label=[*ROWS["label"][:50], "weird", *ROWS["label"][51:]]).to_csv(
        tmp_path / "test.csv", index=False
    )
    with pytest.raises(
        DataError, match=r"\(test\), row 51: unknown label 'weird'; the classes are"
    ):
        load(tmp_path)


@pytest.mark.parametrize("about", [b"{}", b"[]", b'{"index_columns": [{"kind": "range"}]}', b"x"])
def test_10_what_pandas_wrote_beside_the_types_may_be_broken(about: bytes, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(ROWS).replace_schema_metadata({b"pandas": about})
    pq.write_table(table, tmp_path / "a.parquet")
    assert texts(load(tmp_path / "a.parquet")) == set(ROWS["text"])
