"""Baselines: the largest class, and logistic regression on n-grams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from valence.data.examples import Examples
from valence.evaluation.task import Task
from valence.models.attribution import Attribution
from valence.models.base import Model, Outputs, Progress, no_features
from valence.models.config_file import read_config, write_config
from valence.models.ngrams import Ngrams
from valence.models.tensors import broken_parts, check_shapes, read_tensors
from valence.storage import atomic


@dataclass
class MajorityModel(Model):
    """Predicts the class priors of the training rows for every text."""

    task: Task
    provenance: Mapping[str, Any]

    def predict(self, examples: Examples, progress: Progress | None = None) -> Outputs:
        """The log priors, once per text."""
        counts = np.asarray(self.task.counts, dtype=float)
        logits = np.log(np.maximum(counts, 1e-9) / max(1, counts.sum()))
        rows = np.tile(logits.astype(np.float32), (len(examples), 1))
        return Outputs(rows, no_features(len(examples)))

    def attribute(self, text: str, target: int, steps: int = 32) -> Attribution:
        """No word adds anything."""
        return Attribution(note="This model predicts the same label for every text.")

    def save(self, folder: Path) -> None:
        """Write ``config.json``; there is nothing else."""
        folder.mkdir(parents=True, exist_ok=True)
        write_config(folder, loader="majority", task=self.task, provenance=self.provenance)


@dataclass
class TfidfModel(Model):
    """Logistic regression on TF-IDF of word and letter n-grams."""

    task: Task
    provenance: Mapping[str, Any]
    ngrams: Ngrams
    weight: np.ndarray
    bias: np.ndarray

    @property
    def trainable_parameters(self) -> int:  # type: ignore[override]
        """Coefficients of the regression."""
        return int(self.weight.size + self.bias.size)

    def predict(self, examples: Examples, progress: Progress | None = None) -> Outputs:
        """Decision values (N, C); there are no dense features."""
        rows = self.ngrams.transform(examples.texts)
        logits = (rows @ self.weight.T + self.bias).astype(np.float32)
        return Outputs(logits, no_features(len(examples)))

    def attribute(self, text: str, target: int, steps: int = 32) -> Attribution:
        """Coefficient × value of every term, by word."""
        from valence.models.attribution import term_contributions

        return term_contributions(self, text, target)

    def save(self, folder: Path) -> None:
        """Write terms as JSON and numbers as safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"weight": self.weight, "bias": self.bias, **self.ngrams.save(folder)}
        with atomic.new_file(folder / "regression.safetensors") as path:
            save_file(tensors, path)
        write_config(folder, loader="tfidf", task=self.task, provenance=self.provenance)


def load_majority_model(folder: Path) -> MajorityModel:
    """The model that :meth:`MajorityModel.save` wrote."""
    config = read_config(folder)
    return MajorityModel(config.task, config.spec)


def load_tfidf_model(folder: Path) -> TfidfModel:
    """The model that :meth:`TfidfModel.save` wrote.

    Raises:
        ModelError: if a file is missing or truncated.
    """
    config = read_config(folder)
    path = folder / "regression.safetensors"
    tensors = read_tensors(path)
    with broken_parts(folder):
        ngrams = Ngrams.load(folder, tensors)
    count = len(config.classes)
    shapes = {"weight": (count, ngrams.size), "bias": (count,), **ngrams.shapes()}
    check_shapes(tensors, shapes, path)
    weight, bias = tensors["weight"], tensors["bias"]
    return TfidfModel(config.task, config.spec, ngrams, weight, bias)
