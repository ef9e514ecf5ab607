"""Further training: the spec that goes on from a saved model with new rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from valence.config.spec import DataSpec, RunSpec
from valence.data.sources import load_dataset
from valence.errors import DataError
from valence.methods.registry import trained_part
from valence.training.continue_training import content_hash, start_config


def further_spec(
    folder: Path,
    data: DataSpec,
    *,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    data_dir: str | Path | None = None,
    extend_labels: bool = False,
) -> RunSpec:
    """The spec that trains the model in ``folder`` further; for ``run(spec, start=folder)``.

    Method, settings and classes are the model's.

    Args:
        folder: A model folder.
        data: The new rows.
        seed: Seed of everything random; the model's when not given.
        settings: Dotted settings that change; encoder and head cannot.
        data_dir: Folder of corpora.
        extend_labels: Take labels the model does not know as new classes, behind its own.

    Raises:
        ModelError: if the folder is no model, or one that is fitted in one go.
        DataError: if the data cannot be used, or has labels the model does not know.
    """
    config = start_config(folder)
    seed = config.spec.seed if seed is None else seed
    found = load_dataset(data, seed=seed, data_dir=data_dir)
    new = tuple(name for name in found.classes if name not in config.classes)
    if new and not extend_labels:
        what = "a label" if len(new) == 1 else "labels"
        raise DataError(
            f"{data.name} has {what} that {folder} does not know: {', '.join(new)}; correct them, "
            "or take them as new classes with --extend-labels"
        )
    rows = data.model_copy(update={"classes": (*config.classes, *new)})
    base = trained_part(config.spec)
    start = {"data": rows, "seed": seed, "start": content_hash(folder)}
    return base.model_copy(update=start).override(settings or {})
