"""Files into a folder: as one by one, whoever does it and whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.cluster import kill_all
from tests.conftest import make_reviews
from valence.config.data import DataSpec
from valence.distributed.device import Hardware
from valence.distributed.ray_cluster import Cluster
from valence.errors import DataError, ModelError, UnknownNameError
from valence.inference.bulk.engines import make_engine
from valence.inference.bulk.folder import (
    FolderJob,
    FolderProgress,
    FolderReport,
    find_tables,
    predict_folder,
)
from valence.inference.bulk.stream import predict_file
from valence.inference.predictor import Predictor
from valence.methods.registry import make_spec
from valence.runs.runner import run
from valence.runs.store import RunStore

ROWS = 9000  # of a file: three parts
FILES = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, reviews: Path) -> Path:
    store = RunStore(tmp_path_factory.mktemp("model") / "runs")
    result = run(make_spec("tfidf-lr", DataSpec(name=str(reviews))), store=store, keep_model=True)
    return store.path(result.key) / "model"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parquet files whose rows have ids that no other file has."""
    folder = tmp_path_factory.mktemp("parts")
    rows = pd.concat([make_reviews(500)] * (ROWS // 500), ignore_index=True).drop(columns="label")
    for number in range(FILES):
        own = rows.sample(frac=1, random_state=number)
        own["id"] = range(number * ROWS, (number + 1) * ROWS)
        own.to_parquet(folder / f"rows-{number}.parquet", index=False)
    return folder


@pytest.fixture(scope="module")
def wanted(model: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file scored by itself, as before there were folders."""
    folder = tmp_path_factory.mktemp("wanted")
    predictor = Predictor(model)
    for path in sorted(parts.iterdir()):
        predict_file(predictor, path, folder / path.name)
    return folder


def score(
    model: Path, parts: Path, out: Path, engine: str = "local", *, resume: bool | None = None,
    **more: object,
) -> FolderReport:  # fmt: skip
    job = FolderJob(model, out, Hardware(threads=1), **more)  # type: ignore[arg-type]
    made = make_engine(engine, Cluster(workers=2))
    return predict_folder(job, find_tables([str(parts)]), engine=made, resume=resume)


def check_same(out: Path, wanted: Path) -> None:
    names = sorted(path.name for path in wanted.iterdir())
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == names
    assert not list(out.glob(".*.parts"))
    for name in names:
        pd.testing.assert_frame_equal(pd.read_parquet(out / name), pd.read_parquet(wanted / name))
    ids = pd.concat([pd.read_parquet(out / name)["id"] for name in names])
    assert sorted(ids) == list(range(FILES * ROWS))


def test_local_is_as_one_by_one_and_goes_on(
    model: Path, parts: Path, wanted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    seen: list[FolderProgress] = []
    job = FolderJob(model, out, Hardware(threads=1))
    engine = make_engine("local")
    report = predict_folder(job, find_tables([str(parts)]), engine=engine, observer=seen.append)
    assert (report.rows, report.failures) == (FILES * ROWS, [])
    check_same(out, wanted)
    assert [now.fraction for now in seen] == sorted(now.fraction for now in seen)
    assert (seen[-1].done, seen[-1].fraction, seen[-1].rows) == (FILES, 1.0, FILES * ROWS)
    with pytest.raises(DataError, match=f"{FILES * ROWS} rows are already done"):
        score(model, parts, out)
    (out / "rows-1.parquet").write_bytes(b"damaged")
    (out / "rows-2.parquet").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    again = score(model, parts, out, resume=True)
    assert sum(file.before for file in again.files) == (FILES - 2) * ROWS
    check_same(out, wanted)
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"rows-1.parquet", "rows-2.parquet"}
    with pytest.raises(DataError, match="made with another long"):
        score(model, parts, out, resume=True, long="windows")


def wait_for(pattern: str, folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob(pattern)):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_ray_loses_workers_and_no_row(
    model: Path, parts: Path, wanted: Path, tmp_path: Path, ray: Cluster
) -> None:
    out = tmp_path / "out"
    killed = []

    def kill() -> None:
        wait_for(".rows-*.parts/part-000000.json", out)
        killed.append(kill_all("ray::MapWorker"))

    killer = threading.Thread(target=kill)
    killer.start()
    report = score(model, parts, out, "ray")
    killer.join()
    assert killed[0] >= 1
    assert (report.rows, report.failures) == (FILES * ROWS, [])
    assert sum(file.before for file in report.files) >= 4096  # what the killed ones had done
    check_same(out, wanted)


def test_the_whole_is_killed_and_goes_on(
    model: Path, parts: Path, wanted: Path, tmp_path: Path
) -> None:
    """Any engine goes on from what another has done."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'valence[ray]'")
    out = tmp_path / "out"
    words = [sys.executable, "-m", "valence", "predict", str(model), f"{parts}/*.parquet"]
    words += ["--out", str(out), "--engine", "ray", "--workers", "1", "--quiet"]
    started = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_for(".done/rows-*.json", out)
    os.kill(started.pid, signal.SIGKILL)
    assert started.communicate() == ("", "")
    time.sleep(1)  # Ray ends its workers when it sees that nobody wants them
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert 1 <= len(kept) < FILES
    report = score(model, parts, out, "local", resume=True)
    assert sum(file.before for file in report.files) >= ROWS
    check_same(out, wanted)
    same = sum(path.stat().st_mtime_ns == changed for path, changed in kept.items())
    assert same >= len(kept) - 1  # one file may have lacked its record still


def test_broken_and_empty_files_do_not_stop_the_others(model: Path, tmp_path: Path) -> None:
    given = tmp_path / "in"
    given.mkdir()
    make_reviews(10).to_csv(given / "good.csv", index=False)
    make_reviews(10).to_json(given / "good.jsonl", orient="records", lines=True)
    make_reviews(0).to_csv(given / "empty.csv", index=False)
    (given / "broken.csv").write_text('text\n"never closed\n')
    report = score(model, given, tmp_path / "out")
    assert {Path(file.name).name: file.rows for file in report.files} == {
        "good.csv": 10, "good.jsonl": 10, "empty.csv": 0, "broken.csv": 0,
    }  # fmt: skip
    assert [Path(file.name).name for file in report.failures] == ["broken.csv"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*")) == [
        ".done", "good.csv", "good.jsonl"
    ]  # fmt: skip
    (given / "broken.csv").write_text("text\ngood film\n")
    make_reviews(12).to_csv(given / "good.csv", index=False)
    again = score(model, given, tmp_path / "out", resume=True)
    assert not again.failures
    assert {Path(f.name).name: f.before for f in again.files}["good.csv"] == 0
    assert len(pd.read_csv(tmp_path / "out/good.csv")) == 12
    assert len(pd.read_csv(tmp_path / "out/broken.csv")) == 1


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("target prior", {"target_prior": "bad=.98,good=.01,meh=.01"}),
        ("precision", {"hardware": Hardware(threads=1, precision="bf16")}),
        ("encoding", {"encoding": "latin-1"}),
        ("long", {"long": "windows"}),
    ],
)
def test_a_folder_of_another_job_is_not_gone_on_from(
    model: Path, tmp_path: Path, what: str, change: dict[str, Any]
) -> None:
    make_reviews(5).to_csv(tmp_path / "a.csv", index=False)
    job = FolderJob(model, tmp_path / "out", Hardware(threads=1))
    files = [tmp_path / "a.csv"]
    predict_folder(job, files, engine=make_engine("local"))
    with pytest.raises(DataError, match=f"made with another {what},"):
        predict_folder(replace(job, **change), files, engine=make_engine("local"), resume=True)


def test_what_cannot_be_done_is_said(model: Path, tmp_path: Path) -> None:
    for name in ("a/x.csv", "b/x.csv"):
        (tmp_path / name).parent.mkdir()
        make_reviews(3).to_csv(tmp_path / name, index=False)
    with pytest.raises(DataError, match="have the same name"):
        find_tables([str(tmp_path / "a"), str(tmp_path / "b")])
    with pytest.raises(DataError, match="does not exist"):
        find_tables([str(tmp_path / "none*.csv")])
    with pytest.raises(DataError, match="No tables found"):
        find_tables([str(tmp_path)])
    with pytest.raises(DataError, match="contains the input files"):
        score(model, tmp_path / "a", tmp_path / "a")
    with pytest.raises(ModelError):
        score(tmp_path / "no-model", tmp_path / "a", tmp_path / "out")
    with pytest.raises(UnknownNameError, match="did you mean 'ray'"):
        make_engine("rayy")
