"""Whether prototypes drift from their classes, from finished runs: one row a run.

Every training with prototypes records the cosine of each prototype with the mean feature of its
class. A row has the mean over classes at the first, the lowest and the last record, the class
that is last at its lowest with its training rows, and the rank correlation of the last cosines
with the class sizes.

    valence compare --config configs/trec-cpu.yaml --set data.imbalance_ratio=20 --methods sharprecl
    python benchmarks/prototypes.py [--runs runs]
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.stats import spearmanr

from valence.runs.store import RunResult, RunStore
from valence.training.diagnostics import COSINES, failure_signs, prototype_cosines

HEADS = (
    "corpus", "method", "seed", "first", "lowest", "last", "largest fall", "lowest class",
    "correlation with size", "macro-F1", "warned",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default="runs")
    store = RunStore(parser.parse_args().runs)
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    for result in store.all():
        history = store.history(result.key)
        if prototype_cosines(history):
            print(f"| {' | '.join(_cells(result, history))} |")


def _cells(result: RunResult, history: list[dict[str, object]]) -> list[str]:
    means = np.array([mean for _, mean, _ in prototype_cosines(history)])
    falls = np.maximum.accumulate(means) - means
    last = np.array([record for record in history if COSINES in record][-1][COSINES])
    worst = int(last.argmin())
    sizes = np.array(result.train_counts)
    correlation = f"{spearmanr(last, sizes).statistic:+.2f}" if len(sizes) > 2 else ""
    spec = result.spec
    return [
        spec.data.name, spec.method, str(spec.seed),
        *(f"{value:.2f}" for value in (means[0], means.min(), means[-1], falls.max())),
        f"{result.classes[worst]} ({sizes[worst]} rows): {last[worst]:.2f}", correlation,
        f"{result.test['macro_f1']:.3f}", "drift" if _warns(result, history) else "",
    ]  # fmt: skip


def _warns(result: RunResult, history: list[dict[str, object]]) -> bool:
    return any(sign.startswith("prototype drift") for sign in failure_signs(history, {}))


if __name__ == "__main__":
    main()
