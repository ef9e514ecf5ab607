"""Transfers between groups: trained on A, tested on B; leave one out; heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from valence.comparison.settings import setting_names
from valence.evaluation.classification import MIN_TEST_ROWS
from valence.reports.groups import GROUP_METRICS, PivotTable, markdown, write_workbook
from valence.reports.tables import mean_sd
from valence.runs.store import RunResult
from valence.storage import atomic

ALL = "all"
WITHOUT = "all but "
BESIDE = " and the others"
DARK = 0.6  # fraction of the color scale above which figures are written in white


def is_transfer(result: RunResult) -> bool:
    """Whether a run was trained on other groups than those it is tested on."""
    return result.spec.data.train_groups is not None and bool(result.groups)


def trained_on(result: RunResult) -> str:
    """``de``, ``all but de``, ``all``, ``de + en``, or ``20 rows of de and the others``."""
    groups, limits = result.spec.data.train_groups, result.spec.data.group_rows
    if groups is None:
        return ALL
    if limits:
        few = ", ".join(f"{rows} rows of {name}" for name, rows in limits.items())
        return few if len(groups) == len(limits) else f"{few}{BESIDE}"
    left = [name for name in result.groups if name not in groups]
    if len(groups) > 1 and len(left) == 1:
        return WITHOUT + left[0]
    return " + ".join(groups)


def transfer_table(results: Sequence[RunResult]) -> pd.DataFrame:
    """One row per set-up, setting, groups trained on and group tested on.

    Args:
        results: Runs; of those trained on all groups, the ones that stand beside a transfer.

    Returns:
        setup, method, name (the method, with the settings in which its rows differ),
        trained_on, tested_on, left_out (whether training saw no row of the group),
        target_rows (labeled rows of the group tested, where they were limited; else 0), rows,
        seeds, ``<metric>_mean`` and ``<metric>_sd``.
    """
    rows = []
    for label, group in _setups(results).items():
        names = setting_names(group)
        for result in group:
            seen, limits = result.spec.data.train_groups, result.spec.data.group_rows or {}
            tested = {g: s for g, s in result.groups.items() if not limits or g in limits}
            for name, scores in tested.items():
                rows.append(
                    {
                        "setup": label, "method": result.spec.method,
                        "name": names[result.key],
                        "trained_on": trained_on(result), "tested_on": name,
                        "left_out": seen is not None and name not in seen,
                        "target_rows": limits.get(name, 0),
                        "rows": scores["rows"], "seed": result.spec.seed,
                        **{metric: scores[metric] for metric in GROUP_METRICS},
                    }
                )  # fmt: skip
    if not rows:
        return pd.DataFrame()
    keys = ["setup", "method", "name", "trained_on", "tested_on"]
    by_key = pd.DataFrame(rows).astype({"rows": int}).groupby(keys, sort=False)
    firsts = {name: (name, "first") for name in ("left_out", "target_rows", "rows")}
    parts = [by_key.agg(**firsts)]
    parts.append(by_key["seed"].nunique().rename("seeds").to_frame())
    for metric in GROUP_METRICS:
        own = by_key[metric]
        parts.append(pd.DataFrame({f"{metric}_mean": own.mean(), f"{metric}_sd": own.std()}))
    return pd.concat(parts, axis=1).reset_index()


def _setups(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Runs that differ only in the groups trained on, where one of them is a transfer."""
    whole: dict[str, list[RunResult]] = {}
    for result in results:
        if not result.groups:
            continue
        spec = result.spec
        data = spec.data.model_copy(update={"train_groups": None, "group_rows": None})
        key = f"{data.model_dump_json()} {result.encoder}"
        whole.setdefault(key, []).append(result)
    transfers = [group for group in whole.values() if any(is_transfer(r) for r in group)]
    setups: dict[str, list[RunResult]] = {}
    for group in transfers:
        first = group[0]
        encoder = f", {Path(first.encoder).name}" if first.encoder else ""
        label = f"{first.dataset}{encoder}"
        setups[f"{label} #{len(setups) + 1}" if label in setups else label] = group
    return setups


def transfer_matrix(table: pd.DataFrame, metric: str = "macro_f1") -> pd.DataFrame:
    """(trained on × tested on) means of one set-up and method, in one order of the groups."""
    whole = table[table["target_rows"] == 0]
    matrix = whole.pivot_table(
        index="trained_on", columns="tested_on", values=f"{metric}_mean", sort=False
    )
    names = sorted(matrix.columns)
    known = [*names, *(WITHOUT + name for name in names)]
    others = [row for row in matrix.index if row not in known]
    return matrix.loc[[row for row in known if row in matrix.index] + others, names]


def transfer_columns(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the matrix, with the mean over other groups than those trained on."""
    pivot = _pivot(table)
    return pivot.heads, pivot.rows


def leave_one_out_columns(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """By group and on their mean: macro-F1 with no row of it, with a few, and with all.

    The difference is between none and all.
    """
    beside = table["trained_on"].str.endswith(BESIDE)
    columns = {"left out": table[table["left_out"]]}
    for count in sorted({int(n) for n in table["target_rows"]} - {0}):
        few = table["target_rows"] == count
        columns[f"{count} rows alone"] = table[few & ~beside]
        columns[f"{count} rows{BESIDE}"] = table[few & beside]
    columns["trained with"] = table[table["trained_on"] == ALL]
    by_group = {head: own.set_index("tested_on") for head, own in columns.items()}
    names = sorted(by_group["left out"].index)
    means = pd.DataFrame({head: own["macro_f1_mean"] for head, own in by_group.items()})
    means = means.loc[names].astype(float)
    gaps = means["left out"] - means["trained with"]
    rows = []
    for name in names:
        cells = [
            mean_sd(own.loc[name, "macro_f1_mean"], own.loc[name, "macro_f1_sd"])
            if name in own.index else "–" for own in by_group.values()
        ]  # fmt: skip
        tested = by_group["left out"].loc[name, "rows"]
        rows.append([name, str(tested), *cells, _signed(gaps[name])])
    if len(names) > 1:
        shown = [mean_sd(value, None) for value in means.mean(skipna=False)]
        rows.append(["mean", "", *shown, _signed(gaps.mean(skipna=False))])
    return ["group", "test rows", *columns, "difference"], rows


def _signed(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:+.3f}"


def _pivot(table: pd.DataFrame, metric: str = "macro_f1") -> PivotTable:
    matrix = transfer_matrix(table, metric)
    unseen = table.pivot_table(index="trained_on", columns="tested_on", values="left_out")
    away = matrix.where(unseen.reindex_like(matrix) > 0).mean(axis=1)
    names = [str(name) for name in matrix.columns]
    rows, best = [], []
    for place, (label, own) in enumerate(matrix.iterrows()):
        shown = [mean_sd(float(value), None) for value in own]
        rows.append([str(label), *shown, mean_sd(float(away.iloc[place]), None)])
        leads = [bool(own[name] >= matrix[name].max()) for name in matrix.columns]
        best.append([False, *leads, bool(away.iloc[place] >= away.max())])
    return PivotTable(["trained on", *names, "others"], rows, best)


def transfer_verdict(table: pd.DataFrame) -> str:
    """What the table of one set-up and method says, in a sentence or two."""
    table = table[table["target_rows"] == 0]
    away = table[table["left_out"]]["macro_f1_mean"].mean()
    home = table[~table["left_out"] & (table["trained_on"] != ALL)]["macro_f1_mean"].mean()
    text = f"On groups it was trained on, macro-F1 is {home:.3f} on average; on others {away:.3f}."
    single = table[table["left_out"] & ~table["trained_on"].str.startswith(WITHOUT)]
    if len(single):
        means = single.groupby("trained_on")["macro_f1_mean"].mean()
        text += f" The best source for other groups is {means.idxmax()} ({means.max():.3f})."
    return text


def transfer_map(table: pd.DataFrame, title: str = "") -> Figure:
    """A heat map of macro-F1: rows trained on, columns tested on.

    Args:
        table: Rows of :func:`transfer_table` of one set-up and method.
        title: Heading.
    """
    matrix = transfer_matrix(table)
    values = matrix.to_numpy(dtype=float)
    size = (0.62 * values.shape[1] + 2.6, 0.45 * values.shape[0] + 1.5)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    image = axes.imshow(values, cmap="Blues", vmin=low, vmax=high, aspect="auto")
    axes.set_xticks(range(values.shape[1]), [str(n) for n in matrix.columns])
    axes.set_yticks(range(values.shape[0]), [str(n) for n in matrix.index])
    axes.set_xlabel("tested on")
    axes.set_ylabel("trained on")
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        if not np.isnan(value):
            dark = high > low and (value - low) / (high - low) > DARK
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=8,
                color="white" if dark else "#222222",
            )  # fmt: skip
    figure.colorbar(image, ax=axes, label="macro-F1 on test")
    axes.set_title(title, loc="left", fontsize=10)
    return figure


def write_transfer(results: Sequence[RunResult], out: Path) -> list[str]:
    """Write ``transfer.csv``, ``.md``, ``.xlsx`` and a heat map per set-up and method.

    Returns:
        Lines on what could not be written, and on groups with few test rows.

    Raises:
        RunError: if the folder cannot be written.
    """
    table = transfer_table(results)
    if not len(table):
        return []
    parts: list[str] = []
    sheets: dict[str, PivotTable] = {}
    with atomic.new_file(out / "transfer.csv") as path:
        table.to_csv(path, index=False)
    for number, (label, name, own) in enumerate(_parts(table), start=1):
        parts.append(f"## {label}, {name}: macro-F1\n\n{markdown(_pivot(own))}\n")
        if own["trained_on"].str.startswith(WITHOUT).any():
            heads, rows = leave_one_out_columns(own)
            plain = PivotTable(heads, rows, [[False] * len(heads) for _ in rows])
            parts.append(f"{markdown(plain)}\n")
            sheets[f"{number} {name} left out"] = plain
        sheets[f"{number} {name}"] = _pivot(own)
        picture = f"transfer-{own['method'].iloc[0]}{'' if number == 1 else f'-{number}'}.png"
        with atomic.new_file(out / picture) as path:
            transfer_map(own, f"{label}, {name}").savefig(path, dpi=160)
    atomic.write_text(out / "transfer.md", "\n".join(parts))
    return [*_small_groups(table), *write_workbook(sheets, out / "transfer.xlsx")]


def _small_groups(table: pd.DataFrame) -> list[str]:
    counts = table.dropna(subset="rows").groupby("tested_on")["rows"].min()
    small = {str(name): int(count) for name, count in counts.items() if count < MIN_TEST_ROWS}
    if not small:
        return []
    named = ", ".join(f"{name} {count}" for name, count in small.items())
    return [f"fewer than {MIN_TEST_ROWS} test rows, so their scores are unreliable: {named}"]


def _parts(table: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    if not len(table):
        return []
    grouped = table.groupby(["setup", "name"], sort=False)
    return [(str(setup), str(name), own) for (setup, name), own in grouped]


def page_transfers(results: Sequence[RunResult]) -> list[dict[str, Any]]:
    """By set-up and method: words, table and heat map, for the page of a comparison."""
    pages = []
    for label, name, own in _parts(transfer_table(results)):
        pivot = _pivot(own)
        cells = [
            [{"text": c, "best": mark} for c, mark in zip(row, marks, strict=True)]
            for row, marks in zip(pivot.rows, pivot.best, strict=True)
        ]
        pages.append(
            {
                "label": f"{label}, {name}", "verdict": transfer_verdict(own),
                "heads": pivot.heads, "rows": cells,
            }
        )  # fmt: skip
    return pages
