"""Strategies of ``valence label`` replayed on real corpora with a long tail.

``python benchmarks/labeling.py DATA --corpora trec,sst5 --strategies random,tail-first``
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from valence.config.data import DataSpec
from valence.data.dataset import Split
from valence.data.sampling import longtail_counts, take_counts
from valence.data.sources import load_dataset
from valence.evaluation.classification import ClassCounts, confusion, mean_defined
from valence.labeling.estimate import MORE_LABELS, estimate_macro_f1, forecast, predictions
from valence.labeling.features import Featurizer, KernelFeatures
from valence.labeling.pool import LabelPool, label_affinity
from valence.labeling.quick_model import fit_quick_model
from valence.labeling.replay import (
    FIRST_FINDS,
    RANDOM,
    Curve,
    ReplayPlan,
    ReplayRows,
    replay,
    smoothed,
)
from valence.labeling.replay_report import Simulation, write_simulation
from valence.labeling.sampling import SamplingSettings
from valence.labeling.strategies import DEFAULT_STRATEGY

RATIO, MOST_POOL, MOST_TEST, FEWEST = 20, 3000, 1500, 20
EVERY = 200
"""Labels between two looks at the intervals."""
FILES = {f"multiemo-{code}": f"multiemo/{code}/sentences.csv" for code in ("en", "pl")}
MEANINGS = {
    "C01": "bacterial and fungal infections", "C02": "virus diseases",
    "C03": "parasitic diseases", "C04": "neoplasms, cancer, tumors",
    "C05": "musculoskeletal diseases", "C06": "digestive system diseases",
    "C07": "mouth and tooth diseases", "C08": "respiratory tract diseases",
    "C09": "ear, nose and throat diseases", "C10": "nervous system diseases",
    "C11": "eye diseases", "C12": "urologic and male genital diseases",
    "C13": "female genital diseases and pregnancy complications",
    "C14": "cardiovascular diseases", "C15": "hemic and lymphatic diseases",
    "C16": "neonatal diseases and abnormalities", "C17": "skin and connective tissue diseases",
    "C18": "nutritional and metabolic diseases", "C19": "endocrine diseases",
    "C20": "immunologic diseases", "C21": "disorders of environmental origin, injuries, poisoning",
    "C22": "animal diseases", "C23": "pathological conditions, signs and symptoms",
}  # fmt: skip
"""What a person would write for Ohsumed's codes; DBLP's numbers stay as they are."""
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
        frequent = np.flatnonzero(counts >= FEWEST)
        train, test = (_of_classes(part, frequent) for part in (train, test))
        classes = classes[frequent]
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
        tuple(classes.tolist()), label_affinity(made, [MEANINGS.get(c, c) for c in classes]),
    )  # fmt: skip


def _of_classes(part: Split, classes: np.ndarray) -> Split:
    new = np.full(part.labels.max() + 1, -1)
    new[classes] = np.arange(len(classes))
    part = part.take(np.flatnonzero(new[part.labels] >= 0))
    return replace(part, labels=new[part.labels])


@dataclass
class Coverage:
    """How often the intervals that the page shows hold the truth.

    Attributes:
        estimates: Whether the interval of the macro-F1 held that of the whole pool, fit by fit.
        widths: Of these intervals.
        forecasts: Predicted gain of more labels and its margin, by number of labels.
    """

    estimates: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    forecasts: list[bool] = field(default_factory=list)


@dataclass
class Watcher:
    """Looks at one replay after every fit.

    Attributes:
        rows: The corpus.
        coverage: Where it counts.
        rng: Of the intervals.
        open: Forecasts whose number of labels is not there yet: that number, score, gain, margin.
    """

    rows: ReplayRows
    coverage: Coverage
    rng: np.random.Generator
    open: list[tuple[int, float, float, float]] = field(default_factory=list)

    def __call__(self, pool: LabelPool) -> None:
        """Compare what the page would show with the truth."""
        truth = self._macro_f1(pool)
        count = len(pool.labeled)
        for then, before, gain, margin in [each for each in self.open if each[0] <= count]:
            self.coverage.forecasts.append(abs(truth - before - gain) <= margin)
            self.open.remove((then, before, gain, margin))
        if count % EVERY:
            return
        estimate = estimate_macro_f1(pool, self.rng)
        if estimate is not None:
            self.coverage.estimates.append(estimate.low <= truth <= estimate.high)
            self.coverage.widths.append(estimate.high - estimate.low)
        order = self.rng.permutation(pool.labeled).tolist()
        more = forecast(pool, order, self.rng)
        if more is not None:
            self.open.append((count + MORE_LABELS, truth, more.gain, more.margin))

    def _macro_f1(self, pool: LabelPool) -> float:
        table = confusion(self.rows.pool_labels, predictions(pool), len(self.rows.classes))
        return float(mean_defined(ClassCounts.of(table).f1))


def paired(values: Sequence[float]) -> str:
    """Mean and half of its 95% t interval."""
    from scipy.stats import t

    own = np.asarray(values)
    half = t.ppf(0.975, len(own) - 1) * own.std(ddof=1) / np.sqrt(len(own))
    return f"{own.mean():+.3f} ± {half:.3f}"


def comparison(done: Simulation) -> list[str]:
    """Lines on every strategy against random rows, over the seeds."""
    lines = []
    base = done.of("random")
    at, mean = done.mean("random")
    finds = np.array([curve.labels_to_find(FIRST_FINDS) for curve in base])
    for name in done.strategies:
        own = done.of(name)
        area = [float(np.nanmean(c.macro_f1) - np.nanmean(b.macro_f1))
                for c, b in zip(own, base, strict=True)]  # fmt: skip
        last = [smoothed(c.macro_f1)[-1] - smoothed(b.macro_f1)[-1]
                for c, b in zip(own, base, strict=True)]  # fmt: skip
        _, curve = done.mean(name)
        reached = np.flatnonzero(curve >= mean[-1])
        ten = np.array([c.labels_to_find(FIRST_FINDS) for c in own])
        lines.append(
            f"{name}: mean over the curve {paired(area)}, at the end {paired(last)}; as random at "
            f"the end from {at[reached[0]] if len(reached) else 'never'}; ten rows at "
            f"{np.median(ten):.0f} ({ten.min():.0f} to {ten.max():.0f}), random "
            f"{np.median(finds):.0f} ({finds.min():.0f} to {finds.max():.0f})"
        )
    return lines


def balanced_by_truth(rows: ReplayRows, budget: int, seed: int) -> float:
    """Macro-F1 with rows of every class alike, drawn by their true labels: a bound, no strategy."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rows.pool))
    own = rows.pool_labels[order]
    rank = np.zeros(len(order), dtype=np.int64)
    for label in range(len(rows.classes)):
        rank[own == label] = np.arange((own == label).sum())
    chosen = np.sort(order[np.argsort(rank, kind="stable")[:budget]])
    model = fit_quick_model(rows.pool.take(chosen), rows.pool_labels[chosen], len(rows.classes))
    predicted = model.scores(rows.test).argmax(axis=1)
    table = confusion(rows.test_labels, predicted, len(rows.classes))
    return float(mean_defined(ClassCounts.of(table).f1))


def main() -> None:
    """Print tables per corpus, and how often the intervals hold what they say."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("data", type=Path)
    words.add_argument("--corpora", default=",".join(CORPORA))
    words.add_argument("--strategies", default="random,tail-first")
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--first-seed", type=int, default=0)
    words.add_argument("--batch", type=int, default=20)
    words.add_argument("--truth", action="store_true", help="only the bound of true labels")
    words.add_argument("--out", type=Path, default=Path("labeling"))
    given = words.parse_args()
    seeds = tuple(range(given.first_seed, given.first_seed + given.seeds))
    plan = ReplayPlan(
        tuple(given.strategies.split(",")), seeds, SamplingSettings(batch=given.batch), 600
    )
    for name in given.corpora.split(","):
        rows, coverage = corpus(name, given.data), Coverage()
        if given.truth:
            for budget in (200, 300):
                bound = [balanced_by_truth(rows, budget, seed) for seed in seeds]
                print(f"{name}: {budget} rows of all classes alike: {np.mean(bound):.3f}")
            continue
        done = Simulation(name, rows, tuple(_curves(rows, plan, coverage)), plan)
        write_simulation(done, given.out / name)
        heads, table = done.table()
        print(name, np.bincount(rows.pool_labels).tolist(), f"test {len(rows.test_labels)}")
        for line in (heads, *table):
            print("  " + " | ".join(line))
        if "random" in plan.strategies:
            print("  " + "\n  ".join(comparison(done)))
        for what, held in (("estimates", coverage.estimates), ("forecasts", coverage.forecasts)):
            if held:
                print(f"  {what} that hold: {sum(held)} of {len(held)}")
        if coverage.widths:
            print(f"  mean width of the estimate: {np.mean(coverage.widths):.2f}", flush=True)


def _curves(rows: ReplayRows, plan: ReplayPlan, coverage: Coverage) -> Iterator[Curve]:
    for settings in plan.settings():
        watcher = Watcher(rows, coverage, np.random.default_rng(settings.seed + 1000))
        watched = settings.strategy in (RANDOM, DEFAULT_STRATEGY)
        yield replay(rows, settings, plan.budget, watcher if watched else None)


if __name__ == "__main__":
    main()
