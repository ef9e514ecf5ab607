"""Transfers between groups: trained on A, tested on B; leave one out; heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from valence.errors import RunError
from valence.reports.groups import GROUP_METRICS, Wide, markdown, write_workbook
from valence.reports.tables import mean_sd
from valence.runs.store import RunResult

ALL = "all"
WITHOUT = "all but "
DARK = 0.6  # share of the colour scale above which figures are written in white


def is_transfer(result: RunResult) -> bool:
    """Whether a run was trained on other groups than those it is tested on."""
    return result.spec.data.train_groups is not None and bool(result.groups)


def trained_on(result: RunResult) -> str:
    """``de``, ``all but de``, ``all``, or ``de + en``."""
    groups = result.spec.data.train_groups
    if groups is None:
        return ALL
    left = [name for name in result.groups if name not in groups]
    if len(groups) > 1 and len(left) == 1:
        return WITHOUT + left[0]
    return " + ".join(groups)


def transfer_table(results: Sequence[RunResult]) -> pd.DataFrame:
    """One row per set-up, method, groups trained on and group tested on.

    Args:
        results: Runs; of those trained on all groups, the ones that stand beside a transfer.

    Returns:
        setup, method, trained_on, tested_on, left_out (whether training saw no row of the
        group), rows, seeds, ``<metric>_mean`` and ``<metric>_sd``.
    """
    rows = []
    for label, group in _setups(results).items():
        for result in group:
            seen = result.spec.data.train_groups
            for name, scores in result.groups.items():
                rows.append(
                    {
                        "setup": label, "method": result.spec.method,
                        "trained_on": trained_on(result), "tested_on": name,
                        "left_out": seen is not None and name not in seen,
                        "rows": int(scores["rows"] or 0), "seed": result.spec.seed,
                        **{metric: scores[metric] for metric in GROUP_METRICS},
                    }
                )  # fmt: skip
    if not rows:
        return pd.DataFrame()
    keys = ["setup", "method", "trained_on", "tested_on"]
    found = pd.DataFrame(rows).groupby(keys, sort=False)
    parts = [found.agg(left_out=("left_out", "first"), rows=("rows", "first"))]
    parts.append(found["seed"].nunique().rename("seeds").to_frame())
    for metric in GROUP_METRICS:
        own = found[metric]
        parts.append(pd.DataFrame({f"{metric}_mean": own.mean(), f"{metric}_sd": own.std()}))
    return pd.concat(parts, axis=1).reset_index()


def _setups(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Runs that differ only in the groups trained on, where one of them is a transfer."""
    whole: dict[str, list[RunResult]] = {}
    for result in results:
        if not result.groups:
            continue
        spec = result.spec
        data = spec.data.model_copy(update={"train_groups": None})
        key = f"{data.model_dump_json()} {result.encoder}"
        whole.setdefault(key, []).append(result)
    kept = [group for group in whole.values() if any(is_transfer(r) for r in group)]
    found: dict[str, list[RunResult]] = {}
    for group in kept:
        first = group[0]
        encoder = f", {Path(first.encoder).name}" if first.encoder else ""
        label = f"{first.dataset}{encoder}"
        found[f"{label} #{len(found) + 1}" if label in found else label] = group
    return found


def transfer_matrix(table: pd.DataFrame, metric: str = "macro_f1") -> pd.DataFrame:
    """(trained on × tested on) means of one set-up and method, in one order of the groups."""
    matrix = table.pivot_table(
        index="trained_on", columns="tested_on", values=f"{metric}_mean", sort=False
    )
    names = sorted(matrix.columns)
    known = [*names, *(WITHOUT + name for name in names)]
    others = [row for row in matrix.index if row not in known]
    return matrix.loc[[row for row in known if row in matrix.index] + others, names]


def transfer_columns(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the matrix, with the mean over other groups than those trained on."""
    wide = _wide_matrix(table)
    return wide.heads, wide.rows


def leave_one_out_columns(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """By group: macro-F1 where it was left out of the training, where not, and the loss."""
    unseen = table[table["left_out"]].set_index("tested_on")
    seen = table[table["trained_on"] == ALL].set_index("tested_on")
    rows = []
    for name in sorted(unseen.index):
        own, beside = unseen.loc[name], seen.loc[name] if name in seen.index else None
        gap = "–" if beside is None else f"{own['macro_f1_mean'] - beside['macro_f1_mean']:+.3f}"
        rows.append(
            [
                name, str(own["rows"]), mean_sd(own["macro_f1_mean"], own["macro_f1_sd"]),
                "–" if beside is None else mean_sd(beside["macro_f1_mean"], beside["macro_f1_sd"]),
                gap,
            ]
        )  # fmt: skip
    return ["group", "test rows", "left out", "trained with", "difference"], rows


def _wide_matrix(table: pd.DataFrame, metric: str = "macro_f1") -> Wide:
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
    return Wide(["trained on", *names, "others"], rows, best)


def transfer_verdict(table: pd.DataFrame) -> str:
    """What the table of one set-up and method says, in a sentence or two."""
    away = table[table["left_out"]]["macro_f1_mean"].mean()
    home = table[~table["left_out"] & (table["trained_on"] != ALL)]["macro_f1_mean"].mean()
    text = f"On groups it was trained on, macro-F1 is {home:.3f} on the mean; on others {away:.3f}."
    single = table[table["left_out"] & ~table["trained_on"].str.startswith(WITHOUT)]
    if len(single):
        means = single.groupby("trained_on")["macro_f1_mean"].mean()
        text += f" What carries over best is training on {means.idxmax()} ({means.max():.3f})."
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
        Lines on what could not be written.

    Raises:
        RunError: if the folder cannot be written.
    """
    table = transfer_table(results)
    if not len(table):
        return []
    parts: list[str] = []
    sheets: dict[str, Wide] = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        table.to_csv(out / "transfer.csv", index=False)
        for number, part in enumerate(_parts(table), start=1):
            label, method, own = part
            parts.append(f"## {label}, {method}: macro-F1\n\n{markdown(_wide_matrix(own))}\n")
            if own["trained_on"].str.startswith(WITHOUT).any():
                heads, rows = leave_one_out_columns(own)
                plain = Wide(heads, rows, [[False] * len(heads) for _ in rows])
                parts.append(f"{markdown(plain)}\n")
                sheets[f"{number} {method} left out"] = plain
            sheets[f"{number} {method}"] = _wide_matrix(own)
            name = f"transfer-{method}{'' if number == 1 else f'-{number}'}.png"
            transfer_map(own, f"{label}, {method}").savefig(out / name, dpi=160)
        (out / "transfer.md").write_text("\n".join(parts), encoding="utf-8")
    except OSError as error:
        raise RunError(f"Cannot write tables to {out}: {error.strerror or error}") from None
    return write_workbook(sheets, out / "transfer.xlsx")


def _parts(table: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    if not len(table):
        return []
    grouped = table.groupby(["setup", "method"], sort=False)
    return [(str(setup), str(method), own) for (setup, method), own in grouped]


def page_transfers(results: Sequence[RunResult]) -> list[dict[str, Any]]:
    """By set-up and method: words, table and heat map, for the page of a comparison."""
    found = []
    for label, method, own in _parts(transfer_table(results)):
        wide = _wide_matrix(own)
        cells = [
            [{"text": c, "best": mark} for c, mark in zip(row, marks, strict=True)]
            for row, marks in zip(wide.rows, wide.best, strict=True)
        ]
        found.append(
            {
                "label": f"{label}, {method}", "verdict": transfer_verdict(own),
                "heads": wide.heads, "rows": cells, "figure": transfer_map(own),
            }
        )  # fmt: skip
    return found
