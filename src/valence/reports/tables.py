"""From run folders to tables: runs, summary, sensitivity and cases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from valence.comparison.settings import setting_names
from valence.comparison.sweep import Sweep
from valence.evaluation.representations import representations
from valence.runs.artifacts import FEATURES
from valence.runs.store import RunResult, RunStore


def setup_label(result: RunResult, *, dataset: str = "", encoder: str = "") -> str:
    """Names what must be equal for runs to stand in one table: corpus, size, encoder, epochs.

    Args:
        result: One of the runs.
        dataset: A longer name of its data set, where another has the same.
        encoder: A longer name of its encoder, likewise.
    """
    spec = result.spec
    parts = [f"{dataset or result.dataset}: {result.sizes['train']:,} training rows"]
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
        parts.append(encoder or Path(result.encoder).name)
    return ", ".join(parts)


def _setup_key(result: RunResult) -> str:
    return json.dumps([result.spec.data.model_dump(mode="json"), result.encoder])


def _data_key(result: RunResult) -> str:
    return json.dumps(result.spec.data.model_dump(mode="json"))


def by_setup(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Runs grouped by set-up, under readable labels; different samples are never mixed."""
    encoders: dict[str, str] = {}
    for result in results:
        if result.encoder is not None:
            encoders.setdefault(_data_key(result), _setup_key(result))
    groups: dict[str, list[RunResult]] = {}
    for result in results:
        key = _setup_key(result)
        if result.encoder is None:  # beside what was trained on the same rows
            key = encoders.get(_data_key(result), key)
        groups.setdefault(key, []).append(result)
    named = [next((r for r in group if r.encoder), group[0]) for group in groups.values()]
    return dict(zip(_distinct_labels(named), groups.values(), strict=True))


def _distinct_labels(results: Sequence[RunResult]) -> list[str]:
    """A label for each set-up; what has one name is told apart by folder, else by number."""
    data = [(r.dataset, r.spec.data.name) for r in results]
    encoders = [(Path(r.encoder).name, r.encoder) for r in results if r.encoder]
    labels: list[str] = []
    for result in results:
        dataset = _with_folders(result.dataset, result.spec.data.name, data)
        encoder = result.encoder or ""
        encoder = _with_folders(Path(encoder).name, encoder, encoders)
        label = setup_label(result, dataset=dataset, encoder=encoder)
        same = sum(label == known.partition(" #")[0] for known in labels)
        labels.append(f"{label} #{same + 1}" if same else label)
    return labels


def _with_folders(name: str, path: str, named: Sequence[tuple[str, str]]) -> str:
    """The name after as many folders of its path as tell it from other paths of that name."""
    alike = {other for known, other in named if known == name} | {path}
    parts = {other: (*Path(other).parent.parts, name) for other in alike}
    if len(set(parts.values())) < len(alike):  # reviews.csv beside reviews.jsonl
        parts = {other: Path(other).parts for other in alike}
    for depth in range(1, len(parts[path])):
        tails = {own[-depth:] for own in parts.values()}
        if len(tails) == len(alike):
            return "/".join(parts[path][-depth:])
    return "/".join(parts[path]) if len(alike) > 1 else name


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
