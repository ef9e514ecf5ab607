"""Import and draw from 1.6 million short texts: rows a second and peak memory.

Writes a CSV file of generated tweets (one in twenty comes twice), imports it into SQLite with
the default cleaning, imports it again (nothing may be added), and draws 10,000 training rows
from the database and from the file. Each step runs in a process of its own, which prints its
peak memory over what it held before the step. Target: less than 1 GiB at every step.

Run it with ``python benchmarks/sql_import.py [rows]``.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from valence.config.data import DataSpec
from valence.data.sources import load_dataset
from valence.data.sql import import_rows
from valence.runs.provenance import peak_memory_mib, reset_peak_memory

ROWS, DRAWN, TARGET_MIB = 1_600_000, 10_000, 1024
WORDS = [a + b for a in ("ka", "lo", "mi", "nu", "pe", "ri", "so", "ta") for b in
         ("", "l", "n", "r", "s", "ndo", "ster", "lia", "mek", "vort")]  # fmt: skip


def write_rows(path: Path, rows: int) -> None:
    draw = random.Random(0)
    before = ""
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for i in range(rows):
            if i % 20 == 0 and before:
                file.write(before)
                continue
            words = " ".join(draw.choices(WORDS, k=draw.randint(5, 22)))
            link = f" https://t.co/{draw.getrandbits(40):x}" if i % 3 == 0 else ""
            before = f"@user{draw.randint(1, 99999)} {words} &amp; #fun{link},{'04'[i % 2]}\n"
            file.write(before)


def step(name: str, source: str, url: str) -> None:
    """One step, in a process of its own."""
    reset_peak_memory()
    baseline = peak_memory_mib("cpu")
    clock = time.perf_counter()
    if name in ("import", "import again"):
        report = import_rows(source, url)
        words = f"{report.added:,} added"
    else:
        data = load_dataset(DataSpec(name=url if name == "draw (SQL)" else source, sample=DRAWN))
        words = f"{len(data.train):,} training rows"
    seconds = time.perf_counter() - clock
    peak = peak_memory_mib("cpu") - baseline
    rows = int(os.environ["VALENCE_BENCH_ROWS"])
    verdict = "ok" if peak < TARGET_MIB else "TOO MUCH"
    print(f"{name:13} {seconds:7.1f} s {rows / seconds:9,.0f} rows/s  {words:24} "
          f"+{peak:.0f} MiB over {baseline:.0f} ({verdict})")  # fmt: skip


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as folder:
        source, url = Path(folder) / "tweets.csv", f"sqlite:///{folder}/tweets.db"
        write_rows(source, rows)
        print(f"{rows:,} rows, {source.stat().st_size / 2**20:.0f} MiB as CSV", flush=True)
        for name in ("import", "import again", "draw (SQL)", "draw (CSV)"):
            single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            environment = {**os.environ, **single, "VALENCE_BENCH_ROWS": str(rows)}
            words = [sys.executable, __file__, "--step", name, str(source), url]
            subprocess.run(words, check=True, env=environment)
        size = (Path(folder) / "tweets.db").stat().st_size
        print(f"database: {size / 2**20:.0f} MiB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        step(*sys.argv[2:])
    else:
        main()
