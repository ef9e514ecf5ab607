"""Real tweets as Parquet parts: Ray's prediction against the local one, row by row.

A linear layer on the mean features of the built-in encoder is fitted to some real tweets
(TweetEval) and exported to 8-bit ONNX. The test tweets, with an id each, go into Parquet parts.
They are scored into a folder by the command line: by one process; by Ray; by Ray again, whose
workers are killed (SIGKILL) when a third of the parts is done; by Ray once more, where the
whole command is killed and given again with --resume. Every scored row is compared with the local
one. Times are of the wall and include all starting.

    python benchmarks/ray_predict.py [--parts 12] [--workers 2] [--data-dir FOLDER]
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

TRAIN_ROWS, CHOICE_ROWS = 2000, 500
PROBABILITIES = "prob_"


def prepared(folder: Path, data_dir: Path, parts: int) -> tuple[Path, Path]:
    """The folder of parts, and an exported model."""
    from valence.config.data import DataSpec
    from valence.data.sources import load_dataset
    from valence.inference.export.export import ExportOptions, export_model
    from valence.methods.fit import fit_spec
    from valence.methods.registry import make_spec

    whole = load_dataset(DataSpec(name="tweeteval"), seed=45, data_dir=data_dir)
    draw = np.random.default_rng(0)
    data = replace(
        whole,
        train=whole.train.take(draw.permutation(len(whole.train))[:TRAIN_ROWS]),
        validation=whole.validation.take(draw.permutation(len(whole.validation))[:CHOICE_ROWS]),
    )
    model = fit_spec(
        make_spec("linear-probe", DataSpec(name="tweeteval")), data.without_test()
    ).model
    model.save(folder / "torch")
    options = ExportOptions(int8=True, max_drop=100.0)
    export_model(folder / "torch", folder / "int8", data, options=options)
    rows = pd.DataFrame({"id": range(len(whole.test)), "text": whole.test.texts})
    (folder / "in").mkdir()
    for number, places in enumerate(np.array_split(np.arange(len(rows)), parts)):
        rows.iloc[places].to_parquet(folder / f"in/tweets-{number:03d}.parquet", index=False)
    return folder / "in", folder / "int8"


def command(model: Path, given: Path, out: Path, *more: str) -> list[str]:
    words = [sys.executable, "-m", "valence", "predict", str(model), f"{given}/*.parquet"]
    return [*words, "--out", str(out), "--threads", "1", "--quiet", *more]


def timed(words: list[str]) -> float:
    clock = time.perf_counter()
    subprocess.run(words, check=True)
    return time.perf_counter() - clock


def wait_for_parts(out: Path, count: int) -> None:
    while len(list(out.glob(".done/*.parquet.json"))) < count:
        time.sleep(0.02)


def with_killed_workers(words: list[str], out: Path, count: int) -> tuple[float, int]:
    """Seconds, and how many workers were killed when ``count`` parts were done."""
    clock = time.perf_counter()
    started = subprocess.Popen(words)
    wait_for_parts(out, count)
    workers = [
        process for process in psutil.Process(started.pid).children(recursive=True)
        if "ray::MapWorker" in " ".join(process.cmdline())
    ]  # fmt: skip
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
    if started.wait() != 0:
        raise SystemExit("the prediction did not get over the loss of its workers")
    return time.perf_counter() - clock, len(workers)


def with_killed_command(words: list[str], out: Path, count: int) -> tuple[float, int]:
    """Seconds of the second call, and how many parts it found done and left as they were."""
    started = subprocess.Popen(words)
    wait_for_parts(out, count)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    time.sleep(2)  # until Ray's own processes have seen it
    names = [path.name.removesuffix(".json") for path in out.glob(".done/*.parquet.json")]
    before = {name: (out / name).stat().st_mtime_ns for name in names}
    seconds = timed([*words, "--resume"])
    return seconds, sum((out / name).stat().st_mtime_ns == t for name, t in before.items())


def compared(given: Path, one: Path, other: Path) -> str:
    """What differs between two folders; counts and ids are held to the parts given."""
    labels, gap, rows = 0, 0.0, 0
    for path in sorted(given.glob("*.parquet")):
        source, a, b = (pd.read_parquet(folder / path.name) for folder in (given, one, other))
        if not list(source["id"]) == list(a["id"]) == list(b["id"]):
            raise SystemExit(f"{path.name}: rows were lost, doubled or moved")
        if not list(source["text"]) == list(b["text"]) or b["label"].isna().any():
            raise SystemExit(f"{path.name}: texts differ or have no label")
        shares = [name for name in a if name.startswith(PROBABILITIES)]
        rows += len(b)
        labels += int((a["label"] != b["label"]).sum())
        gap = max(gap, float((a[shares] - b[shares]).abs().to_numpy().max()))
    extra = {p.name for p in other.glob("*.parquet")} ^ {p.name for p in given.glob("*.parquet")}
    return f"{rows} rows, {labels} labels differ, largest gap of a probability {gap:g}, " + (
        f"files too many or too few: {sorted(extra)}" if extra else "every id once"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    given = parser.parse_args()
    third = max(1, given.parts // 3)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        parts, model = prepared(folder, given.data_dir, given.parts)
        ray = ("--engine", "ray", "--workers", str(given.workers))
        seconds = timed(command(model, parts, folder / "local"))
        print(f"local, one process:    {seconds:6.1f} s", flush=True)
        seconds = timed(command(model, parts, folder / "ray", *ray))
        print(f"Ray, {given.workers} workers:        {seconds:6.1f} s", flush=True)
        print("   ", compared(parts, folder / "local", folder / "ray"))
        out = folder / "killed"
        seconds, count = with_killed_workers(command(model, parts, out, *ray), out, third)
        print(f"Ray, {count} workers killed: {seconds:6.1f} s", flush=True)
        print("   ", compared(parts, folder / "local", out))
        out = folder / "again"
        seconds, kept = with_killed_command(command(model, parts, out, *ray), out, third)
        print(f"Ray, command killed, then --resume: {seconds:.1f} s, {kept} parts kept", flush=True)
        print("   ", compared(parts, folder / "local", out))


if __name__ == "__main__":
    main()
