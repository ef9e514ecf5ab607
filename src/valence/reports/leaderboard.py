"""The leaderboard: methods by their score, with how sure their differences are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from valence.comparison.settings import by_setting
from valence.comparison.significance import against_baseline, reference_setting
from valence.evaluation.task import Classification, Regression, Task
from valence.reports.tables import by_setup, mean_sd, runs_table
from valence.runs.store import RunResult, RunStore

STATS = ("mean", "sd")
ALPHA = 0.05
TESTED = ("difference", "low", "high", "p", "p_holm", "p_seeds")
COUNTED = "seeds_compared"
MARK = "vs baseline"
"""Heading of the column that says which differences are significant."""
TASKS: tuple[Task, ...] = (Classification(()), Regression(), Regression.of_scale("ch-sims"))


def leaderboard(
    store: RunStore, results: Sequence[RunResult], baseline: str | None
) -> pd.DataFrame:
    """One row per set-up, method and settings, best main metric first.

    Args:
        store: Where the predictions are.
        results: Runs. Those of a method that differ in a setting are rows of their own.
        baseline: Method the others are tested against; of several settings of it, the first.

    Returns:
        setup, method, name (the method, with the settings in which its rows differ), seeds
        (how many), ``<metric>_mean`` and ``<metric>_sd`` for the metrics shown, difference to
        the baseline with its interval, p-value, Holm-adjusted p-value and the p-value of the
        t-test over seeds, how many seeds were compared, mark, and cost.

    Raises:
        DataError: if runs of a seed were scored on different test rows.
    """
    tables = [_rank(store, label, group, baseline) for label, group in by_setup(results).items()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _rank(
    store: RunStore, label: str, group: list[RunResult], baseline: str | None
) -> pd.DataFrame:
    runs = runs_table(group)
    task = group[0].task
    table = pd.DataFrame([
        _row(label, str(name), own, task) for name, own in runs.groupby("name", sort=False)
    ])  # fmt: skip
    table = _with_differences(table, store, group, baseline, task)
    reference = reference_setting(by_setting(group), baseline)
    named = None if reference is None else reference.name
    table["mark"] = [_mark(row, named, task) for _, row in table.iterrows()]
    return table.sort_values(
        f"{task.main_metric}_mean", ascending=task.main_lower_is_better, ignore_index=True
    )


def _row(label: str, name: str, own: pd.DataFrame, task: Task) -> dict[str, Any]:
    row: dict[str, Any] = {
        "setup": label, "method": own["method"].iloc[0], "name": name,
        "seeds": own["seed"].nunique(),
    }  # fmt: skip
    for metric in task.shown_metrics:
        values = own[metric].dropna().astype(float)
        row[f"{metric}_mean"] = values.mean() if len(values) else np.nan
        row[f"{metric}_sd"] = values.std() if len(values) > 1 else np.nan
    row["trainable_parameters_m"] = own["trainable_parameters_m"].iloc[0]
    row["train_seconds"] = own["train_seconds"].mean()
    row["inference_seconds"] = own["inference_seconds"].mean()
    row["peak_memory_mib"] = own["peak_memory_mib"].max()
    return row


def _with_differences(
    table: pd.DataFrame, store: RunStore, group: list[RunResult], baseline: str | None,
    task: Task,
) -> pd.DataFrame:  # fmt: skip
    compared = pd.DataFrame()
    if baseline:
        compared = against_baseline(store, group, baseline, metric=task.main_metric)
    if not len(compared):
        return table.assign(**dict.fromkeys((*TESTED, COUNTED), np.nan))
    compared = compared.rename(columns={"seeds": COUNTED})
    return table.merge(compared[["name", *TESTED, COUNTED]], on="name", how="left")


def _mark(row: pd.Series, reference: str | None, task: Task) -> str:
    if row["name"] == reference:
        return "baseline"
    if pd.isna(row["p_holm"]):
        return ""
    if row["p_holm"] >= ALPHA:
        return "≈"
    return "▲" if task.signed(task.main_metric, row["difference"]) > 0 else "▼"


def leaderboard_columns(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of a leaderboard as a person reads them."""
    several = table["setup"].nunique() > 1
    task = task_of(table)
    heads = [*(["set-up"] if several else []), "method", "seeds"]
    shown = [m for m in task.shown_metrics if f"{m}_mean" in table]
    heads += [task.titles[m] for m in shown] + [f"Δ {task.main_title} [95%]", MARK]
    heads += ["p over seeds", "params M", "train s", "test s", "MiB"]
    rows = []
    for _, row in table.iterrows():
        cells = [row["setup"]] if several else []
        cells += [row["name"], str(row["seeds"])]
        cells += [mean_sd(row[f"{m}_mean"], row[f"{m}_sd"]) for m in shown]
        cells += [interval(row), marked(row), p_over_seeds(row)]
        cells += [f"{row['trainable_parameters_m']:.2f}", f"{row['train_seconds']:.0f}"]
        cells += [f"{row['inference_seconds']:.1f}", f"{row['peak_memory_mib']:.0f}"]
        rows.append(cells)
    return heads, rows


def leaderboard_priority(table: pd.DataFrame) -> list[str]:
    """Headings of :func:`leaderboard_columns`, the one to show first where room is scarce."""
    task = task_of(table)
    first, *others = (task.titles[m] for m in task.shown_metrics)
    order = ["method", first, MARK, f"Δ {task.main_title} [95%]", "train s", *others[:1], "seeds"]
    return ["set-up", *order, *others[1:], "test s", "p over seeds", "params M", "MiB"]


def p_over_seeds(row: pd.Series) -> str:
    """The p-value of the test over seeds; a dash below three, empty for the baseline."""
    if row["mark"] == "baseline":
        return ""
    return "<0.001" if row["p_seeds"] < 0.001 else mean_sd(row["p_seeds"])


def marked(row: pd.Series) -> str:
    """The mark with the seeds behind it: ``▲ n=3``."""
    if pd.isna(row[COUNTED]):
        return str(row["mark"])
    return f"{row['mark']} n={int(row[COUNTED])}"


def interval(row: pd.Series) -> str:
    """``+0.021 [+0.004, +0.038]``; empty for the baseline."""
    if pd.isna(row["difference"]):
        return ""
    return f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def json_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One mapping per row, None where a value is missing: JSON has no NaN."""
    rows = table.astype(object).where(table.notna(), None).to_dict(orient="records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def task_of(table: pd.DataFrame) -> Task:
    """The task of a leaderboard whose rows have one, by its columns; no label is named."""
    return next(task for task in TASKS if f"{task.shown_metrics[-1]}_mean" in table)


def by_target(table: pd.DataFrame) -> list[pd.DataFrame]:
    """A leaderboard in parts that have the same metrics, each without the others' columns."""
    tasks = [_row_task(row) for _, row in table.iterrows()]
    every = {f"{m}_{end}" for task in TASKS for m in task.shown_metrics for end in STATS}
    parts = []
    for task in TASKS:
        rows = table[[own is task for own in tasks]]
        own = {f"{m}_{end}" for m in task.shown_metrics for end in STATS}
        if len(rows):
            gone = [column for column in rows.columns if column in every - own]
            parts.append(rows.drop(columns=gone).reset_index(drop=True))
    return parts


def _row_task(row: pd.Series) -> Task:
    classes, *numbers = TASKS
    known = (t for t in numbers if not pd.isna(row.get(f"{t.shown_metrics[-1]}_mean")))
    return next(known, classes)


def verdict(table: pd.DataFrame) -> str:
    """What a leaderboard says, in two or three sentences, no surer than its intervals."""
    best, task = table.iloc[0], task_of(table)
    main = f"{task.main_metric}_mean"
    if pd.isna(best[main]):
        return f"{task.main_title} is undefined for every method on these test rows."
    extreme = "lowest" if task.main_lower_is_better else "highest"
    text = (
        f"{best['name']} has the {extreme} {task.main_title} ({best[main]:.3f}, "
        f"{_seeds(best['seeds'])})."
    )
    if "tail_f1_mean" in table and table["tail_f1_mean"].notna().any():
        tail = table.sort_values("tail_f1_mean", ascending=False, kind="stable").iloc[0]
        if tail["name"] != best["name"]:
            text += f" On the tail classes {tail['name']} is best ({tail['tail_f1_mean']:.3f})."
    return text + _against(table)


def _against(table: pd.DataFrame) -> str:
    """What is significant, with the seeds it rests on; empty without a baseline."""
    reference = table.loc[table["mark"] == "baseline", "name"]
    compared = table[table["p_holm"].notna()]
    if not len(reference) or not len(compared):
        return ""
    name = reference.iloc[0]
    if not compared["mark"].isin(["▲", "▼"]).any():
        return f" No difference from {name} is significant on these test rows ({_range(compared)})."
    parts = []
    for mark, how in (("▲", "better"), ("▼", "worse")):
        rows = compared[compared["mark"] == mark]
        if len(rows):
            are = "is" if len(rows) == 1 else "are"
            parts.append(f"{', '.join(rows['name'])} {are} significantly {how} ({_range(rows)})")
    text = f" Against {name}, on these test rows: {'; '.join(parts)}."
    if not (compared["mark"] == "▲").any():
        text += f" Nothing is significantly better than {name}."
    if (compared[COUNTED] == 1).any():
        text += " With one seed, the effect of the seed is unknown."
    return text


def _range(rows: pd.DataFrame) -> str:
    """``3 seeds``; ``1 to 3 seeds`` where rows differ."""
    low, high = int(rows[COUNTED].min()), int(rows[COUNTED].max())
    return _seeds(high) if low == high else f"{low} to {high} seeds"


def _seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"
