"""Strategies of ``valence label`` replayed on real corpora with a long tail.

``python benchmarks/labeling.py DATA --corpora trec,sst5 --strategies random,tail-first``
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from valence.config.data import DataSpec
from valence.data.dataset import Split
from valence.data.sampling import longtail_counts, take_counts
from valence.data.sources import load_dataset
from valence.evaluation.classification import ClassCounts, confusion, mean_defined
from valence.labeling.estimate import estimate_macro_f1, predictions
from valence.labeling.features import Featurizer, KernelFeatures
from valence.labeling.pool import LabelPool, label_affinity
from valence.labeling.replay import Curve, ReplayRows, ReplaySettings, replay
from valence.labeling.replay_report import Simulation, write_simulation

RATIO, MOST_POOL, MOST_TEST, FEWEST = 20, 3000, 1500, 20
FILES = {f"multiemo-{code}": f"multiemo/{code}/sentences.csv" for code in ("en", "pl")}
CORPORA = ("sst5", "tweeteval", "smp2020", "trec", "ohsumed", *FILES, "dblp")


def corpus(name: str, data: Path) -> ReplayRows:
    """A pool at ratio 20 and a test split; Ohsumed keeps its own ratio, without tiny classes."""
    whole = load_dataset(
        DataSpec(name=str(data / FILES.get(name, name)) if name in FILES else name, cut_seed=0),
        data_dir=data,
    )
    train, test, counts = whole.train, whole.test, whole.train.counts(len(whole.classes))
    classes = np.array(whole.classes)
    if name == "ohsumed":
        kept = np.flatnonzero(counts >= FEWEST)
        train, test = (_of_classes(part, kept) for part in (train, test))
        classes = classes[kept]
    else:
        total = min(MOST_POOL, int(longtail_counts(counts, ratio=RATIO).sum()))
        counts = longtail_counts(counts, ratio=RATIO, total=total)
        train = train.take(take_counts(train.labels, counts, seed=0))
    if len(test) > MOST_TEST:
        rows = np.random.default_rng(0).choice(len(test), MOST_TEST, replace=False)
        test = test.take(np.sort(rows))
    made = Featurizer(train.texts)
    return ReplayRows(
        KernelFeatures.of(made.pool, made.pool), made.embeddings, train.labels,
        KernelFeatures.of(made.transform(test.texts), made.pool), test.labels,
        tuple(classes.tolist()), label_affinity(made, classes.tolist()),
    )  # fmt: skip


def _of_classes(part: Split, kept: np.ndarray) -> Split:
    new = np.full(part.labels.max() + 1, -1)
    new[kept] = np.arange(len(kept))
    part = part.take(np.flatnonzero(new[part.labels] >= 0))
    return replace(part, labels=new[part.labels])


def main() -> None:
    """Print a table per corpus, and how often the interval covers the macro-F1 of the pool."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("data", type=Path)
    words.add_argument("--corpora", default=",".join(CORPORA))
    words.add_argument("--strategies", default="random,tail-first")
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--out", type=Path, default=Path("labeling"))
    given = words.parse_args()
    settings = ReplaySettings(budget=600, batch=20, random_share=0.2)
    for name in given.corpora.split(","):
        rows = corpus(name, given.data)
        covered: list[bool] = []
        curves = list(_curves(rows, given.strategies.split(","), given.seeds, settings, covered))
        done = Simulation(name, rows, tuple(curves), settings)
        write_simulation(done, given.out / name)
        heads, table = done.table()
        print(name, np.bincount(rows.pool_labels).tolist(), f"test {len(rows.test_labels)}")
        for line in (heads, *table):
            print("  " + " | ".join(line))
        print(f"  intervals that cover: {np.mean(covered):.0%} of {len(covered)}", flush=True)


def _curves(
    rows: ReplayRows, strategies: list[str], seeds: int, settings: ReplaySettings,
    covered: list[bool],
) -> Iterator[Curve]:  # fmt: skip
    for seed in range(seeds):
        random = np.random.default_rng(seed + 1000)

        def watch(pool: LabelPool, random: np.random.Generator = random) -> None:
            found = estimate_macro_f1(pool, random)
            if found is not None:
                counts = confusion(rows.pool_labels, predictions(pool), len(rows.classes))
                truth = float(mean_defined(ClassCounts.of(counts).f1))
                covered.append(found.low <= truth <= found.high)

        for strategy in strategies:
            yield replay(rows, strategy, seed, settings, watch)


if __name__ == "__main__":
    main()
