"""Specs that train a saved model further, on new rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from valence.config.data import DataSpec
from valence.config.spec import RunSpec
from valence.errors import DataError, ModelError, SpecError
from valence.methods.registry import find_method, parse_spec, trained_part


def continued_spec(
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
    from valence.data.sources import load_dataset
    from valence.models.config_file import read_config
    from valence.training.continue_training import content_hash

    spec = _checked(folder)
    classes = read_config(folder).classes
    seed = spec.seed if seed is None else seed
    rows = load_dataset(data, seed=seed, data_dir=data_dir)
    new = tuple(name for name in rows.classes if name not in classes)
    if new and not extend_labels:
        what = "a label" if len(new) == 1 else "labels"
        raise DataError(
            f"{data.name} has {what} that {folder} does not know: {', '.join(new)}; correct them, "
            "or add them as classes with --extend-labels"
        )
    changes = {
        "data": data.model_copy(update={"classes": (*classes, *new)}), "seed": seed,
        "start": content_hash(folder),
    }  # fmt: skip
    return trained_part(spec).model_copy(update=changes).override(settings or {})


def check_start(spec: RunSpec, folder: str | Path | None) -> Path:
    """The folder of the model that a spec goes on from.

    Raises:
        SpecError: if it is not given, or holds another model than the spec names.
        ModelError: if no training can go on from it.
    """
    from valence.training.continue_training import content_hash

    if folder is None:
        raise SpecError(f"The spec continues model {spec.start}; set its folder with --from")
    path = Path(folder)
    _checked(path)
    if content_hash(path) != spec.start:
        raise SpecError(f"{path} is not the model {spec.start} that the spec continues")
    return path


def _checked(folder: Path) -> RunSpec:
    """The spec of a model that can be trained further."""
    from valence.models.config_file import read_config

    if not folder.is_dir():
        raise ModelError(f"No model folder at {folder}; use one that valence train wrote")
    config = read_config(folder)
    method = trained_part_of(config.method)
    find_method(method).check_continues(folder)
    if config.is_exported:
        raise ModelError(
            f"{folder} was exported and cannot be trained further; use the model it was exported "
            "from"
        )
    values = config.spec if config.spec.get("data") is not None else {**config.spec, "data": {}}
    return parse_spec(values)


def trained_part_of(method: str) -> str:
    """The method whose training a method rests on: itself for most.

    Raises:
        UnknownNameError: if the method is unknown.
    """
    known = find_method(method)
    return known.base_spec(RunSpec(method=method, config=known.Config())).method
