"""A finished run as a model: its outputs are read from its folder, not computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from valence.data.examples import Examples
from valence.errors import ModelError
from valence.evaluation.task import Task
from valence.models.base import Model, Outputs, Progress
from valence.models.loader import load_model
from valence.runs.artifacts import FEATURES
from valence.runs.store import RunResult, RunStore


@dataclass
class RecordedModel(Model):
    """The model of a run, for the rows that the run has scored.

    Attributes:
        logits: By row id, (C,) each.
        features: By row id, (H,) each; of the test rows alone.
        folder: The model folder of the run, if it was kept.
        seconds: What scoring the test rows took.
        shift: (C,) numbers added to the logits.
        out_of_fold: (N, C) logits of the training rows by models fitted without them; None where
            the run has none.
    """

    task: Task
    provenance: Mapping[str, Any]
    logits: dict[str, np.ndarray]
    features: dict[str, np.ndarray]
    folder: Path
    seconds: float
    trainable_parameters: int = 0
    shift: tuple[float, ...] | None = None
    out_of_fold: np.ndarray | None = None

    def predict(self, examples: Examples, progress: Progress | None = None) -> Outputs:
        """What the run gave for these rows.

        Raises:
            ModelError: if a row was not scored by the run.
        """
        ids = [] if examples.ids is None else [str(name) for name in examples.ids]
        if len(ids) != len(examples) or any(name not in self.logits for name in ids):
            raise ModelError("The run did not score some of these rows; use its model for them")
        width = self.task.output_size
        logits = np.array([self.logits[name] for name in ids], np.float32).reshape(-1, width)
        if self.shift is not None:
            logits = logits + np.asarray(self.shift, np.float32)
        rows = [self.features[name] for name in ids if name in self.features]
        whole = len(rows) == len(ids) and bool(rows)
        features = np.stack(rows) if whole else np.zeros((len(ids), 0), np.float32)
        return Outputs(logits, features, seconds=self.seconds)

    def shifted(self, shift: Sequence[float], provenance: Mapping[str, Any]) -> Model:
        """The same with (C,) numbers added to the logits of every row."""
        return replace(self, shift=tuple(float(x) for x in shift), provenance=provenance)

    def uncached(self) -> Model:
        """The model itself, from the folder of the run."""
        model = load_model(self.folder)
        return model if self.shift is None else model.shifted(self.shift, self.provenance)

    def save(self, folder: Path) -> None:
        """Write the model of the run, corrected.

        Raises:
            ModelError: if the run did not keep its model.
        """
        self.uncached().save(folder)


def recorded_model(store: RunStore, result: RunResult) -> RecordedModel:
    """The model of a finished run.

    Raises:
        RunError: if a file of the run is missing or broken.
    """
    whole = store.predictions(result.key)
    columns = [f"logit_{i}" for i in range(result.task.output_size)]
    of_training = whole["split"] == "train"
    own = whole.loc[of_training, columns].to_numpy(dtype=np.float32)
    table = whole[~of_training]
    logits = table[columns].to_numpy(dtype=np.float32)
    ids = table["id"].astype(str).tolist()
    tested = [name for name, split in zip(ids, table["split"], strict=True) if split == "test"]
    with np.load(store.path(result.key) / FEATURES) as file:
        features = file["features"]
    return RecordedModel(
        result.task, result.spec.model_dump(mode="json"),
        dict(zip(ids, logits, strict=True)), dict(zip(tested, features, strict=True)),
        store.path(result.key) / "model", result.inference_seconds, result.trainable_parameters,
        out_of_fold=own if len(own) else None,
    )  # fmt: skip
