"""What a run gave, and its files in the run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from valence.data.dataset import Dataset, Split
from valence.models.base import Outputs

if TYPE_CHECKING:
    from valence.models.base import Model
    from valence.runs.store import RunResult

PREDICTIONS = "predictions.parquet"
FEATURES = "features.npz"


@dataclass(frozen=True)
class RunOutputs:
    """What fitting and scoring gave.

    Attributes:
        model: The model.
        validation: Outputs of the validation rows; None where they were not scored.
        test: Outputs of the test rows.
        train_seconds, inference_seconds: To fit; to score the test rows.
        history: Training records by step.
        notes: Lines for the user.
        own_best: For each metric (step, test score) at its own best validation epoch, where
            a method keeps these weights.
        tables: Further tables of the run folder, by file name.
        out_of_fold: (N, C) logits of the training rows by models fitted without them; None where
            the method has none.
        is_refit: Whether the model may have been fitted on validation rows too, whose outputs are
            then those of models fitted without them.
    """

    model: Model
    validation: Outputs | None
    test: Outputs
    train_seconds: float
    inference_seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    own_best: dict[str, tuple[int, float | None]] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    out_of_fold: np.ndarray | None = None
    is_refit: bool = False


def write_artifacts(folder: Path, result: RunResult, dataset: Dataset, outputs: RunOutputs) -> None:
    """Fill a run folder with everything but the model."""
    (folder / "spec.yaml").write_text(result.spec.to_yaml(), encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in outputs.history)
    (folder / "history.jsonl").write_text(lines, encoding="utf-8")
    for name, table in outputs.tables.items():
        table.to_csv(folder / name, index=False)
    frames = [_frame("test", dataset, dataset.test, outputs.test.logits)]
    if outputs.validation is not None:
        validation = _frame("validation", dataset, dataset.validation, outputs.validation.logits)
        frames.insert(0, validation)
    if outputs.out_of_fold is not None:
        frames.insert(0, _frame("train", dataset, dataset.train, outputs.out_of_fold))
    pd.concat(frames, ignore_index=True).to_parquet(folder / PREDICTIONS, index=False)
    np.savez_compressed(
        folder / FEATURES,
        features=outputs.test.features.astype(np.float16),
        labels=dataset.test.labels,
        predictions=dataset.task.predictions(outputs.test.logits),
        logits=outputs.test.logits,
    )
    text = result.model_dump_json(indent=1)
    (folder / "result.json").write_text(text, encoding="utf-8")


def _frame(name: str, data: Dataset, split: Split, logits: np.ndarray) -> pd.DataFrame:
    columns: dict[str, Any] = {"split": name, "id": split.ids.astype(str), "text": split.texts}
    groups = data.groups(split)
    if groups is not None:
        columns["group"] = groups
    columns |= {"label": split.labels, "predicted": data.task.predictions(logits)}
    numbers = {f"logit_{i}": logits[:, i].astype(np.float32) for i in range(logits.shape[1])}
    return pd.DataFrame({**columns, **numbers})


def answers_table(dataset: Dataset, outputs: Outputs) -> pd.DataFrame:
    """What a prompted model answered to each test row: id, label (none where invalid), answer."""
    assert outputs.answers is not None
    valid = np.isfinite(outputs.logits).all(axis=1)
    best = np.where(valid, np.nan_to_num(outputs.logits).argmax(axis=1), -1)
    labels = [dataset.classes[i] if i >= 0 else None for i in best]
    return pd.DataFrame(
        {"id": dataset.test.ids.astype(str), "label": labels, "answer": list(outputs.answers)}
    )
