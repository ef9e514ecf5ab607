"""Fitting of a spec: :func:`fit_spec`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from valence.config.callbacks import EvalCallback, ProgressCallback
from valence.config.sections import AUTO_ENCODER
from valence.config.spec import RunSpec
from valence.errors import SpecError
from valence.methods.base import FitContext, FitResult

if TYPE_CHECKING:
    from valence.data.dataset import Dataset, TrainingData


def fit_spec(
    spec: RunSpec,
    data: TrainingData,
    *,
    checkpoint: Path | None = None,
    progress: ProgressCallback | None = None,
    on_evaluate: EvalCallback | None = None,
    start: Path | None = None,
    fit_base: Callable[[RunSpec, ProgressCallback | None], FitResult] | None = None,
    in_memory: bool = False,
) -> FitResult:
    """Fit a spec on training and validation rows; it has no access to test rows.

    Args:
        spec: What to fit.
        data: Training and validation rows.
        checkpoint: Folder of the checkpoints from which an interrupted training is resumed.
        progress: Called with the fraction done and a message.
        on_evaluate: Called with the validation score of every evaluation; methods without epochs
            have none.
        start: The model folder that a spec with ``start`` continues.
        fit_base: Fits the spec that another one builds on; by default on the same rows.
        in_memory: Whether the rows are in-memory objects, so that the model must not name their
            source.

    Raises:
        SpecError, DataError, ModelError, RunError: if settings, rows or encoder cannot be used,
            or the training breaks down.
    """
    from valence.methods.registry import find_method, make_spec

    spec, _ = with_encoder(spec, data.train.texts)
    if data.row_weights is not None:
        _check_weighs_rows(spec.method)
    values = spec.model_dump(mode="json")
    context = FitContext(
        spec, data.task, {**values, "data": None} if in_memory else values, checkpoint, progress,
        on_evaluate, start, data.group,
        fit_base or (lambda base, own: fit_spec(base, data, progress=own, in_memory=in_memory)),
        lambda name, settings: make_spec(name, spec.data, seed=spec.seed, settings=settings),
        data.row_weights,
    )  # fmt: skip
    return find_method(spec.method).fit(data.train, data.validation, context)


def _check_weighs_rows(name: str) -> None:
    from valence.methods.registry import METHODS, find_method

    if not find_method(name).capabilities.weighs_rows:
        known = ", ".join(n for n, method in METHODS.items() if method.capabilities.weighs_rows)
        raise SpecError(
            f"Method {name!r} cannot weight rows; remove the weights, or use one of {known}"
        )


def with_encoder(spec: RunSpec, texts: Sequence[str]) -> tuple[RunSpec, str]:
    """The spec with a chosen encoder where it says ``auto``, and why; else as it is, and "".

    Args:
        spec: The spec.
        texts: Training texts.
    """
    from valence.methods.registry import find_method

    chooses = find_method(spec.method).capabilities.chooses_encoder
    if spec.get("encoder.name") != AUTO_ENCODER or chooses:
        return spec, ""
    from valence.models.encoder_choice import choose_encoder

    name, reason = choose_encoder(texts)
    return spec.override({"encoder.name": name}), f"Encoder {name}: {reason}"


def resolve_encoder(spec: RunSpec, dataset: Dataset) -> tuple[RunSpec, Dataset]:
    """The spec with the encoder that ``auto`` stands for, and the rows with a note that says so.

    The key of a result holds the encoder itself, so this comes before it.
    """
    texts = dataset.train.texts
    if spec.data.train_groups:  # groups that are only tested must be readable too; no label is used
        texts = [*texts, *dataset.test.texts]
    spec, reason = with_encoder(spec, texts)
    return spec, replace(dataset, notes=(*dataset.notes, reason)) if reason else dataset
