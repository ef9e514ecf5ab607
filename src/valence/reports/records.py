"""What a training, evaluation or tuning leaves beside a model: results.json, a picture."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from valence.errors import RunError
from valence.evaluation.classification import confusion
from valence.evaluation.task import softmax
from valence.reports.plots import COLORS, INK, draw_confusion, new_figure
from valence.runs.store import RunResult, RunStore
from valence.storage import atomic

EXAMPLES = 6
Mode = Literal["train", "continue", "evaluate", "tune"]


def record_run(
    store: RunStore,
    result: RunResult,
    folder: Path,
    *,
    mode: Mode,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write the record of a run into ``folder``: its test scores and settings.

    Args:
        store: Where the run is.
        result: The run.
        folder: Gets ``results.json`` (one more entry) and a picture.
        mode: What was done.
        more: Further fields of the entry.

    Raises:
        RunError: if the folder cannot be written.
    """
    table = store.predictions(result.key)
    table = table[table["split"] == "test"].reset_index(drop=True)
    count = max(1, len(result.classes))
    logits = table[[f"logit_{i}" for i in range(count)]].to_numpy(dtype=np.float32)
    entry = {
        "model": result.spec.method,
        "mode": mode,
        "data": result.dataset,
        "run": result.key,
        "rows": result.sizes,
        "metrics": {"validation": result.validation, "test": result.test},
        "parameters": result.spec.model_dump(mode="json", exclude={"method"}),
        **(more or {}),
    }
    record_scores(folder, entry, table, logits, result.classes)


def record_scores(
    folder: Path,
    entry: Mapping[str, Any],
    table: pd.DataFrame,
    logits: np.ndarray,
    classes: tuple[str, ...],
) -> None:
    """Append ``entry``, with a few predictions as examples, and draw predictions over truth.

    Args:
        folder: Gets both files; the picture is ``confusion.png``, or ``predicted.png`` where
            the target is an intensity.
        entry: Model, mode, metrics, parameters.
        table: Scored rows: ``text`` and ``label`` (ids, or intensities).
        logits: (N, C), or (N, 1) intensities.
        classes: Label names; empty where the target is an intensity.

    Raises:
        RunError: if the folder cannot be written.
    """
    shown = {"model": entry["model"], "mode": entry["mode"], "time": _now()}
    truth, title = table["label"].to_numpy(), str(entry["model"])
    if classes:
        examples = _examples(table, logits, classes)
        figure = confusion_figure(truth, logits.argmax(axis=1), classes, title=title)
    else:
        examples = _worst_and_best(table, logits[:, 0])
        figure = intensity_figure(truth, logits[:, 0], title=title)
    picture = "confusion.png" if classes else "predicted.png"
    whole = {**shown, **entry, "examples": examples}
    try:
        _append(folder / "results.json", whole)
    except OSError as error:
        raise RunError(f"Cannot write {folder}: {error.strerror or error}") from None
    with atomic.new_file(folder / picture) as path:
        figure.savefig(path, dpi=150)


def confusion_figure(
    labels: np.ndarray, predicted: np.ndarray, classes: tuple[str, ...], *, title: str
) -> Figure:
    """The confusion matrix of (N,) true and (N,) predicted ids, rows normalized to recall."""
    size = 2.6 + 0.32 * min(len(classes), 8)
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    FigureCanvasAgg(figure)
    counts = confusion(labels, predicted, len(classes))
    draw_confusion(figure.subplots(), counts, classes, title=title, first_column=True)
    figure.suptitle("Rows: true class; columns: prediction\nfractions of the true class",
                    fontsize=8, x=0.02, ha="left", color=INK)  # fmt: skip
    return figure


def intensity_figure(truth: np.ndarray, predicted: np.ndarray, *, title: str) -> Figure:
    """(N,) predicted over (N,) true intensities."""
    figure, axes = new_figure(4.2, 4.0)
    ends = [float(truth.min()), float(truth.max())]
    axes.plot(ends, ends, color="#999999", lw=0.8)
    axes.scatter(truth, predicted, s=9, alpha=0.5, lw=0, color=COLORS[0])
    axes.set_xlabel("true")
    axes.set_ylabel("predicted")
    axes.set_title(title, loc="left")
    return figure


def _worst_and_best(table: pd.DataFrame, predicted: np.ndarray) -> list[dict[str, Any]]:
    """The rows nearest to the truth and those farthest from it."""
    order = np.argsort(np.abs(predicted - table["label"].to_numpy()), kind="stable")
    half = min(EXAMPLES // 2, len(order) // 2)
    rows = [*order[:half], *order[len(order) - half :]]
    return [
        {"text": str(table["text"].iloc[i]), "true": round(float(table["label"].iloc[i]), 4),
         "predicted": round(float(predicted[i]), 4)}
        for i in rows
    ]  # fmt: skip


def _examples(
    table: pd.DataFrame, logits: np.ndarray, classes: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Predictions as they come, and as many errors as right ones where there are both."""
    predicted = logits.argmax(axis=1)
    confidences = softmax(logits).max(axis=1)
    right = predicted == table["label"].to_numpy()
    rows = [*np.flatnonzero(right)[: EXAMPLES // 2], *np.flatnonzero(~right)[: EXAMPLES // 2]]
    return [
        {
            "text": str(table["text"].iloc[i]), "true": classes[int(table["label"].iloc[i])],
            "predicted": classes[int(predicted[i])], "probability": round(float(confidences[i]), 4),
        }
        for i in rows
    ]  # fmt: skip


def _append(path: Path, entry: Mapping[str, Any]) -> None:
    """Add to the list in ``path``; a file that is no list is set aside and a new one begun."""
    entries: list[Any] = []
    if path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            known = None
        if isinstance(known, list):
            entries = known
        else:
            os.replace(path, path.with_suffix(".json.broken"))
    text = json.dumps([*entries, entry], ensure_ascii=False, indent=1, default=str)
    atomic.write_text(path, text + "\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
