"""How the features of methods separate the test rows, from finished runs: one table a set-up.

Means over seeds. Δ is the measure less that of the baseline with its 95% interval from a paired
jackknife: the test rows of every class are dealt into groups, and each group is left out once.
Rows are not drawn twice, as a bootstrap does, because a row beside its copy is closer to the mean
of its class than it would be. * marks an interval without zero.

    valence compare --config configs/sst5-1150-cpu.yaml --methods lora-balanced,hy-mora
    python benchmarks/representations.py --baseline lora-balanced [--runs runs] [--groups 50]
"""

from __future__ import annotations

import argparse

import numpy as np

from valence.comparison.settings import setting_names
from valence.evaluation.representations import REPRESENTATIONS, representations
from valence.reports.tables import by_setup
from valence.runs.artifacts import FEATURES
from valence.runs.store import RunResult, RunStore

SHOWN = ("within_between", "effective_rank", "tail_margin", "tail_cosine")
WITH_INTERVAL = ("within_between", "tail_margin", "tail_cosine")
NORMAL = 1.96
"""Standard errors on either side of a 95% interval."""
Measures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--baseline", default="lora-balanced")
    parser.add_argument("--groups", type=int, default=50)
    given = parser.parse_args()
    store = RunStore(given.runs)
    for label, results in by_setup([r for r in store.all() if _has_features(store, r)]).items():
        names = setting_names(results)
        if given.baseline not in names.values():
            continue
        print(f"\n{label}\n")
        titles = [REPRESENTATIONS[name].title for name in SHOWN]
        deltas = [f"Δ {REPRESENTATIONS[name].title} [95%]" for name in WITH_INTERVAL]
        heads = ["method", "n", "macro-F1", "tail-F1", *titles, *deltas]
        print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        for line in _lines(store, results, names, given.baseline, given.groups):
            print(f"| {' | '.join(line)} |")


def _has_features(store: RunStore, result: RunResult) -> bool:
    with np.load(store.path(result.key) / FEATURES) as file:
        return bool(result.classes) and file["features"].shape[1] > 0


def _lines(
    store: RunStore, results: list[RunResult], names: dict[str, str], baseline: str, groups: int
) -> list[list[str]]:
    runs: dict[str, dict[int, RunResult]] = {}
    for result in results:
        runs.setdefault(names[result.key], {})[result.spec.seed] = result
    measured = {result.key: _measured(store, result, groups) for result in results}
    lines = []
    for name, own in sorted(runs.items(), key=lambda pair: -_mean(pair[1], "macro_f1")):
        whole = [measured[result.key][0] for result in own.values()]
        scores = [f"{_mean(own, metric):.3f}" for metric in ("macro_f1", "tail_f1")]
        values = [f"{np.mean([one[measure] for one in whole]):.3f}" for measure in SHOWN]
        shared = sorted(own.keys() & runs[baseline].keys())
        pairs = [(measured[own[s].key], measured[runs[baseline][s].key]) for s in shared]
        deltas = ["" if name == baseline else _delta(pairs, measure) for measure in WITH_INTERVAL]
        lines.append([name, str(len(own)), *scores, *values, *deltas])
    return lines


def _measured(store: RunStore, result: RunResult, groups: int) -> tuple[Measures, list[Measures]]:
    """Measures of all test rows, and without each group; the same groups for equal test rows."""
    with np.load(store.path(result.key) / FEATURES) as file:
        features, labels = file["features"].astype(np.float32), file["labels"]
    classes, tail = len(result.classes), result.tail
    rng = np.random.default_rng(0)
    group = np.empty(len(labels), dtype=int)
    for c in range(classes):
        rows = np.flatnonzero(labels == c)
        group[rng.permutation(rows)] = np.arange(len(rows)) % groups

    def measures(rows: np.ndarray) -> Measures:
        return representations(features[rows], labels[rows], classes, tail=tail).summary()

    whole = measures(np.arange(len(labels)))
    return whole, [measures(np.flatnonzero(group != left)) for left in range(groups)]


def _delta(pairs: list[tuple[tuple[Measures, list[Measures]], ...]], measure: str) -> str:
    value = np.mean([ours[0][measure] - theirs[0][measure] for ours, theirs in pairs])
    without = np.mean(
        [[a[measure] - b[measure] for a, b in zip(ours[1], theirs[1], strict=True)]
         for ours, theirs in pairs], axis=0,
    )  # fmt: skip
    count = len(without)
    error = np.sqrt((count - 1) / count * np.sum((without - without.mean()) ** 2))
    low, high = value - NORMAL * error, value + NORMAL * error
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]{'' if low <= 0 <= high else ' *'}"


def _mean(runs: dict[int, RunResult], metric: str) -> float:
    return float(np.mean([one.test[metric] for one in runs.values()]))


if __name__ == "__main__":
    main()
