"""Training: the one ``transformers.Trainer`` subclass, and :func:`train`.

What is added to the Trainer: evaluation in length-sorted batches, the best weights kept in
memory (and in checkpoints, without the untrained encoder), early stopping, a learning rate
of its own for Hy-Mora's gate, and the loss told how far the training is.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import set_seed

from valence.config.spec import TrainSpec
from valence.data.augment import Texts, second_views
from valence.data.collate import Collator, Encoded, LabeledRows
from valence.data.dataset import TrainingData
from valence.distributed import process_group
from valence.distributed.device import pick_device
from valence.errors import RunError, SpecError
from valence.evaluation.classification import classification_scores
from valence.models.classifier import Classifier, TorchModel, score_encoded
from valence.models.encoder import encoder_location, without_peft_warnings
from valence.storage import atomic
from valence.training.distributed_sampler import SharedBatches
from valence.training.training_args import training_arguments

GATE_LR_FACTOR = 5.0  # published for Hy-Mora: one scalar moves too little at the common rate

Report = Callable[[float, str], None]
"""Called with the share done in [0, 1] and a few words on what happened."""

EvalCallback = Callable[[float], None]
"""Called with the validation score of every evaluation; what it raises ends the training."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingLog:
    """What a training did.

    Attributes:
        history: Records of losses and validation scores by step.
        best_step: Step whose weights were kept.
        steps: Optimiser steps made.
        truncated: Training texts cut at the length limit.
        view: Where second views came from; empty without any.
    """

    history: list[dict[str, Any]]
    best_step: int
    steps: int
    truncated: int
    view: str = ""


@dataclass
class Best:
    """The best evaluation so far."""

    score: float = -math.inf
    step: int = 0
    without_gain: int = 0
    state: dict[str, Tensor] | None = None


class ClassifierTrainer(Trainer):
    """The Trainer with the additions the module's docstring names.

    Args:
        model: The classifier.
        args: Arguments of the Trainer.
        data: Classes, and the labels of the validation rows.
        rows: Encoded (training, validation) texts.
        second: Encoded second views of the training texts, or None.
        spec: Training settings.
        pad_id: Id of the padding token.
    """

    def __init__(
        self,
        model: Classifier,
        args: TrainingArguments,
        *,
        data: TrainingData,
        rows: tuple[Encoded, Encoded],
        second: Encoded | None,
        spec: TrainSpec,
        pad_id: int,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=LabeledRows(rows[0], data.train.labels, second),
            eval_dataset=LabeledRows(rows[1], data.validation.labels),
            data_collator=Collator(pad_id),
        )
        self.classifier = model
        model.views = 1 if second is None else 2
        self.sealed = data
        self.train_rows, self.validation_rows = rows
        self.spec = spec
        self.pad_id = pad_id
        self.best = Best()
        self.on_evaluate: EvalCallback | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        # With the lengths at hand; the Trainer would read every row to measure it.
        lengths = [len(ids) for ids in self.train_rows.input_ids]
        size = self.spec.batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(size, lengths=lengths)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches; of several processes, this one's part of the batches one would see."""
        if process_group.world_size() == 1:
            return super().get_train_dataloader()
        batches = SharedBatches(self._get_train_sampler(), self.spec.batch_size)
        # Not prepared by the Trainer, which would fill an uneven last batch with rows twice.
        return DataLoader(self.train_dataset, batch_sampler=batches, collate_fn=self.data_collator)  # type: ignore[arg-type]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with no decay on biases and norms, and rates of their own for gate and encoder."""
        if self.optimizer is None:
            named = [(n, p) for n, p in self.classifier.named_parameters() if p.requires_grad]
            decayed = set(self.get_decay_parameter_names(self.classifier))
            rate = self.args.learning_rate
            grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
            for name, parameter in named:
                decay = self.args.weight_decay if name in decayed else 0.0
                grouped.setdefault(self._rate_and_decay(name, decay), []).append(parameter)
            groups = [_group(p, rate * factor, decay) for (factor, decay), p in grouped.items()]
            fused = self.args.device.type in ("cpu", "cuda")
            self.optimizer = torch.optim.AdamW(groups, lr=rate, fused=fused)
        return self.optimizer

    def _rate_and_decay(self, name: str, decay: float) -> tuple[float, float]:
        """Factor on the learning rate, and weight decay, of a parameter."""
        if name.endswith(".gate"):
            return GATE_LR_FACTOR, 0.0
        return (self.spec.encoder_lr_factor if name.startswith("encoder.") else 1.0), decay

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Score the validation rows, keep the weights if they are the best so far."""
        scores = self.validation_logits()
        if not np.isfinite(scores).all():
            raise RunError(
                f"Training broke down at step {self.state.global_step}: the model's outputs are "
                f"not numbers; lower train.learning_rate (now {self.args.learning_rate:g})"
            )
        found = self.measured(scores)
        metrics: dict[str, Any] = {f"eval_{k}": v for k, v in found.items() if v is not None}
        seen = self.classifier.loss.diagnostics()
        metrics |= {f"diagnostics/{k}": v for k, v in seen.items()}
        self.log(metrics)
        self._keep_best(found)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def validation_logits(self) -> np.ndarray:
        """(N, C) of the validation rows."""
        return score_encoded(self.classifier, self.validation_rows, self.pad_id, shared=True).logits

    def measured(self, logits: np.ndarray) -> dict[str, float | None]:
        """Scores of the validation rows."""
        data = self.sealed
        return classification_scores(
            data.validation.labels, logits, classes=data.classes,
            train_counts=[int(n) for n in data.train_counts], tail=data.tail,
        )  # fmt: skip

    def _keep_best(self, found: dict[str, float | None]) -> None:
        value = found.get(self.spec.metric)
        if value is None:
            raise SpecError(
                f"train.metric {self.spec.metric!r} has no value on the validation rows"
            )
        if value > self.best.score:
            state = {
                n: v.detach().cpu().clone()
                for n, v in self.classifier.trainable_state_dict().items()
            }
            self.best = Best(value, self.state.global_step, 0, state)
        else:
            self.best.without_gain += 1
        if self.on_evaluate is not None:
            self.on_evaluate(value)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir or ".")
        with atomic.new_file(folder / "now.safetensors") as path:
            save_file(_contiguous(self.classifier.trainable_state_dict()), path)
        if self.best.state is not None:
            with atomic.new_file(folder / "best.safetensors") as path:
                save_file(_contiguous(self.best.state), path)
        record = {"score": self.best.score, "step": self.best.step}
        record["without_gain"] = self.best.without_gain
        atomic.write_text(folder / "best.json", json.dumps(record))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        self.classifier.load_trainable_state_dict(load_file(folder / "now.safetensors"))
        record = json.loads((folder / "best.json").read_text(encoding="utf-8"))
        if (folder / "best.safetensors").exists():
            self.best = Best(**record, state=load_file(folder / "best.safetensors"))


class _ProgressCallback(TrainerCallback):
    """Tells the loss and the caller how far it is, and stops when nothing is gained."""

    def __init__(self, trainer: ClassifierTrainer, report: Report | None) -> None:
        self.trainer = trainer
        self.report = report

    def on_step_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.trainer.classifier.loss.at(state.global_step / max(1, state.max_steps))

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.report is not None:
            self.report(state.global_step / max(1, state.max_steps), "")

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        best = self.trainer.best
        if best.without_gain >= self.trainer.spec.patience:
            control.should_training_stop = True
        if self.report is not None:
            words = f"{self.trainer.spec.metric} {abs(best.score):.3f}"  # errors are kept negated
            self.report(state.global_step / max(1, state.max_steps), words)
        return control


def train(
    model: TorchModel,
    data: TrainingData,
    *,
    checkpoint: Path | None = None,
    report: Report | None = None,
    on_evaluate: EvalCallback | None = None,
) -> TrainingLog:
    """Train ``model`` on ``data``; it ends with the weights that did best on validation.

    Args:
        model: A new or a loaded model; its ``spec.train`` and ``spec.seed`` apply.
        data: Training and validation rows; there are no others.
        checkpoint: Where an interrupted training keeps what it needs to go on.
        report: Told how far the training is.
        on_evaluate: Told the validation score of every evaluation.

    Raises:
        RunError: if the outputs stop being numbers.
        SpecError: if the device is not there or the metric is unknown.
        DataError: if the second views asked for cannot be had.
    """
    spec = model.spec
    process_group.init_process_group(pick_device(spec.train.device))
    args = training_arguments(spec, checkpoint)
    model.enable_hidden_state_cache()
    train, validation = (
        _encode(model, split.texts, report) for split in (data.train, data.validation)
    )
    rows = (train, validation)
    second, view = _second_views(model, data, report)
    set_seed(spec.seed)  # whatever was computed or found above, the training is the same
    trainer = ClassifierTrainer(
        model.classifier, args, data=data, rows=rows, second=second, spec=spec.train,
        pad_id=model.tokenizer.pad_id,
    )  # fmt: skip
    trainer.on_evaluate = on_evaluate
    watched(trainer, report)
    if not process_group.is_main_process():
        torch.manual_seed(spec.seed + process_group.rank())  # other dropout than process 0
    fit(trainer, checkpoint)
    model.classifier.to("cpu")
    history = [_record(row) for row in trainer.state.log_history]
    return TrainingLog(
        history, trainer.best.step, trainer.state.global_step, rows[0].truncated, view
    )


def watched(trainer: ClassifierTrainer, report: Report | None) -> None:
    """Let a trainer tell how far it is, stop without gain, and print nothing."""
    trainer.add_callback(_ProgressCallback(trainer, report))
    trainer.remove_callback(PrinterCallback)


def fit(trainer: ClassifierTrainer, checkpoint: Path | None) -> None:
    """Train from the last checkpoint on; the model ends with the best weights."""
    last = process_group.broadcast_object(_last_checkpoint(checkpoint))
    if last is not None and not Path(last).is_dir():
        raise RunError(f"{last} is not here; all machines need one folder of runs, give --runs")
    with warnings.catch_warnings(), without_peft_warnings():
        # The schedule is stepped by the Trainer; torch warns about an order it cannot see.
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        trainer.train(resume_from_checkpoint=last)
    steps = trainer.state.global_step
    if not any(r.get("step") == steps and _is_eval(r) for r in trainer.state.log_history):
        trainer.evaluate()
    if trainer.best.state is not None:
        trainer.classifier.load_trainable_state_dict(trainer.best.state)
    trainer.classifier.eval()


def _encode(model: TorchModel, texts: list[str], report: Report | None) -> Encoded:
    """Encoded texts, with the states of a frozen encoder."""

    def told(done: int, total: int) -> None:
        if report is not None:
            report(0.0, f"token states: {done} of {total} texts")

    device = pick_device(model.spec.train.device)
    with process_group.main_process_first():
        return model.encode(texts, device=device, progress=told)


def _second_views(
    model: TorchModel, data: TrainingData, report: Report | None
) -> tuple[Encoded | None, str]:
    """Encoded second views of the training texts, and where they came from."""
    spec = model.spec
    if spec.view.name == "none":
        return None, ""
    source = Texts(
        data.train.texts, data.train.extra, encoder_location(spec.encoder.name),
        spec.encoder.max_length, spec.seed,
    )  # fmt: skip

    def told(done: int, total: int) -> None:
        if report is not None:
            report(0.0, f"second views: {done} of {total} texts")

    with process_group.main_process_first():
        texts, note = second_views(spec.view, source, told)
    return _encode(model, texts, report), note


def _group(parameters: list[nn.Parameter], rate: float, decay: float) -> dict[str, Any]:
    return {"params": parameters, "lr": rate, "weight_decay": decay}


def _contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def _is_eval(record: dict[str, Any]) -> bool:
    return any(name.startswith("eval_") for name in record)


def _record(row: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("eval_", "validation/", 1): value for name, value in row.items()}


def _last_checkpoint(folder: Path | None) -> str | None:
    """The newest whole checkpoint; one that a kill left half-written is passed over."""
    if folder is None or not folder.is_dir():
        return None
    # trainer_state.json is written after the weights and the optimiser.
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    numbers = {int(path.name.rpartition("-")[2]): str(path) for path in whole}
    return numbers[max(numbers)] if numbers else None
