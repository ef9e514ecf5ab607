"""From run folders to tables: runs, leaderboard, summary, sensitivity and cases."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from valence.comparison.significance import against_baseline
from valence.errors import RunError
from valence.evaluation.classification import METRICS
from valence.reports.scoring import CH_SIMS, CLASSES, MOSI, Scoring, scoring_of
from valence.runs.store import RunResult, RunStore

STATS = ("mean", "sd")
ALPHA = 0.05


def setup_label(result: RunResult) -> str:
    """Names what must be equal for runs to stand in one table: corpus, size, encoder, epochs."""
    spec = result.spec
    parts = [result.dataset, f"N={result.sizes['train']}"]
    if spec.data.imbalance_ratio is not None:
        parts.append(f"ratio {spec.data.imbalance_ratio:g}")
    if spec.data.groups is not None:
        parts.append(f"only {', '.join(spec.data.groups)}")
    if spec.data.train_groups is not None:
        parts.append(f"trained on {', '.join(spec.data.train_groups)}")
    if result.encoder is not None:
        parts.append(Path(result.encoder).name)
    return ", ".join(parts)


def _setup_key(result: RunResult) -> str:
    return json.dumps([result.spec.data.model_dump(mode="json"), result.encoder])


def _data_key(result: RunResult) -> str:
    return json.dumps(result.spec.data.model_dump(mode="json"))


def by_setup(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Runs grouped by set-up, under readable labels; different cuts are never mixed."""
    groups: dict[str, list[RunResult]] = {}
    labels: dict[str, str] = {}
    encoders: dict[str, str] = {}
    for result in results:
        if result.encoder is not None:
            encoders.setdefault(_data_key(result), _setup_key(result))
    named = {_setup_key(r): r for r in results if r.encoder is not None}
    for result in results:
        key = _setup_key(result)
        if result.encoder is None:  # beside what was trained on the same rows
            key = encoders.get(_data_key(result), key)
        if key not in labels:
            label = setup_label(named.get(key, result))
            same = sum(label == known.partition(" #")[0] for known in labels.values())
            labels[key] = f"{label} #{same + 1}" if same else label
        groups.setdefault(labels[key], []).append(result)
    return groups


def runs_table(results: Sequence[RunResult]) -> pd.DataFrame:
    """One row per run: what it was, every test score, and what it cost."""
    rows = []
    for label, group in by_setup(results).items():
        for result in group:
            rows.append(
                {
                    "setup": label, "dataset": result.dataset, "n_train": result.sizes["train"],
                    "method": result.spec.method, "seed": result.spec.seed, **result.test,
                    "train_seconds": result.train_seconds,
                    "inference_seconds": result.inference_seconds,
                    "peak_memory_mib": result.peak_memory_mib,
                    "trainable_parameters_m": result.trainable_parameters / 1e6,
                    "key": result.key,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def unswept(
    results: Sequence[RunResult], axes: Mapping[str, Sequence[Any]] | None
) -> list[RunResult]:
    """One run per (set-up, method, seed): with a sweep, the first, which is the plain spec."""
    kept: dict[tuple[str, str, int], RunResult] = {}
    for result in results:
        kept.setdefault((_setup_key(result), result.spec.method, result.spec.seed), result)
    return list(kept.values()) if axes else list(results)


def leaderboard(
    store: RunStore, results: Sequence[RunResult], baseline: str | None
) -> pd.DataFrame:
    """One row per set-up and method, best macro-F1 first.

    Args:
        store: Where the predictions are.
        results: Runs, without those of a sweep (see :func:`unswept`).
        baseline: Method the others are tested against.

    Returns:
        setup, method, seeds, ``<metric>_mean`` and ``<metric>_sd`` for the metrics shown,
        difference to the baseline with its interval and Holm-adjusted p-value, mark, and cost.
    """
    tables = [_rank(store, label, group, baseline) for label, group in by_setup(results).items()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _rank(
    store: RunStore, label: str, group: list[RunResult], baseline: str | None
) -> pd.DataFrame:
    runs = runs_table(group)
    scoring = scoring_of(group[0])
    rows = []
    for method, own in runs.groupby("method", sort=False):
        row: dict[str, Any] = {"setup": label, "method": method, "seeds": len(own)}
        for metric in scoring.shown:
            values = own[metric].dropna().astype(float)
            row[f"{metric}_mean"] = values.mean() if len(values) else None
            row[f"{metric}_sd"] = values.std() if len(values) > 1 else None
        row["trainable_parameters_m"] = own["trainable_parameters_m"].iloc[0]
        row["train_seconds"] = own["train_seconds"].mean()
        row["inference_seconds"] = own["inference_seconds"].mean()
        row["peak_memory_mib"] = own["peak_memory_mib"].max()
        rows.append(row)
    table = pd.DataFrame(rows)
    compared = (
        against_baseline(store, group, baseline, metric=scoring.main)
        if baseline
        else pd.DataFrame()
    )
    columns = ["difference", "low", "high", "p", "p_holm"]
    if len(compared):
        table = table.merge(compared[["method", *columns]], on="method", how="left")
    else:
        table[columns] = np.nan
    table["mark"] = [_mark(row, baseline, scoring) for _, row in table.iterrows()]
    return table.sort_values(
        f"{scoring.main}_mean", ascending=scoring.lower_is_better, ignore_index=True
    )


def _mark(row: pd.Series, baseline: str | None, scoring: Scoring) -> str:
    if row["method"] == baseline:
        return "baseline"
    if pd.isna(row["p_holm"]):
        return ""
    if row["p_holm"] >= ALPHA:
        return "≈"
    return "▲" if scoring.gain(row["difference"]) else "▼"


def leaderboard_columns(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of a leaderboard as a person reads them."""
    several = table["setup"].nunique() > 1
    scoring = scoring_in(table)
    heads = [*(["set-up"] if several else []), "method", "n"]
    shown = [m for m in scoring.shown if f"{m}_mean" in table]
    heads += [scoring.titles[m] for m in shown] + [f"Δ {scoring.titles[scoring.main]} [95%]", ""]
    heads += ["params M", "train s", "test s", "MiB"]
    rows = []
    for _, row in table.iterrows():
        cells = [row["setup"]] if several else []
        cells += [row["method"], str(row["seeds"])]
        cells += [mean_sd(row[f"{m}_mean"], row[f"{m}_sd"]) for m in shown]
        cells += [interval(row), row["mark"], f"{row['trainable_parameters_m']:.2f}"]
        cells += [f"{row['train_seconds']:.0f}", f"{row['inference_seconds']:.1f}"]
        rows.append([*cells, f"{row['peak_memory_mib']:.0f}"])
    return heads, rows


def scoring_in(table: pd.DataFrame) -> Scoring:
    """How the rows of a leaderboard of one target are shown."""
    if "mae_mean" not in table:
        return CLASSES
    return MOSI if "acc7_mean" in table else CH_SIMS


def by_target(table: pd.DataFrame) -> list[pd.DataFrame]:
    """A leaderboard in parts that have the same metrics, each without the others' columns."""
    kinds = [_row_scoring(row) for _, row in table.iterrows()]
    every = {f"{m}_{end}" for s in (CLASSES, MOSI, CH_SIMS) for m in s.shown for end in STATS}
    parts = []
    for scoring in (CLASSES, MOSI, CH_SIMS):
        rows = table[[kind is scoring for kind in kinds]]
        own = {f"{m}_{end}" for m in scoring.shown for end in STATS}
        if len(rows):
            gone = [column for column in rows.columns if column in every - own]
            parts.append(rows.drop(columns=gone).reset_index(drop=True))
    return parts


def _row_scoring(row: pd.Series) -> Scoring:
    if pd.isna(row.get("mae_mean")):
        return CLASSES
    return CH_SIMS if pd.isna(row.get("acc7_mean")) else MOSI


def mean_sd(mean: float | None, sd: float | None) -> str:
    """``0.312 ± 0.010``; a dash where there is nothing."""
    if mean is None or pd.isna(mean):
        return "–"
    return f"{mean:.3f}" if sd is None or pd.isna(sd) else f"{mean:.3f} ± {sd:.3f}"


def interval(row: pd.Series) -> str:
    """``+0.021 [+0.004, +0.038]``; empty for the baseline."""
    if pd.isna(row["difference"]):
        return ""
    return f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def summary_markdown(results: Sequence[RunResult]) -> str:
    """Per set-up and method: mean ± sample standard deviation of every metric, best seed."""
    parts = []
    for label, group in by_setup(results).items():
        runs = runs_table(group)
        scoring = scoring_of(group[0])
        titles = scoring.titles
        names = list(METRICS) if scoring is CLASSES else list(scoring.shown)
        names += [*(n for n in runs.columns if n.startswith("f1/"))]
        heads = ["method", "seeds", *(titles.get(n, n) for n in names)]
        heads.append("best seed")
        lines = [f"## {label}", "", "| " + " | ".join(heads) + " |"]
        lines.append("|" + "---|" * len(heads))
        for method, own in runs.groupby("method", sort=False):
            scores = [own[n].dropna().astype(float) for n in names]
            cells = [mean_sd(s.mean(), s.std() if len(s) > 1 else None) for s in scores]
            order = own[scoring.main].astype(float) * (-1 if scoring.lower_is_better else 1)
            best = own["seed"].iloc[int(order.argmax())]
            lines.append("| " + " | ".join([str(method), str(len(own)), *cells, str(best)]) + " |")
        parts.append("\n".join(lines))
    synthetic = sorted({r.dataset for r in results if r.synthetic})
    note = f"\n\nSynthetic corpus: {', '.join(synthetic)}." if synthetic else ""
    return "\n\n".join(parts) + note + "\n"


def sensitivity_table(
    results: Sequence[RunResult], axes: Mapping[str, Sequence[Any]]
) -> pd.DataFrame:
    """One row per run that stands at a point of the sweep, with the value on every axis."""
    rows = []
    for result in results:
        values = {axis: setting(result, axis) for axis in axes}
        if all(values[a] in list(axes[a]) for a in axes):
            scores = {name: result.test.get(name) for name in scoring_of(result).titles}
            own = {"dataset": result.dataset, "n_train": result.sizes["train"]}
            rows.append(
                {**own, "method": result.spec.method, "seed": result.spec.seed, **values, **scores}
            )
    return pd.DataFrame(rows)


def setting(result: RunResult, path: str) -> Any:
    """The value of a dotted setting in a run's spec."""
    return result.spec.get(path)


def cases(store: RunStore, result: RunResult) -> pd.DataFrame:
    """Every test row: id, text, true, predicted, probability of the prediction; worst first."""
    rows = store.predictions(result.key)
    rows = rows[rows["split"] == "test"]
    if not result.classes:
        return _intensity_cases(rows)
    names = np.array(result.classes)
    logits = rows[[f"logit_{i}" for i in range(len(names))]].to_numpy(dtype=np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    table = pd.DataFrame(
        {
            "id": rows["id"].to_numpy(),
            "text": rows["text"].to_numpy(),
            "true": names[rows["label"].to_numpy()],
            "predicted": names[rows["predicted"].to_numpy()],
            "probability": shares.max(axis=1).round(4),
        }
    )
    wrong = table["true"] != table["predicted"]
    order = np.lexsort((-table["probability"].to_numpy(), ~wrong.to_numpy()))
    return table.iloc[order].reset_index(drop=True)


def _intensity_cases(rows: pd.DataFrame) -> pd.DataFrame:
    """Every test row: id, text, true, predicted, error; the furthest off first."""
    table = rows[["id", "text", "label", "predicted"]].rename(columns={"label": "true"})
    table = table.assign(error=(table["predicted"] - table["true"]).abs().round(4))
    return table.sort_values("error", ascending=False, kind="stable", ignore_index=True)


def own_best_table(results: Sequence[RunResult]) -> pd.DataFrame:
    """Each metric at its own best validation epoch: one row per set-up, method and metric.

    As many models as metrics stand behind a method's rows; papers often report this way.
    """
    rows = []
    for label, group in by_setup(results).items():
        for result in group:
            for metric, (step, value) in result.own_best.items():
                rows.append(
                    {
                        "setup": label, "method": result.spec.method, "seed": result.spec.seed,
                        "metric": metric, "step": step, "test_at_own_best": value,
                        "test_at_best_main": result.test.get(metric),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def write_tables(
    store: RunStore,
    results: Sequence[RunResult],
    out: Path,
    *,
    baseline: str | None = None,
    axes: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Write results.csv, leaderboard.csv, summary.md, sensitivity.csv, features/ and cases/.

    Raises:
        RunError: if the folder cannot be written.
    """
    plain = unswept(results, axes)
    try:
        for name in ("features", "cases"):
            (out / name).mkdir(parents=True, exist_ok=True)
        runs_table(results).to_csv(out / "results.csv", index=False)
        leaderboard(store, plain, baseline).to_csv(out / "leaderboard.csv", index=False)
        (out / "summary.md").write_text(summary_markdown(plain), encoding="utf-8")
        if axes:
            sensitivity_table(results, axes).to_csv(out / "sensitivity.csv", index=False)
        own = own_best_table(plain)
        if len(own):
            own.to_csv(out / "own_best_epochs.csv", index=False)
        for result in plain:
            cases(store, result).to_csv(out / "cases" / f"{result.key}.csv", index=False)
            shutil.copyfile(
                store.path(result.key) / "features.npz", out / "features" / f"{result.key}.npz"
            )
    except OSError as error:
        raise RunError(f"Cannot write tables to {out}: {error.strerror or error}") from None
