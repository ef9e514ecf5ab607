"""``auto`` beside other methods on the same rows, from finished runs: one table a data set-up.

A row is a method with an encoder; Δ is macro-F1 of ``auto`` less that of the row, with the 95%
interval of a paired bootstrap over the test rows of all seeds that both have; ▲ ▼ are significant
at 5% after Holm's correction within the corpus. Seconds are of training and of the test rows, as
the runs say: features that were in the cache cost nothing.

    valence compare DATA --methods auto --set 'portfolio.fine_tuned=[]' --seeds 3
    valence compare DATA --methods linear-probe --encoder multilingual-e5-small --seeds 3
    python benchmarks/fit_table.py [--runs runs] [--encoder auto] [--trained]
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np

from valence.comparison.bootstrap import Difference, paired_bootstrap
from valence.comparison.significance import holm
from valence.config.spec import RunSpec
from valence.runs.store import RunResult, RunStore

OURS = "auto"
Row = tuple[str, str]  # method, encoder
LEVEL = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--encoder", default="auto", help="that the runs of auto were given")
    parser.add_argument(
        "--trained", action="store_true", help="auto is the one with members that train the encoder"
    )
    given = parser.parse_args()
    store = RunStore(given.runs)
    setups: dict[str, dict[Row, dict[int, RunResult]]] = defaultdict(lambda: defaultdict(dict))
    for result in store.all():
        if row := _row(result, given.encoder, given.trained):
            setups[result.spec.data.model_dump_json()][row][result.spec.seed] = result
    for _, rows in sorted(setups.items()):
        if ours := rows.get((OURS, "")):
            print(f"\n{next(iter(ours.values())).spec.data.name}\n")
            print("| method | encoder | n | macro-F1 | tail-F1 | Δ of auto [95%] | | s |")
            print("|---|---|---|---|---|---|---|---|")
            for line in _lines(rows, store):
                print(line)


def _row(result: RunResult, auto_encoder: str, trained: bool) -> Row | None:
    """The row of a run; None for one that is only a part of others."""
    spec = result.spec
    method, encoder = spec.method, str(spec.get("encoder.name") or "")
    if method == OURS:
        return (_auto(spec, trained), "") if encoder == auto_encoder else None
    if (spec.get("refit.when") or "never") != "never":
        return None
    return method, result.encoder or ""


def _auto(spec: RunSpec, trained: bool) -> str:
    if spec.get("refit.when") == "never":
        return f"{OURS} without validation rows"
    has_trained = bool(spec.get("portfolio.fine_tuned"))
    if has_trained == trained:
        return OURS
    return f"{OURS} {'with' if has_trained else 'without'} trained members"


def _lines(rows: dict[Row, dict[int, RunResult]], store: RunStore) -> list[str]:
    ours = rows[OURS, ""]
    gains = {row: _gain(ours, runs, store) for row, runs in rows.items() if row[0] != OURS}
    marks = _marks(gains)
    order = sorted(rows, key=lambda row: -_mean(rows[row], "macro_f1"))
    return [_line(row, rows[row], gains.get(row), marks.get(row, "")) for row in order]


def _gain(
    ours: dict[int, RunResult], others: dict[int, RunResult], store: RunStore
) -> Difference | None:
    seeds = sorted(ours.keys() & others.keys())
    if not seeds:
        return None
    tables = [[_tested(store, runs[seed].key) for seed in seeds] for runs in (ours, others)]
    for one, other in zip(*tables, strict=True):
        assert one["id"].tolist() == other["id"].tolist()
    labels = [table["label"].to_numpy() for table in tables[0]]
    first, second = ([table["predicted"].to_numpy() for table in part] for part in tables)
    return paired_bootstrap(labels, first, second, class_count=len(ours[seeds[0]].classes))


def _tested(store: RunStore, key: str):
    table = store.predictions(key)
    return table[table["split"] == "test"]


def _marks(gains: dict[Row, Difference | None]) -> dict[Row, str]:
    known = {row: gain for row, gain in gains.items() if gain is not None}
    corrected = holm([gain.p for gain in known.values()])
    return {
        row: "≈" if p >= LEVEL else "▲" if gain.value > 0 else "▼"
        for (row, gain), p in zip(known.items(), corrected, strict=True)
    }


def _line(row: Row, runs: dict[int, RunResult], gain: Difference | None, mark: str) -> str:
    scores = [one.test["macro_f1"] for one in runs.values()]
    spread = f" ± {np.std(scores, ddof=1):.3f}" if len(scores) > 1 else ""
    seconds = np.mean([one.train_seconds + one.inference_seconds for one in runs.values()])
    delta = "" if gain is None else f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    return (
        f"| {row[0]} | {row[1]} | {len(runs)} | {np.mean(scores):.3f}{spread} | "
        f"{_mean(runs, 'tail_f1'):.3f} | {delta} | {mark} | {seconds:.0f} |"
    )


def _mean(runs: dict[int, RunResult], name: str) -> float:
    return float(np.mean([one.test[name] for one in runs.values()]))


if __name__ == "__main__":
    main()
