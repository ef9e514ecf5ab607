"""What the benchmarks of commands share: rows of any number, and what a command costs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

SMALL_PARENT = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
child.returncode = os.waitstatus_to_exitcode(status)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(child.returncode)
"""
"""The peak of a process counts what its parent held when it was started."""


@dataclass(frozen=True)
class Cost:
    """Processor seconds (user and system) of a command, and the most memory it held."""

    cpu_seconds: float
    peak_mb: float

    def __str__(self) -> str:
        return f"{self.cpu_seconds:.1f} CPU s, {self.peak_mb:.0f} MB"


def measured(words: list[str], source: str | None = None) -> Cost:
    """Run ``valence`` with some words in a process of its own.

    Args:
        words: Command and options.
        source: The ``src`` folder to run; that on the path when None.
    """
    environment = dict(os.environ, **({"PYTHONPATH": source} if source else {}))
    done = subprocess.run(
        [sys.executable, "-c", SMALL_PARENT, sys.executable, "-m", "valence", *words],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"valence {' '.join(words)} ended with {done.returncode}")
    seconds, kilobytes = map(float, done.stdout.split())
    return Cost(seconds, kilobytes / 1024)


def rows_of(file: str, count: int, seed: int = 0) -> pd.DataFrame:
    """``count`` rows with the columns text and label.

    Those of the file in random order; after the last of them, halves of two texts of a class.
    """
    rng = np.random.default_rng(seed)
    table = pd.read_csv(file, dtype=str)[["text", "label"]].dropna()
    table = table.sample(frac=1, random_state=seed).reset_index(drop=True)
    parts = [table[:count]]
    missing = count - len(table)
    if missing > 0:
        firsts = rng.integers(len(table), size=missing)
        places = {label: rows.index.to_numpy() for label, rows in table.groupby("label")}
        labels = table["label"].to_numpy()[firsts]
        seconds = [int(rng.choice(places[label])) for label in labels]
        texts = [
            " ".join([*one.split()[: len(one.split()) // 2], *two.split()[len(two.split()) // 2 :]])
            for one, two in zip(table["text"][firsts], table["text"][seconds], strict=True)
        ]
        parts.append(pd.DataFrame({"text": texts, "label": labels}))
    return pd.concat(parts, ignore_index=True)


def sources(before: str | None) -> dict[str, str | None]:
    """The versions to compare, by name."""
    return {"now": None} if before is None else {"before": str(Path(before)), "now": None}
