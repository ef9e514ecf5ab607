"""Scoring tables as streams: every format, columns as they are, and going on after a kill."""

from __future__ import annotations

import copy
import csv
import json
import sqlite3
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import make_reviews
from valence.config.data import DataSpec
from valence.errors import DataError
from valence.inference.bulk.stream import StreamOptions, predict_file, predict_stream
from valence.inference.predictor import Predictor
from valence.methods.registry import make_spec
from valence.runs.runner import run
from valence.runs.store import RunStore

SMALL = StreamOptions(part_rows=16)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory, reviews: Path) -> Predictor:
    store = RunStore(tmp_path_factory.mktemp("runs"))
    spec = make_spec("tfidf-lr", DataSpec(name=str(reviews)))
    result = run(spec, store=store, keep_model=True)
    return Predictor(store.path(result.key) / "model")


ROWS = make_reviews(50, seed=4)


def write(folder: Path, suffix: str) -> str:
    path = folder / f"rows{suffix}"
    if suffix == ".db":
        with sqlite3.connect(path) as base:
            ROWS.to_sql("rows", base, index=False)
        base.close()
        return f"sqlite:///{path}"
    if suffix == ".parquet":
        ROWS.to_parquet(path, index=False)
    elif suffix == ".jsonl":
        ROWS.to_json(path, orient="records", lines=True)
    else:
        ROWS.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    return str(path)


def read(target: str) -> pd.DataFrame:
    if target.startswith("sqlite"):
        with sqlite3.connect(target.removeprefix("sqlite:///")) as base:
            found = pd.read_sql("select * from scored", base)
        base.close()
        return found
    if target.endswith(".parquet"):
        return pd.read_parquet(target)
    if target.endswith(".jsonl"):
        return pd.read_json(target, lines=True)
    return pd.read_csv(target, sep="\t" if target.endswith(".tsv") else ",")


KINDS = (".csv", ".tsv", ".jsonl", ".parquet", ".db")


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_every_kind_to_every_kind(
    predictor: Predictor, tmp_path: Path, source: str, target: str
) -> None:
    out = f"sqlite:///{tmp_path}/out.db" if target == ".db" else str(tmp_path / f"out{target}")
    report = predict_stream(predictor, write(tmp_path, source), out, options=SMALL)
    assert (report.rows, report.resumed) == (50, 0)
    found = read(out)
    assert list(found) == [
        "text", "label_given", "number", "label", "prob_bad", "prob_good", "prob_meh",
    ]  # fmt: skip
    assert list(found["text"]) == list(ROWS["text"])
    assert list(found["number"].astype(int)) == list(ROWS["number"])
    direct = predictor.table(list(ROWS["text"]))
    assert list(found["label"]) == list(direct["label"])
    np.testing.assert_allclose(found["prob_meh"].astype(float), direct["prob_meh"], atol=1e-6)
    assert not list(tmp_path.glob(".*")), "nothing is left beside the target"


def test_values_stay_as_they_are(predictor: Predictor, tmp_path: Path) -> None:
    odd = ['a "b", c', "line\nbreak", "NA", "", "007", "ﬁ 😀", "1.10"]
    with (tmp_path / "odd.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "x", "x", "prob_bad"])
        writer.writerows([["good film" if i % 2 else "", v, v, "p"] for i, v in enumerate(odd)])
    predict_stream(predictor, tmp_path / "odd.csv", tmp_path / "out.csv", options=SMALL)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head[:4] == ["text", "x", "x", "prob_bad_given"]
    assert [row[1] for row in rows] == odd
    assert [row[4] == "" for row in rows] == [i % 2 == 0 for i in range(len(odd))], "no text"
    with pytest.raises(DataError, match="several columns 'x'"):
        predict_stream(predictor, tmp_path / "odd.csv", tmp_path / "out.jsonl")


def test_json_keeps_types_and_uneven_columns(predictor: Predictor, tmp_path: Path) -> None:
    rows = [{"text": "good", "n": 1, "deep": {"a": [1]}}, {"text": "bad", "late": 2**60}] * 9
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for suffix in (".jsonl", ".csv", ".parquet"):
        options = StreamOptions(part_rows=1)
        predict_stream(predictor, path, tmp_path / f"out{suffix}", options=options)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [{k: r[k] for k in rows[i]} for i, r in enumerate(found)] == rows
    assert list(pd.read_csv(tmp_path / "out.csv", dtype=str)["late"].dropna()) == [str(2**60)] * 9
    assert pq.read_table(tmp_path / "out.parquet")["late"].to_pylist()[1] == 2**60


def test_parquet_keeps_its_types(predictor: Predictor, tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["good", "bad"],
            "day": pa.array([datetime(2024, 1, 2), None], pa.timestamp("ns")),
            "tags": pa.array([["a"], None], pa.list_(pa.string())),
            "kind": pa.array(["x", "y"]).dictionary_encode(),
            "whole": pa.array([1, None], pa.int16()),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    predict_stream(predictor, tmp_path / "rows.parquet", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").select(table.column_names) == table


class Killed(BaseException):
    """Ends a job as a kill would: nothing that follows is carried out."""


def killed_after(predictor: Predictor, rows: int, *paths: Path, resume: bool | None = None) -> None:
    def told(done: int, _: int) -> None:
        if done >= rows:
            raise Killed

    options = StreamOptions(part_rows=16, resume=resume)
    with pytest.raises(Killed):
        predict_stream(predictor, *paths, options=options, progress=told)


@pytest.mark.parametrize("long", ["cut", "windows"])
def test_progress_counts_rows_up_to_all(
    predictor: Predictor, tmp_path: Path, long: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows without a text, and texts in several windows, count as one row each."""
    monkeypatch.setattr(predictor, "long", long)
    source = tmp_path / "rows.csv"
    texts = ["", "good film " * 200, "bad plot", "really good room"] * 10
    pd.DataFrame({"text": texts}).to_csv(source, index=False)
    seen: list[tuple[int, int]] = []
    predict_stream(
        predictor, source, tmp_path / "out.csv", options=StreamOptions(part_rows=16),
        progress=lambda *now: seen.append(now),
    )  # fmt: skip
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert all(0 <= done <= total for done, total in seen)
    assert seen[-1] == (40, 40)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_goes_on_after_a_kill(
    predictor: Predictor, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Path(write(tmp_path, suffix)), tmp_path / f"out{suffix}"
    predict_file(predictor, paths[0], tmp_path / f"whole{suffix}")
    killed_after(predictor, 30, *paths)
    assert not paths[1].exists()
    parts = tmp_path / f".out{suffix}.parts"
    assert len(list(parts.glob(f"part-*{suffix}"))) == 2
    with pytest.raises(DataError, match="continue with --resume"):
        predict_stream(predictor, *paths, options=SMALL)
    (parts / f"part-000001{suffix}").write_bytes(b"half a pa")  # what a full disk may leave
    scored: list[int] = []
    columns = predictor.columns
    monkeypatch.setattr(
        predictor, "columns", lambda texts, told: scored.append(len(texts)) or columns(texts, told)
    )
    report = predict_stream(predictor, *paths, options=StreamOptions(part_rows=16, resume=True))
    assert (report.rows, report.resumed, sum(scored)) == (50, 16, 34)
    assert read(str(paths[1])).equals(read(str(tmp_path / f"whole{suffix}")))
    assert not parts.exists()


def test_two_processes_do_not_write_one_target(predictor: Predictor, tmp_path: Path) -> None:
    source, out = write(tmp_path, ".csv"), tmp_path / "out.csv"
    told: list[str] = []

    def again(done: int, total: int) -> None:
        if told:
            return
        second = subprocess.run(
            [sys.executable, "-m", "valence", "predict", str(predictor.folder), source,
             "--out", str(out)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        told.append(f"{second.returncode} {second.stderr}")

    predict_stream(predictor, source, out, options=SMALL, progress=again)
    assert told[0].startswith("1 ")
    assert "Another process is writing" in told[0]
    assert len(pd.read_csv(out)) == len(ROWS)
    assert {path.name for path in tmp_path.iterdir()} == {"rows.csv", "out.csv"}
    predict_stream(predictor, source, out, options=SMALL)


def test_other_rows_or_options_are_not_gone_on_from(predictor: Predictor, tmp_path: Path) -> None:
    paths = Path(write(tmp_path, ".csv")), tmp_path / "out.csv"
    killed_after(predictor, 30, *paths)
    with pytest.raises(DataError, match="another part size"):
        predict_stream(predictor, *paths, options=StreamOptions(part_rows=8, resume=True))
    lines = paths[0].read_text().splitlines(keepends=True)
    paths[0].write_text("".join([*lines, lines[3]]))
    with pytest.raises(DataError, match="another source"):
        predict_stream(predictor, *paths, options=StreamOptions(part_rows=16, resume=True))
    report = predict_stream(predictor, *paths, options=SMALL)  # useless parts stand in no way
    assert (report.rows, report.resumed) == (51, 0)


def test_another_prior_calibration_or_precision_is_not_gone_on_from(
    predictor: Predictor, tmp_path: Path
) -> None:
    """Else one file would hold rows of two priors, as it did."""
    paths = Path(write(tmp_path, ".csv")), tmp_path / "out.csv"
    fitted = predictor.calibration
    shares = {"bad": 0.98, "good": 0.01, "meh": 0.01}
    options = StreamOptions(part_rows=16, resume=True)
    changes = {
        "target prior": {"calibration": fitted.with_target_prior(shares)},
        "calibration": {"calibration": fitted.model_copy(update={"temperature": 2.0})},
        "precision": {"model": SimpleNamespace(precision="bf16")},
        "long": {"long": "windows"},
    }
    killed_after(predictor, 30, *paths)
    for what, change in changes.items():
        other = copy.copy(predictor)
        vars(other).update(change)
        with pytest.raises(DataError, match=f"made with another {what},"):
            predict_stream(other, *paths, options=options)
    report = predict_stream(predictor, *paths, options=options)
    assert (report.rows, report.resumed) == (50, 32)


def test_a_file_of_another_encoding_is_scored_and_named(
    predictor: Predictor, tmp_path: Path
) -> None:
    text = "text,place\ngood film,Zürich\nbad film,Genève\n"
    for name, encoding in (("latin.csv", "latin-1"), ("wide.csv", "utf-16")):
        (tmp_path / name).write_text(text, encoding=encoding)
        options = StreamOptions(encoding=encoding)
        predict_stream(predictor, tmp_path / name, tmp_path / "out.csv", options=options)
        assert list(pd.read_csv(tmp_path / "out.csv")["place"]) == ["Zürich", "Genève"]
    with pytest.raises(DataError, match=r"latin\.csv, line 2: not UTF-8, .*--encoding cp1252"):
        predict_stream(predictor, tmp_path / "latin.csv", tmp_path / "out.csv")
    options = StreamOptions(encoding="ascii")
    with pytest.raises(DataError, match=r"line 2: not ascii; set its encoding with --encoding"):
        predict_stream(predictor, tmp_path / "latin.csv", tmp_path / "out.csv", options=options)


def test_changed_database_is_seen(predictor: Predictor, tmp_path: Path) -> None:
    source = write(tmp_path, ".db")
    killed_after(predictor, 30, source, tmp_path / "out.csv")  # type: ignore[arg-type]
    with sqlite3.connect(tmp_path / "rows.db") as base:
        base.execute("update rows set text = 'other' where number = 3")
    base.close()
    options = StreamOptions(part_rows=16, resume=True)
    with pytest.raises(DataError, match="has changed since the 32 rows"):
        predict_stream(predictor, source, tmp_path / "out.csv", options=options)


BROKEN = {
    "more values": ("text,a\ngood,1\nbad,2,3\n", "line 3 has 3 values and the first line 2"),
    "open quote": ('text,a\ngood,1\n"bad,2\nfine,3\n', 'quote " in line 3 is never closed'),
    "no rows": ("text,a\n", "has no rows"),
    "no text": ("words,a\ngood,1\n", "which column holds the texts"),
    "empty": ("", "is empty"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_source_is_one_line_and_leaves_nothing(
    predictor: Predictor, tmp_path: Path, case: str
) -> None:
    content, expected = BROKEN[case]
    (tmp_path / "rows.csv").write_text(content)
    with pytest.raises(DataError, match=expected):
        predict_stream(predictor, tmp_path / "rows.csv", tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_table_that_is_there_is_not_touched(predictor: Predictor, tmp_path: Path) -> None:
    source = write(tmp_path, ".db")
    options = StreamOptions(to_table="rows")
    with pytest.raises(DataError, match="--to-table"):
        predict_stream(predictor, source, source, options=options)
    options = StreamOptions(to_table="labelled", query="select text, number from rows")
    assert predict_stream(predictor, source, source, options=options).rows == 50


def test_memory_does_not_grow_with_the_file(predictor: Predictor, tmp_path: Path) -> None:
    held: list[int] = []

    class Watched:
        folder, long, truncated = predictor.folder, "cut", 0
        calibration, precision = predictor.calibration, "fp32"
        config = predictor.config

        def columns(self, texts: list[str], told: object) -> dict[str, list[object]]:
            held.append(len(texts))
            return {"label": ["good"] * len(texts)}

    text = "x" * 1_000_000
    (tmp_path / "rows.csv").write_text("text\n" + f"{text}\n" * 30)
    predict_stream(Watched(), tmp_path / "rows.csv", tmp_path / "out.csv")  # type: ignore[arg-type]
    assert max(held) <= 9, "long texts make small parts"
