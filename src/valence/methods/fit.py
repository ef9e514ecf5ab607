"""Fitting what a spec says: :func:`fit_spec`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from valence.config.callbacks import EvalCallback, ProgressCallback
from valence.config.spec import RunSpec
from valence.methods.base import FitContext, FitResult

if TYPE_CHECKING:
    from valence.data.dataset import TrainingData


def fit_spec(
    spec: RunSpec,
    data: TrainingData,
    *,
    checkpoint: Path | None = None,
    progress: ProgressCallback | None = None,
    on_evaluate: EvalCallback | None = None,
    start: Path | None = None,
    fit_base: Callable[[RunSpec], FitResult] | None = None,
    in_memory: bool = False,
) -> FitResult:
    """Fit what a spec says on training and validation rows; no test row is at hand.

    Args:
        spec: What to fit.
        data: Training and validation rows.
        checkpoint: Where an interrupted training keeps what it needs to go on.
        progress: Called with the part of the training that is done.
        on_evaluate: Called with the validation score of every evaluation; methods fitted in one
            go have none.
        start: The model folder that a spec with ``start`` goes on from.
        fit_base: Fits the spec that another one rests on; the same rows here when not given.
        in_memory: Whether the rows were given as objects, so that the model must not name a
            source of them.

    Raises:
        SpecError, DataError, ModelError, RunError: if settings, rows or encoder cannot be used,
            or the training breaks down.
    """
    from valence.methods.registry import find_method

    values = spec.model_dump(mode="json")
    context = FitContext(
        spec, data.task, {**values, "data": None} if in_memory else values, checkpoint, progress,
        on_evaluate, start, data.group,
        fit_base or (lambda base: fit_spec(base, data, progress=progress, in_memory=in_memory)),
    )  # fmt: skip
    return find_method(spec.method).fit(data.train, data.validation, context)
