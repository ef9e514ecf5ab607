"""Labeled rows for a saved model: others that are named, or those of its own training."""

from __future__ import annotations

from pathlib import Path

from valence.config.data import DataSpec
from valence.data.dataset import Dataset
from valence.data.sources import LabeledRows, load_dataset, load_split
from valence.errors import DataError
from valence.models.config_file import ModelConfig

OWN_ROWS = "the training's data"


def training_dataset(config: ModelConfig, *, data_dir: str | Path | None = None) -> Dataset:
    """The rows a saved model was trained, chosen and tested on, split as they were.

    Args:
        config: Of the model.
        data_dir: Folder of corpora.

    Raises:
        DataError: if they cannot be had; says to name others.
    """
    if config.data is None:
        raise DataError("The model was trained on rows in memory; pass labeled rows with --data")
    spec = config.data.model_copy(update={"classes": config.classes or None})
    try:
        return load_dataset(spec, seed=config.seed, data_dir=data_dir)
    except DataError as error:
        raise DataError(
            f"{error}; the training rows are not available; pass others with --data"
        ) from None


def validation_rows(
    config: ModelConfig,
    spec: DataSpec | None,
    *,
    split: str = "validation",
    data_dir: str | Path | None = None,
) -> LabeledRows:
    """Labeled rows that the training of a model has not seen.

    Args:
        config: Of the model.
        spec: Names them; the validation rows of the training when None.
        split: Which, of a source with several.
        data_dir: Folder of corpora.

    Raises:
        DataError: if they cannot be had or have other labels.
    """
    if spec is not None:
        return load_split(
            spec, config.classes, split=split, data_dir=data_dir, trained_on=config.data
        )
    own = training_dataset(config, data_dir=data_dir)
    return LabeledRows(own.validation, OWN_ROWS, "validation", group=own.group)
