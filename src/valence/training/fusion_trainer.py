"""Training of multimodal models, by the Trainer that the text models use.

What differs: batches of three modalities, a validation score that may be better when lower,
and the weights of every metric's own best epoch, so that both ways in which papers report a
training can be scored on test rows after it has returned.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import RandomSampler, Sampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import set_seed

from valence.config.spec import RunSpec, TrainSpec
from valence.data.dataset import TrainingData
from valence.data.fusion_rows import FusionCollator, FusionRows, RowNumbers
from valence.distributed.device import pick_device
from valence.errors import SpecError
from valence.evaluation.classification import classification_scores
from valence.evaluation.regression import intensity_scores, signed
from valence.models.fusion_model import FusionModel, build_fusion_model
from valence.training.trainer import (
    Best,
    ClassifierTrainer,
    EvalCallback,
    Report,
    fit,
    watched,
)
from valence.training.training_args import training_arguments

CHECKPOINTS = 20  # over a training; its epochs are short and there are many

State = dict[str, Tensor]


@dataclass(frozen=True)
class FusionLog:
    """What a training did.

    Attributes:
        history: Records of losses and validation scores by step.
        best_step: Step whose weights were kept.
        steps: Optimiser steps made.
        truncated: Training texts cut at the length limit.
        cut: Training rows with steps left out, by modality.
        own_best: For each metric the step at which it was best on validation.
        states: The weights at those steps.
    """

    history: list[dict[str, Any]]
    best_step: int
    steps: int
    truncated: int
    cut: dict[str, int] = field(default_factory=dict)
    own_best: dict[str, int] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)


class FusionTrainer(ClassifierTrainer):
    """The Trainer for a :class:`FusionModel`.

    Args:
        model: The model.
        args: Arguments of the Trainer.
        data: Labels of both splits, and the scale.
        rows: (training, validation) rows as the model reads them.
        spec: Training settings.
    """

    def __init__(
        self, model: FusionModel, args: TrainingArguments, *, data: TrainingData,
        rows: tuple[FusionRows, FusionRows], spec: TrainSpec,
    ) -> None:  # fmt: skip
        # Not the parent's own: its rows are token ids and nothing else.
        Trainer.__init__(
            self,
            model=model.net,
            args=args,
            train_dataset=RowNumbers(len(rows[0])),
            eval_dataset=RowNumbers(len(rows[1])),
            data_collator=FusionCollator(
                rows[0], data.train.labels, model.spec.fusion.modality_dropout
            ),
        )
        self.owner = model
        self.classifier = model.net  # type: ignore[assignment]
        self.sealed = data
        self.fusion_rows = rows
        self.spec = spec
        self.best = Best()
        self.on_evaluate: EvalCallback | None = None
        self.own_best: dict[str, tuple[float, int]] = {}
        self.states: dict[int, State] = {}

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return RandomSampler(RowNumbers(len(self.fusion_rows[0])))

    def validation_logits(self) -> np.ndarray:
        """(N, C) of the validation rows."""
        return self.owner.score_rows(self.fusion_rows[1]).logits

    def measured(self, logits: np.ndarray) -> dict[str, float | None]:
        """Scores of the validation rows."""
        return scores_of(self.sealed, self.sealed.validation.labels, logits)

    def _keep_best(self, found: dict[str, float | None]) -> None:
        if found.get(self.spec.metric) is None:
            raise SpecError(
                f"train.metric {self.spec.metric!r} has no value on the validation rows; use one "
                f"of {', '.join(name for name, value in found.items() if value is not None)}"
            )
        step = self.state.global_step
        gained = {
            name: (signed(name, value), step)
            for name, value in found.items()
            if value is not None and "/" not in name
        }
        better = {n: v for n, v in gained.items() if n not in self.own_best
                  or v[0] > self.own_best[n][0]}  # fmt: skip
        self.own_best |= better
        if better:
            self.states[step] = {
                n: v.detach().cpu().clone()
                for n, v in self.classifier.trainable_state_dict().items()
            }
        needed = {at for _, at in self.own_best.values()}
        self.states = {at: state for at, state in self.states.items() if at in needed}
        if self.spec.metric in better:
            self.best = Best(better[self.spec.metric][0], step, 0, self.states[step])
        else:
            self.best.without_gain += 1
        if self.on_evaluate is not None:
            self.on_evaluate(gained[self.spec.metric][0])

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir or ".")
        for step, state in self.states.items():
            save_file({n: v.contiguous() for n, v in state.items()}, _own_file(folder, step))
        (folder / "own.json").write_text(json.dumps(self.own_best), encoding="utf-8")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        folder = Path(resume_from_checkpoint)
        told = json.loads((folder / "own.json").read_text(encoding="utf-8"))
        self.own_best = {name: (value, step) for name, (value, step) in told.items()}
        steps = {step for _, step in self.own_best.values()}
        self.states = {step: load_file(_own_file(folder, step)) for step in steps}


def train_fusion(
    model: FusionModel,
    data: TrainingData,
    *,
    checkpoint: Path | None = None,
    report: Report | None = None,
    on_evaluate: EvalCallback | None = None,
) -> FusionLog:
    """Train ``model`` on ``data``; it ends with the weights that did best on validation.

    Args:
        model: A new model; its ``spec.train`` and ``spec.seed`` apply.
        data: Training and validation rows; there are no others.
        checkpoint: Where an interrupted training keeps what it needs to go on.
        report: Told how far the training is.
        on_evaluate: Told the validation score of every evaluation, its sign turned where lower is
            better.

    Raises:
        RunError: if the outputs stop being numbers.
        SpecError: if the device is not there or the metric is unknown.
    """
    spec = model.spec
    args = training_arguments(spec, checkpoint)
    if checkpoint is not None:
        per_epoch = -(-len(data.train) // (spec.train.batch_size * spec.train.accumulation))
        args.set_save("steps", per_epoch * max(1, spec.train.epochs // CHECKPOINTS), 1)
    device = pick_device(spec.train.device)
    model.enable_hidden_state_cache()

    def told(done: int, total: int) -> None:
        if report is not None:
            report(0.0, f"token states: {done} of {total} texts")

    train, validation = (
        model.rows(split.texts, split.features, device=device, progress=told)
        for split in (data.train, data.validation)
    )
    set_seed(spec.seed)
    rows = (train, validation)
    trainer = FusionTrainer(model, args, data=data, rows=rows, spec=spec.train)
    trainer.on_evaluate = on_evaluate
    watched(trainer, report)
    fit(trainer, checkpoint)
    model.net.to("cpu")
    return FusionLog(
        [_renamed(row) for row in trainer.state.log_history], trainer.best.step,
        trainer.state.global_step, train.encoded.truncated, train.cut(),
        {name: step for name, (_, step) in trainer.own_best.items()}, trainer.states,
    )  # fmt: skip


def scores_of(
    data: TrainingData, labels: np.ndarray, logits: np.ndarray
) -> dict[str, float | None]:
    """Every score of outputs: of an intensity, or of classes.

    Args:
        data: Classes, tail, counts and scale of the training.
        labels: (N,) class ids or intensities.
        logits: (N, C) or (N, 1).
    """
    if not data.classes:
        return intensity_scores(labels, logits[:, 0], scale=data.scale)
    counts = [int(n) for n in data.train_counts]
    return classification_scores(
        labels, logits, classes=data.classes, train_counts=counts, tail=data.tail
    )


def build_seeded_fusion(spec: RunSpec, data: TrainingData) -> FusionModel:
    """A new model whose initial weights follow from ``spec.seed`` alone."""
    set_seed(spec.seed)
    return build_fusion_model(spec, data)


def _own_file(folder: Path, step: int) -> Path:
    return folder / f"own-{step}.safetensors"


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("eval_", "validation/", 1): value for name, value in row.items()}
