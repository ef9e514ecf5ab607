"""What changed from one report folder to another: scores by method, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from valence.comparison.bootstrap import Difference, paired_bootstrap, paired_bootstrap_mae
from valence.errors import DataError

PLACE = ["dataset", "name"]
METRICS = {"macro_f1": "macro-F1", "mae": "MAE"}
COLUMNS = ["method", "data", "score", "before", "after", "change [95%]", "verdict", "seeds"]
"""Headings of :func:`difference_rows`."""


def report_difference(before: Path, after: Path) -> list[dict[str, Any]]:
    """Compare the methods of two report folders, as ``valence compare`` writes them.

    Args:
        before: A folder with ``results.csv`` and ``cases/``.
        after: Another.

    Returns:
        One record for each data set and method of either: ``metric``, mean scores ``before`` and
        ``after`` (None where it is in one folder alone), ``change`` with ``low`` and ``high`` (a
        paired bootstrap, where both scored the same test rows with a seed in common), and
        ``seeds``, how many they have in common.

    Raises:
        DataError: if a folder is no report.
    """
    old, new = _runs(before), _runs(after)
    metric = next((m for m in METRICS if m in old and m in new), None)
    if metric is None:
        raise DataError(f"{before} and {after} predict different targets and cannot be compared")
    places = list(dict.fromkeys([*_places(old), *_places(new)]))
    records = []
    for place in places:
        ours, theirs = _of(new, place), _of(old, place)
        shown = [None if not len(own) else _mean(own[metric]) for own in (theirs, ours)]
        shared = sorted({*ours["seed"]} & {*theirs["seed"]})
        gap = _interval(before, after, theirs, ours, shared, metric) if shared else None
        change = None if None in shown else shown[1] - shown[0]  # type: ignore[operator]
        records.append(
            {
                "dataset": place[0], "name": place[1], "metric": metric, "before": shown[0],
                "after": shown[1], "change": change, "low": None if gap is None else gap.low,
                "high": None if gap is None else gap.high, "seeds": len(shared),
            }
        )  # fmt: skip
    return records


def difference_rows(records: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Cells under :data:`COLUMNS`."""
    rows = []
    for own in records:
        change = "–" if own["change"] is None else f"{own['change']:+.3f}"
        if own["low"] is not None:
            change += f" [{own['low']:+.3f}, {own['high']:+.3f}]"
        scores = ["–" if own[side] is None else f"{own[side]:.3f}" for side in ("before", "after")]
        rows.append([own["name"], own["dataset"], METRICS[own["metric"]], *scores, change,
                     verdict_of(own), str(own["seeds"])])  # fmt: skip
    return rows


def verdict_of(own: dict[str, Any]) -> str:
    """What a record says, in one or two words."""
    if own["before"] is None:
        return "new"
    if own["after"] is None:
        return "gone"
    if own["low"] is None:
        return "different test rows"
    if own["low"] <= 0 <= own["high"]:
        return "≈"
    grew, lower_is_better = own["low"] > 0, own["metric"] == "mae"
    return "▲ better" if grew is not lower_is_better else "▼ worse"


def _runs(folder: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(folder / "results.csv")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} is not a report folder of valence compare: results.csv cannot be read "
            f"({error})"
        ) from None


def _places(runs: pd.DataFrame) -> list[tuple[str, str]]:
    return list(runs[PLACE].astype(str).itertuples(index=False, name=None))


def _of(runs: pd.DataFrame, place: tuple[str, str]) -> pd.DataFrame:
    return runs[(runs["dataset"].astype(str) == place[0]) & (runs["name"] == place[1])]


def _mean(values: pd.Series) -> float | None:
    mean = values.astype(float).mean()
    return None if pd.isna(mean) else float(mean)


def _interval(
    before: Path, after: Path, old: pd.DataFrame, new: pd.DataFrame, seeds: Sequence[int],
    metric: str,
) -> Difference | None:  # fmt: skip
    """The paired bootstrap over the seeds in common; None where the test rows differ."""
    truths, ours, theirs = [], [], []
    for seed in seeds:
        pair = [_cases(folder, runs, seed) for folder, runs in ((before, old), (after, new))]
        if any(table is None for table in pair):
            return None
        first, second = (table.set_index("id").sort_index() for table in pair if table is not None)
        if not first.index.equals(second.index) or not first["true"].equals(second["true"]):
            return None
        truths.append(first["true"])
        theirs.append(first["predicted"])
        ours.append(second["predicted"])
    if metric == "mae":
        numbers = ([s.to_numpy() for s in part] for part in (truths, ours, theirs))
        return paired_bootstrap_mae(*numbers)
    names = sorted({str(value) for part in (*truths, *ours, *theirs) for value in part.unique()})
    place = {name: i for i, name in enumerate(names)}
    ids = ([s.astype(str).map(place).to_numpy() for s in part] for part in (truths, ours, theirs))
    return paired_bootstrap(*ids, class_count=len(names))


def _cases(folder: Path, runs: pd.DataFrame, seed: int) -> pd.DataFrame | None:
    key = runs.loc[runs["seed"] == seed, "key"].iloc[0]
    try:
        return pd.read_csv(folder / "cases" / f"{key}.csv", keep_default_na=False)
    except (OSError, ValueError):
        return None
