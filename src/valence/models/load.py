"""Load any saved model folder, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from valence.errors import ModelError
from valence.models.base import TextModel
from valence.models.baselines import load_majority_model, load_tfidf_model
from valence.models.classifier import load_torch_model
from valence.models.fusion_model import load_fusion_model
from valence.models.store import read_config

LOADERS: dict[str, Callable[[Path], TextModel]] = {
    "torch": load_torch_model,
    "tfidf": load_tfidf_model,
    "majority": load_majority_model,
    "fusion": load_fusion_model,
}


def load_model(folder: str | Path) -> TextModel:
    """The model saved in ``folder``; needs no network beyond its base encoder.

    Raises:
        ModelError: if the folder is missing, is not a model, or has a missing or broken file.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ModelError(f"No model folder at {path}; train one: valence train DATA --out {path}")
    return LOADERS[read_config(path).kind](path)
