"""Models as tests need them: with new weights, or fitted."""

from __future__ import annotations

from pathlib import Path

from valence.config.spec import RunSpec
from valence.data.dataset import TrainingData
from valence.methods.base import FitContext
from valence.methods.finetune import network_config, seeded_model
from valence.methods.fit import fit_spec
from valence.methods.registry import METHODS
from valence.models.base import Model
from valence.models.torch_model import TorchModel
from valence.training.continue_training import load_start


def untrained(spec: RunSpec, data: TrainingData) -> TorchModel:
    """The network of a fine-tuning method with its initial weights."""
    context = FitContext(spec, data.task, spec.model_dump(mode="json"))
    return seeded_model(spec.config, context)


def fitted(spec: RunSpec, data: TrainingData) -> Model:
    """The model of any method."""
    return fit_spec(spec, data).model


def of_family(*families: str) -> list[str]:
    """The methods of some families."""
    return [name for name, method in METHODS.items() if method.family in families]


def continued(spec: RunSpec, data: TrainingData, folder: Path) -> TorchModel:
    """The saved network as further training starts from it."""
    config = network_config(spec.config)
    return load_start(folder, config, data.task, spec.model_dump(mode="json"), seed=spec.seed)
