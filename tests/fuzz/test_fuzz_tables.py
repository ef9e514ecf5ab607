"""CSV, JSONL and Parquet of any shape: rows or one line, soon; no row is made of several."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pandas as pd
import pytest

from tests.fuzz.changes import FEW, MANY, changed_bytes, outcomes_of, tried
from valence.config.data import DataSpec
from valence.data.sources import load_dataset
from valence.data.tables import read_table
from valence.errors import ValenceError
from valence.inference.bulk.readers import open_source

COUNTS = [FEW, pytest.param(MANY, marks=pytest.mark.slow)]
WORDS = [
    "good", "bad", "film", "größer", "🙂", "a,b", "x;y", 'say "yes"', "tab\there", "two\nlines",
    "\u2028", "\x00", "\u200b", "'", "NA", "null", "", " ", "1", "1.0", "−1", "①", "nan", "inf",
    "x" * 3000, "=1+1", "\ufeff", "e\u0301",
]  # fmt: skip
PIECES = [
    b'"', b'""', b",", b";", b"\t", b"|", b"\n", b"\r\n", b"\r", b"\x00", b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"sep=;\n", b'",', b'\n"', b"\xe9", b"\x92", b"text", b"label", b"9" * 5000, b"1e999",
    b"{", b"}",
    b"[" * 300, b"[" * 60_000, b'{"a":' * 2000, b"\\ud83d", b"\\u0000", b"NaN", b"null", b"true",
    b"," * 400, b"\x1f\x8b", b"PAR1", b"<html>",
]  # fmt: skip


def rows(draw: random.Random) -> list[dict[str, object]]:
    """Rows with a text, a label and now and then other columns."""
    labels = draw.choice(
        [["neg", "pos"], [0, 1, 2], [1, 1.0, "1"], [True, False], ["a", ["a"], None]]
    )
    own = []
    for _ in range(draw.randint(0, 40)):
        row: dict[str, object] = {
            "text": " ".join(draw.choices(WORDS, k=draw.randint(0, 8))),
            "label": draw.choice(labels),
        }
        if draw.random() < 0.1:
            row[draw.choice(WORDS)] = draw.choice([None, 1, "x", [1], {"a": 1}])
        own.append(row)
    return own


def csv_of(draw: random.Random) -> bytes:
    frame = pd.DataFrame(rows(draw) or [{"text": "a", "label": "b"}])
    text = frame.to_csv(
        index=False, sep=draw.choice(",,,;\t|"), header=draw.random() < 0.9,
        lineterminator=draw.choice(["\n", "\r\n"]),
    )  # fmt: skip
    return text.encode(draw.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252"]), "replace")


def jsonl_of(draw: random.Random) -> bytes:
    own = rows(draw)
    return "\n".join(json.dumps(r, ensure_ascii=draw.random() < 0.5) for r in own).encode(
        "utf-8", "replace"
    )


def parquet_of(draw: random.Random) -> bytes:
    own = rows(draw) or [{"text": "a", "label": "b"}]
    frame = pd.DataFrame(
        {"text": [r["text"] for r in own], "label": [str(r["label"]) for r in own]}
    )
    kind = draw.choice(["str", "category", "Int64", "boolean", "datetime64[ns]"])
    if kind == "category":
        frame["label"] = frame["label"].astype(kind)
    elif kind != "str":
        values = draw.choices([0, 1, None], k=len(own))
        frame["label"] = pd.array(values, dtype="Int64") if kind != "boolean" else pd.array(
            values, dtype="boolean"
        )  # fmt: skip
    file = io.BytesIO()
    frame.to_parquet(file, compression=draw.choice(["none", "snappy", "zstd"]))
    return file.getvalue()


MADE = {
    ".csv": csv_of, ".tsv": csv_of, ".jsonl": jsonl_of, ".parquet": parquet_of,
}  # fmt: skip


def read_both_ways(path: Path) -> None:
    """As training data and as a stream, which must agree on the number of rows."""
    counts: dict[str, int] = {}
    refused: list[ValenceError] = []
    for name, count in (
        ("whole", lambda: len(read_table(path))),
        ("parts", lambda: sum(len(part) for part in open_source(str(path)).parts(7))),
        ("data", lambda: len(load_dataset(DataSpec(name=str(path))).classes)),
    ):
        try:
            counts[name] = count()
        except ValenceError as error:
            refused.append(error)
    if {"whole", "parts"} <= counts.keys():
        assert counts["whole"] == counts["parts"]
    if refused:
        raise refused[-1]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_any_table_is_rows_or_refused(suffix: str, count: int, tmp_path: Path) -> None:
    def one(draw: random.Random) -> str:
        name = ".tsv" if suffix == ".csv" and draw.random() < 0.2 else suffix
        path = tmp_path / f"rows{name}"
        raw = MADE[name](draw)
        path.write_bytes(raw if draw.random() < 0.3 else changed_bytes(raw, draw, PIECES))
        return tried(lambda: read_both_ways(path))

    assert outcomes_of(count, one) == {"value", "refused"}
