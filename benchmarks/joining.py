"""Whether models that train the encoder help ``auto``, from finished runs: one row a model.

Every such run is joined with the ``auto`` of the same corpus, seed and rows, as a portfolio does:
by weights from the validation rows. A row has what the validation rows say (log loss with its
standard error, macro-F1), whether the model joins by the rule of ``auto`` and by the older one
(macro-F1 of the validation rows rises by 0.01), and what macro-F1 of the test rows then gains.
A second table has one row a corpus and encoder: the default members of ``auto`` join as it does,
the one that helps most first.

    valence compare DATA --methods auto --encoder auto --set 'portfolio.fine_tuned=[]'
    valence compare DATA --methods ldam,lora-balanced
    python benchmarks/joining.py [--runs runs]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from valence.config.sections import PortfolioSpec
from valence.methods import finetune
from valence.methods.portfolio import Joining, best_first, joining
from valence.methods.registry import METHODS
from valence.runs.store import RunResult, RunStore

OLD_GAIN = 0.01


@dataclass(frozen=True)
class Rows:
    """Logits of the validation and test rows of a run."""

    ids: list[list[str]]
    labels: list[np.ndarray]
    logits: list[np.ndarray]

    @classmethod
    def of(cls, table: pd.DataFrame) -> Rows:
        parts = [table[table["split"] == split] for split in ("validation", "test")]
        return cls(
            [part["id"].astype(str).tolist() for part in parts],
            [part["label"].to_numpy() for part in parts],
            [part.filter(regex=r"^logit_\d+$").to_numpy(float) for part in parts],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default="runs")
    store = RunStore(parser.parse_args().runs)
    means: dict[tuple[str, int], RunResult] = {}
    for result in store.all():
        spec = result.spec
        frozen = not spec.get("portfolio.fine_tuned")
        if spec.method == "auto" and frozen and spec.get("refit.when") != "never":
            means[spec.data.name, spec.seed] = result
    print("| corpus | model | seed | log loss | macro-F1 | joins | by the older rule | test |")
    print("|---|---|---|---|---|---|---|---|")
    members: dict[tuple[str, int, str], list[tuple[str, Rows]]] = {}
    for result in store.all():
        place = result.spec.data.name, result.spec.seed
        if place not in means or not _trains_encoder(result.spec.method):
            continue
        ours, theirs = (Rows.of(store.predictions(one.key)) for one in (means[place], result))
        if ours.ids == theirs.ids:
            print(_line(result, ours, theirs))
            if result.spec.method in PortfolioSpec().fine_tuned:
                same = members.setdefault((*place, str(result.encoder)), [])
                same.append((result.spec.method, theirs))
    print("\n| corpus | encoder of the members | seed | join | frozen | with them |")
    print("|---|---|---|---|---|---|")
    for (name, seed, encoder), trained in members.items():
        mean = Rows.of(store.predictions(means[name, seed].key))
        cells = (name, encoder, str(seed), *_together(mean, trained))
        print(f"| {' | '.join(cells)} |")


def _together(mean: Rows, trained: list[tuple[str, Rows]]) -> tuple[str, str, str]:
    """Who joins, and the macro-F1 of the test rows before and after."""
    labels, logits = mean.labels[0], mean.logits[1]
    shares = np.bincount(labels, minlength=logits.shape[1]) / len(labels)
    steps = best_first(
        mean.logits[0], [rows.logits[0] for _, rows in trained], labels, np.ones(len(labels)),
        shares, PortfolioSpec().min_gain,
    )  # fmt: skip
    for place, joined in steps:
        logits = joined.weights[0] * logits + joined.weights[1] * trained[place][1].logits[1]
    scores = (
        f1_score(mean.labels[1], one.argmax(axis=1), average="macro")
        for one in (mean.logits[1], logits)
    )
    before, after = (f"{score:.3f}" for score in scores)
    return ", ".join(trained[place][0] for place, _ in steps), before, after


def _trains_encoder(method: str) -> bool:
    known = METHODS.get(method)  # those of a language model have its name in them
    return method in finetune.ENTRIES or (known is not None and known.family == "post-hoc")


def _line(result: RunResult, ours: Rows, theirs: Rows) -> str:
    labels = ours.labels[0]
    shares = np.bincount(labels, minlength=ours.logits[0].shape[1]) / len(labels)
    joined = joining(ours.logits[0], theirs.logits[0], labels, np.ones(len(labels)), shares)
    test = _gain(joined, ours, theirs)
    spec = result.spec
    old = _word(joined.weights[1] > 0 and joined.added >= OLD_GAIN)
    return (
        f"| {spec.data.name} | {spec.method} ({result.encoder}) | {spec.seed} | "
        f"{joined.gain:+.4f} ± {joined.error:.4f} | {joined.added:+.3f} | "
        f"{_word(joined.helps(0.0))} | {old} | "
        f"{test:+.3f} |"
    )


def _gain(joined: Joining, ours: Rows, theirs: Rows) -> float:
    old, new = joined.weights
    after = old * ours.logits[1] + new * theirs.logits[1]
    high, low = (
        f1_score(ours.labels[1], logits.argmax(axis=1), average="macro")
        for logits in (after, ours.logits[1])
    )
    return float(high - low)


def _word(joins: bool) -> str:
    return "yes" if joins else ""


if __name__ == "__main__":
    main()
