"""Fitting what a spec says on training and validation rows; no test row is at hand here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from valence.config.spec import RunSpec
from valence.data.dataset import TrainingData
from valence.errors import UnknownNameError
from valence.models.base import TextModel
from valence.models.baselines import BASELINES
from valence.models.classifier import TorchModel, build_model
from valence.models.fusion_model import FusionModel
from valence.training.continue_training import load_start
from valence.training.diagnostics import failure_signs
from valence.training.fusion_trainer import FusionLog, build_seeded_fusion, train_fusion
from valence.training.trainer import EvalCallback, Report, train


def fit_sealed(
    spec: RunSpec,
    data: TrainingData,
    *,
    checkpoint: Path | None = None,
    report: Report | None = None,
    on_evaluate: EvalCallback | None = None,
    start: Path | None = None,
) -> tuple[TextModel, tuple[list[dict[str, Any]], tuple[str, ...]]]:
    """Fit what a spec of kind ``torch`` or ``sklearn`` says; no test row is at hand.

    Args:
        spec: What to fit; of any kind but ``posthoc``.
        data: Training and validation rows.
        checkpoint: Where an interrupted training keeps what it needs to go on.
        report: Told how far the training is.
        on_evaluate: Told the validation score of every evaluation; methods fitted in one go have
            none.
        start: The model folder that a spec with ``start`` goes on from.

    Returns:
        The model, and (history, notes).

    Raises:
        SpecError, DataError, ModelError, RunError: as for :func:`run`.
    """
    if spec.kind == "sklearn":
        if spec.method not in BASELINES:
            raise UnknownNameError("baseline", spec.method, BASELINES)
        fitted, lines = BASELINES[spec.method](spec, data)
        return fitted, ([], tuple(lines))
    if spec.kind == "fusion":
        joined, told = fit_fusion(
            spec, data, checkpoint=checkpoint, report=report, on_evaluate=on_evaluate
        )
        return joined, (told.history, fusion_notes(told, len(data.train)))
    model = build_seeded(spec, data) if start is None else load_start(spec, data, start)
    log = train(model, data, checkpoint=checkpoint, report=report, on_evaluate=on_evaluate)
    notes = [f"weights of step {log.best_step} of {log.steps}"]
    if log.truncated:
        notes.append(f"{log.truncated} of {len(data.train)} training texts were cut")
    if log.view:
        notes.append(log.view)
    notes += [f"warning: {line}" for line in failure_signs(log.history)]
    return model, (log.history, tuple(notes))


def build_seeded(spec: RunSpec, data: TrainingData) -> TorchModel:
    """A new model whose initial weights follow from ``spec.seed`` alone."""
    from transformers.trainer_utils import set_seed

    set_seed(spec.seed)
    return build_model(spec, data)


def fit_fusion(
    spec: RunSpec, data: TrainingData, *, checkpoint: Path | None, report: Report | None,
    on_evaluate: EvalCallback | None = None,
) -> tuple[FusionModel, FusionLog]:  # fmt: skip
    """As :func:`fit_sealed`, of a multimodal method, with all that its training kept."""
    model = build_seeded_fusion(spec, data)
    log = train_fusion(model, data, checkpoint=checkpoint, report=report, on_evaluate=on_evaluate)
    return model, log


def fusion_notes(log: FusionLog, rows: int) -> tuple[str, ...]:
    """What a user should know of a training on ``rows`` rows."""
    notes = [f"weights of step {log.best_step} of {log.steps}"]
    if log.truncated:
        notes.append(f"{log.truncated} of {rows} training texts were cut")
    notes += [f"{n} training rows of {m} were cut" for m, n in log.cut.items() if n]
    return tuple(notes)
