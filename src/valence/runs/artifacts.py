"""What a run found, and its files in the run folder, whatever the kind of method."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from valence.data.dataset import Dataset, Split
from valence.models.base import Scores, TextModel
from valence.runs.store import RunResult


@dataclass(frozen=True)
class RunOutputs:
    """What fitting and scoring gave, whatever the kind of method.

    Attributes:
        model: The model, or None where only its logits were needed.
        validation, test: Scores of the rows of these splits, in their order.
        train_seconds, inference_seconds: To fit; to score the test rows.
        trainable_parameters: Numbers that the training set.
        history: Training records by step.
        notes: Lines for the user.
        own_best: For each metric (step, test score) at its own best validation epoch, where
            a method keeps these weights.
        tables: Further tables of the run folder, by file name.
    """

    model: TextModel | None
    validation: Scores
    test: Scores
    train_seconds: float
    inference_seconds: float
    trainable_parameters: int
    history: list[dict[str, Any]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    own_best: dict[str, tuple[int, float | None]] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


_NONE = Scores(np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32))
NO_OUTPUTS = RunOutputs(None, _NONE, _NONE, 0.0, 0.0, 0)
"""What processes other than the first have: they train only."""


def write_result(folder: Path, result: RunResult, dataset: Dataset, outcome: RunOutputs) -> None:
    """Fill a run folder with everything but the model."""
    (folder / "spec.yaml").write_text(result.spec.to_yaml(), encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in outcome.history)
    (folder / "history.jsonl").write_text(lines, encoding="utf-8")
    for name, table in outcome.tables.items():
        table.to_csv(folder / name, index=False)
    frames = [
        _frame("validation", as_asked(dataset, outcome), outcome.validation.logits),
        _frame("test", dataset, outcome.test.logits),
    ]
    pd.concat(frames, ignore_index=True).to_parquet(folder / "predictions.parquet", index=False)
    np.savez_compressed(
        folder / "features.npz",
        features=outcome.test.features.astype(np.float16),
        labels=dataset.test.labels,
        predictions=_predicted(outcome.test.logits),
        logits=outcome.test.logits,
    )
    text = result.model_dump_json(indent=1)
    (folder / "result.json").write_text(text, encoding="utf-8")


def as_asked(dataset: Dataset, outcome: RunOutputs) -> Dataset:
    """Without validation rows where a language model was not asked about them."""
    if len(outcome.validation.logits):
        return dataset
    return replace(dataset, validation=dataset.validation.take([]))


def _predicted(logits: np.ndarray) -> np.ndarray:
    """(N,) class ids, or intensities where there is one output."""
    return logits.argmax(axis=1) if logits.shape[1] > 1 else logits[:, 0]


def _frame(name: Literal["validation", "test"], data: Dataset, logits: np.ndarray) -> pd.DataFrame:
    split: Split = getattr(data, name)
    columns = {"split": name, "id": split.ids.astype(str), "text": split.texts}
    groups = data.groups(split)
    if groups is not None:
        columns["group"] = groups
    frame = pd.DataFrame({**columns, "label": split.labels, "predicted": _predicted(logits)})
    for i in range(logits.shape[1]):
        frame[f"logit_{i}"] = logits[:, i].astype(np.float32)
    return frame
