"""What an audit costs, by the number of rows, and how many planted label errors it names.

Rows are those of a CSV (columns ``text`` and ``label``); where it has too few, halves of two texts
of a class follow. For the planted errors, 7% of 2,000 labels are changed at random; the budget of
5% per class bounds how many can be named. With ``--before``, an earlier version is run on the same
rows right before. Times are of the processor, so that other work beside it matters less.

    python benchmarks/audit.py tweets.csv [--sizes 3000,100000] [--before OLD/src] [--encoder NAME]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from commands import measured, rows_of, sources

PLANTED, CHANGED = 2000, 0.07


def with_errors(rows: pd.DataFrame) -> tuple[pd.DataFrame, set[int]]:
    """The rows with wrong labels among them, and which these are."""
    rng = np.random.default_rng(1)
    classes, ids = np.unique(rows["label"], return_inverse=True)
    wrong = rng.random(len(rows)) < CHANGED
    ids[wrong] = (ids[wrong] + rng.integers(1, len(classes), wrong.sum())) % len(classes)
    return rows.assign(label=classes[ids]), set(np.flatnonzero(wrong).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--sizes", default="3000,100000")
    parser.add_argument("--before", help="src folder of an earlier version")
    parser.add_argument("--encoder", help="judge labels by this encoder too")
    options = parser.parse_args()
    more = ["--encoder", options.encoder] if options.encoder else []
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "rows.csv", Path(folder) / "audit"
        for count in map(int, options.sizes.split(",")):
            rows_of(options.file, count).to_csv(path, index=False)
            for name, source in sources(options.before).items():
                print(f"{count} rows, {name}: {measured(['audit', str(path), *more], source)}")
        rows, wrong = with_errors(rows_of(options.file, PLANTED))
        rows.to_csv(path, index=False)
        for name, source in sources(options.before).items():
            measured(["audit", str(path), "--out", str(out), "--quiet", *more], source)
            named = set(pd.read_csv(out / "label-errors.csv")["row"])
            print(f"{len(wrong)} planted label errors, {name}: {len(named & wrong)} of the "
                  f"{len(named)} named rows are planted")  # fmt: skip


if __name__ == "__main__":
    main()
