"""What ``kernel-ridge`` costs by the number of rows: processor seconds and peak memory.

Rows are those of a CSV (columns ``text`` and ``label``); where it has too few, halves of two texts
of a class follow. ``--set`` gives settings, ``ridge.views=text`` for n-grams alone; with an encoder
a second run of the same rows finds its features in the cache. The last column is the exponent
by which the processor seconds beyond those of the smallest size grow from one size to the next:
1 is linear.

    python benchmarks/fit.py tweets.csv [--sizes 1000,3000,10000] [--set ridge.views=text]
                             [--twice] [--before OLD/src]
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile

from commands import Cost, measured, rows_of, sources

SIZES = "1000,3000,10000,30000,100000"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--twice", action="store_true", help="again, with cached features")
    parser.add_argument("--before", help="src folder of an earlier version")
    options = parser.parse_args()
    settings = [word for one in options.set for word in ("--set", one)]
    costs: dict[str, list[tuple[int, Cost]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VALENCE_CACHE"] = f"{folder}/cache"
        path = f"{folder}/rows.csv"
        for count in map(int, options.sizes.split(",")):
            rows_of(options.file, count).to_csv(path, index=False)
            for name, source in sources(options.before).items():
                for again in ("", ", cached")[: 1 + options.twice]:
                    key = f"{name}{again}"
                    out = f"{folder}/{count}-{len(costs)}-{key}"
                    words = ["train", path, "--method", "kernel-ridge", "--out", out, "--quiet"]
                    cost = measured([*words, "--runs", f"{out}-runs", *settings], source)
                    costs.setdefault(key, []).append((count, cost))
                    print(f"{count} rows, {key}: {cost}{_growth(costs[key])}", flush=True)


def _growth(costs: list[tuple[int, Cost]]) -> str:
    if len(costs) < 3:
        return ""
    base = costs[0][1].cpu_seconds
    (rows, cost), (more, other) = costs[-2:]
    ratio = (other.cpu_seconds - base) / max(0.1, cost.cpu_seconds - base)
    return f", grows by rows ** {math.log(max(ratio, 1e-9)) / math.log(more / rows):.2f}"


if __name__ == "__main__":
    main()
