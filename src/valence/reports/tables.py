"""From run folders to tables: runs, summary, sensitivity and cases."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from valence.comparison.settings import setting_names
from valence.comparison.sweep import Sweep
from valence.evaluation.representations import representations
from valence.runs.artifacts import FEATURES
from valence.runs.store import RunResult, RunStore


def setup_label(result: RunResult) -> str:
    """Names what must be equal for runs to stand in one table: corpus, size, encoder, epochs."""
    spec = result.spec
    parts = [f"{result.dataset}: {result.sizes['train']:,} training rows"]
    if spec.data.imbalance_ratio is not None:
        parts.append(f"ratio {spec.data.imbalance_ratio:g}")
    if spec.data.groups is not None:
        parts.append(f"only {', '.join(spec.data.groups)}")
    if spec.data.train_groups is not None:
        parts.append(f"trained on {', '.join(spec.data.train_groups)}")
    if result.spec.data.group_rows is not None:
        limits = result.spec.data.group_rows.items()
        parts.append(", ".join(f"{rows} rows of {name}" for name, rows in limits))
    if result.encoder is not None:
        parts.append(Path(result.encoder).name)
    return ", ".join(parts)


def _setup_key(result: RunResult) -> str:
    return json.dumps([result.spec.data.model_dump(mode="json"), result.encoder])


def _data_key(result: RunResult) -> str:
    return json.dumps(result.spec.data.model_dump(mode="json"))


def by_setup(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Runs grouped by set-up, under readable labels; different samples are never mixed."""
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
            label = _told_apart(setup_label(named.get(key, result)), result, named)
            same = sum(label == known.partition(" #")[0] for known in labels.values())
            labels[key] = f"{label} #{same + 1}" if same else label
        groups.setdefault(labels[key], []).append(result)
    return groups


def _told_apart(label: str, result: RunResult, named: Mapping[str, RunResult]) -> str:
    """The label with the folder of its file, where another set-up of the same name has another."""
    alike = [other for other in named.values() if setup_label(other) == label]
    folders = {Path(other.spec.data.name).parent.name for other in alike}
    own = Path(result.spec.data.name).parent.name
    return f"{own}/{label}" if len(folders) > 1 and own else label


def runs_table(results: Sequence[RunResult]) -> pd.DataFrame:
    """One row per run: what it was, every test score, and what it cost.

    The ``name`` is the method, with the settings in which runs of it differ within the set-up:
    what has one name differs in nothing but the seed. A score that is undefined is NaN.
    """
    rows = []
    scores: dict[str, None] = {}
    for label, group in by_setup(results).items():
        names = setting_names(group)
        for result in group:
            scores |= dict.fromkeys(result.test)
            rows.append(
                {
                    "setup": label, "dataset": result.dataset, "n_train": result.sizes["train"],
                    "method": result.spec.method, "name": names[result.key],
                    "seed": result.spec.seed, **result.test,
                    "train_seconds": result.train_seconds,
                    "inference_seconds": result.inference_seconds,
                    "peak_memory_mib": result.peak_memory_mib,
                    "trainable_parameters_m": result.trainable_parameters / 1e6,
                    "key": result.key,
                }
            )  # fmt: skip
    return pd.DataFrame(rows).astype(dict.fromkeys(scores, float))


def mean_sd(mean: float | None, sd: float | None = None) -> str:
    """``0.312 ± 0.010``; a dash where there is nothing."""
    if mean is None or pd.isna(mean):
        return "–"
    return f"{mean:.3f}" if sd is None or pd.isna(sd) else f"{mean:.3f} ± {sd:.3f}"


def summary_markdown(results: Sequence[RunResult]) -> str:
    """Per set-up and setting: mean ± sample standard deviation of every metric, best seed."""
    parts = [_summary(label, group) for label, group in by_setup(results).items()]
    synthetic = sorted({r.dataset for r in results if r.synthetic})
    note = f"\n\nSynthetic corpus: {', '.join(synthetic)}." if synthetic else ""
    return "\n\n".join(parts) + note + "\n"


def _summary(label: str, group: list[RunResult]) -> str:
    runs = runs_table(group)
    task = group[0].task
    metrics = list(task.titles)
    metrics += [n for n in runs.columns if n.startswith("f1/")]
    heads = ["method", "seeds", *(task.titles.get(n, n) for n in metrics), "best seed"]
    lines = [f"## {label}", "", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, own in runs.groupby("name", sort=False):
        cells = [mean_sd(own[n].mean(), own[n].std()) for n in metrics]
        scored = own[own[task.main_metric].notna()].sort_values(
            task.main_metric, ascending=task.main_lower_is_better, kind="stable"
        )
        best = str(scored["seed"].iloc[0]) if len(scored) else "–"
        row = [str(name), str(own["seed"].nunique()), *cells, best]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def sensitivity_table(sweep: Sweep) -> pd.DataFrame:
    """One row per run at a point of the sweep, with the value on every axis."""
    names = setting_names(sweep.results, ignored=sweep.axes)
    rows = []
    for result in sweep.results:
        rows.append(
            {
                "dataset": result.dataset, "n_train": result.sizes["train"],
                "method": result.spec.method, "name": names[result.key],
                "seed": result.spec.seed,
                **{axis: result.spec.get(axis) for axis in sweep.axes},
                **{name: result.test.get(name) for name in result.task.titles},
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def representations_table(store: RunStore, results: Sequence[RunResult]) -> pd.DataFrame:
    """One row per run whose model has features of classes: how they separate the test rows."""
    rows = []
    names = setting_names(results) if results else {}
    for result in results:
        with np.load(store.path(result.key) / FEATURES) as file:
            features, labels = file["features"], file["labels"]
        if result.classes and features.shape[1]:
            classes = len(result.classes)
            measured = representations(features, labels, classes, tail=result.tail)
            about = {"name": names[result.key], "seed": result.spec.seed, "key": result.key}
            rows.append(about | measured.summary())
    return pd.DataFrame(rows)


def cases(store: RunStore, result: RunResult) -> pd.DataFrame:
    """Every test row: id, text, true, predicted, probability of the prediction; worst first."""
    rows = store.predictions(result.key)
    rows = rows[rows["split"] == "test"]
    if not result.classes:
        return _intensity_cases(rows)
    names = np.array(result.classes)
    logits = rows[[f"logit_{i}" for i in range(len(names))]].to_numpy(dtype=np.float64)
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    table = pd.DataFrame(
        {
            "id": rows["id"].to_numpy(),
            "text": rows["text"].to_numpy(),
            "true": names[rows["label"].to_numpy()],
            "predicted": names[rows["predicted"].to_numpy()],
            "probability": probs.max(axis=1).round(4),
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
    """Each metric at its own best validation epoch: one row per run and metric.

    As many models as metrics stand behind a method's rows; papers often report this way.
    """
    rows = []
    for label, group in by_setup(results).items():
        names = setting_names(group)
        for result in group:
            for metric, (step, value) in result.own_best.items():
                rows.append(
                    {
                        "setup": label, "method": result.spec.method, "name": names[result.key],
                        "seed": result.spec.seed, "metric": metric, "step": step,
                        "test_at_own_best": value, "test_at_best_main": result.test.get(metric),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)
