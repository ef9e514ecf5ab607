"""Training: the one ``transformers.Trainer`` subclass, and :func:`train_network`.

It adds to the Trainer: evaluation in length-sorted batches, the best weights kept in
memory (and in checkpoints, without the untrained encoder), early stopping, a learning rate
of its own for Hy-Mora's gate, and a loss schedule. The modalities of the rows (texts, or texts
with audio and vision) are the concern of their ``EncodedInputs``.
"""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from valence.config.callbacks import EvalCallback, ProgressCallback
from valence.config.sections import TrainSpec
from valence.data.collate import EncodedInputs, InputCollator, RowNumbers
from valence.data.quiet import quiet_transformers
from valence.distributed import process_group
from valence.errors import RunError
from valence.evaluation.task import MetricScores, Task
from valence.models.encoder import without_peft_warnings
from valence.models.scoring import Network, score_inputs
from valence.storage import atomic
from valence.training.diagnostics import representation_record
from valence.training.distributed_sampler import DistributedBatchSampler

GATE_LR_FACTOR = 5.0  # published for Hy-Mora: one scalar moves too little at the common rate
OWN_BEST_FILE = "own.json"

State = dict[str, Tensor]


@dataclass(frozen=True)
class TrainingRows:
    """Training and validation rows of a network; there are no test rows.

    Attributes:
        task: What is predicted.
        train, validation: Encoded rows.
        train_labels, validation_labels: Their class ids or numbers.
        grouped: Whether batches hold rows of similar length.
    """

    task: Task
    train: EncodedInputs
    validation: EncodedInputs
    train_labels: np.ndarray
    validation_labels: np.ndarray
    grouped: bool = True


@dataclass(frozen=True)
class TrainingLog:
    """The outcome of a training.

    Attributes:
        history: Records of losses and validation scores by step.
        best_step: Step with the best weights.
        steps: Number of optimizer steps.
        own_best: For each metric the step at which it was best on validation, where the
            weights of these steps are kept.
        states: The weights at those steps.
    """

    history: list[dict[str, Any]]
    best_step: int
    steps: int
    own_best: dict[str, int] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)


@dataclass
class Best:
    """The best evaluation so far; ``score`` is signed so that larger is better."""

    score: float = -math.inf
    step: int = 0
    without_gain: int = 0
    state: State | None = None


class EncodedTrainer(Trainer):
    """The Trainer with the additions named in the module docstring.

    Args:
        network: Takes a batch by name and gives ``logits``, ``features`` and ``loss``.
        args: Arguments of the Trainer.
        rows: Encoded training and validation rows with their labels.
        spec: Training settings.
        keep_own_best: Whether to keep the weights of every metric's own best evaluation, by
            which many papers report.
        on_evaluate: Called with the validation score of every evaluation.
    """

    def __init__(
        self, network: nn.Module, args: TrainingArguments, *, rows: TrainingRows,
        spec: TrainSpec, keep_own_best: bool = False, on_evaluate: EvalCallback | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            model=network,
            args=args,
            train_dataset=RowNumbers(len(rows.train)),
            eval_dataset=RowNumbers(len(rows.validation)),
            data_collator=InputCollator(rows.train, rows.train_labels),
        )
        self.network: Network = network  # type: ignore[assignment]
        self.network.views = rows.train.views
        self.rows = rows
        self.spec = spec
        self.keep_own_best = keep_own_best
        self.on_evaluate = on_evaluate
        self.best = Best()
        self.own_best: dict[str, tuple[float, int]] = {}
        self.states: dict[int, State] = {}

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        if not self.rows.grouped:
            return RandomSampler(RowNumbers(len(self.rows.train)))
        # The lengths are known; the Trainer would read every row to measure it.
        size = self.spec.batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(size, lengths=self.rows.train.lengths().tolist())

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches; with several processes, the part of this one."""
        if process_group.world_size() == 1:
            return super().get_train_dataloader()
        batches = DistributedBatchSampler(self._get_train_sampler(), self.spec.batch_size)
        # Not prepared by the Trainer, which would fill an uneven last batch with repeated rows.
        return DataLoader(self.train_dataset, batch_sampler=batches, collate_fn=self.data_collator)  # type: ignore[arg-type]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with no decay on biases and norms, and rates of their own for gate and encoder."""
        if self.optimizer is None:
            network: nn.Module = self.network  # type: ignore[assignment]
            named = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
            decayed = set(self.get_decay_parameter_names(network))
            rate = self.args.learning_rate
            grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
            for name, parameter in named:
                decay = self.args.weight_decay if name in decayed else 0.0
                grouped.setdefault(self._rate_and_decay(name, decay), []).append(parameter)
            groups = [
                {"params": parameters, "lr": rate * factor, "weight_decay": decay}
                for (factor, decay), parameters in grouped.items()
            ]
            fused = self.args.device.type in ("cpu", "cuda")
            self.optimizer = torch.optim.AdamW(groups, lr=rate, fused=fused)
        return self.optimizer

    def _rate_and_decay(self, name: str, decay: float) -> tuple[float, float]:
        """Factor on the learning rate, and weight decay, of a parameter."""
        if name.endswith(".gate"):
            return GATE_LR_FACTOR, 0.0
        return (self.spec.encoder_lr_factor if name.startswith("encoder.") else 1.0), decay

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Score the validation rows; keep the weights if they are the best so far."""
        network: nn.Module = self.network  # type: ignore[assignment]
        outputs = score_inputs(network, self.rows.validation, distributed=True)
        logits, task = outputs.logits, self.rows.task
        if not np.isfinite(logits).all():
            raise RunError(
                f"Training diverged at step {self.state.global_step} (NaN); "
                f"lower train.learning_rate (now {self.args.learning_rate:g})"
            )
        scores = task.scores(logits, self.rows.validation_labels)
        metrics: dict[str, Any] = {f"eval_{k}": v for k, v in scores.items() if v is not None}
        diagnostics = self.network.loss.diagnostics()
        metrics |= {f"diagnostics/{k}": v for k, v in diagnostics.items()}
        if task.classes:
            metrics |= representation_record(outputs.features, self.rows.validation_labels, task)
        self.log(metrics)
        self._update_best(scores)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _update_best(self, scores: MetricScores) -> None:
        value = self.rows.task.chosen_score(scores, self.spec.metric)
        step = self.state.global_step
        if self.keep_own_best:
            self._update_own_best(scores, step)
        if value > self.best.score:
            state = self.states.get(step) or self._copy_state()
            self.best = Best(value, step, 0, state)
        else:
            self.best.without_gain += 1
        if self.on_evaluate is not None:
            self.on_evaluate(value)

    def _update_own_best(self, scores: MetricScores, step: int) -> None:
        """Keep the weights of this step if some metric was never better."""
        task = self.rows.task
        signed = {
            name: task.signed(name, value)
            for name, value in scores.items()
            if value is not None and name in task.titles
        }
        better = {
            name: (value, step)
            for name, value in signed.items()
            if name not in self.own_best or value > self.own_best[name][0]
        }
        self.own_best |= better
        if better:
            self.states[step] = self._copy_state()
        needed = {at for _, at in self.own_best.values()}
        self.states = {at: state for at, state in self.states.items() if at in needed}

    def _copy_state(self) -> State:
        state = self.network.trainable_state_dict()
        return {name: value.detach().cpu().clone() for name, value in state.items()}

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir or ".")
        folder.mkdir(parents=True, exist_ok=True)
        _write(self.network.trainable_state_dict(), folder / "now.safetensors")
        if self.best.state is not None:
            _write(self.best.state, folder / "best.safetensors")
        record = {"score": self.best.score, "step": self.best.step}
        record["without_gain"] = self.best.without_gain
        atomic.write_text(folder / "best.json", json.dumps(record))
        if self.keep_own_best:
            for step, state in self.states.items():
                _write(state, _own_file(folder, step))
            atomic.write_text(folder / OWN_BEST_FILE, json.dumps(self.own_best))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        self.network.load_trainable_state_dict(load_file(folder / "now.safetensors"))
        record = json.loads((folder / "best.json").read_text(encoding="utf-8"))
        if (folder / "best.safetensors").exists():
            self.best = Best(**record, state=load_file(folder / "best.safetensors"))
        if self.keep_own_best:
            own = json.loads((folder / OWN_BEST_FILE).read_text(encoding="utf-8"))
            self.own_best = {name: (value, step) for name, (value, step) in own.items()}
            steps = {step for _, step in self.own_best.values()}
            self.states = {step: load_file(_own_file(folder, step)) for step in steps}


class _ProgressCallback(TrainerCallback):
    """Advances the loss schedule, reports progress, and stops early without improvement."""

    def __init__(self, trainer: EncodedTrainer, progress: ProgressCallback | None) -> None:
        self.trainer = trainer
        self.progress = progress
        self.score = ""

    def on_step_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.trainer.network.loss.set_progress(state.global_step / max(1, state.max_steps))

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._show(state)

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        best = self.trainer.best
        if best.without_gain >= self.trainer.spec.patience:
            control.should_training_stop = True
        metric = self.trainer.spec.metric
        shown = self.trainer.rows.task.signed(metric, best.score)
        self.score = f", best {metric.replace('_', '-')} {shown:.3f}"
        self._show(state)
        return control

    def _show(self, state: TrainerState) -> None:
        if self.progress is None:
            return
        epochs = math.ceil(state.num_train_epochs)
        epoch = min(epochs, max(1, math.ceil(state.epoch or 0)))
        done = min(1.0, state.global_step / max(1, state.max_steps))
        self.progress(done, f"epoch {epoch} of {epochs}{self.score}")


def train_network(
    trainer: EncodedTrainer, *, checkpoint: Path | None, progress: ProgressCallback | None
) -> TrainingLog:
    """Train from the last checkpoint on; the network ends with the best weights.

    Args:
        trainer: With network, rows and settings.
        checkpoint: Folder of the checkpoints from which an interrupted training is resumed.
        progress: Called with the fraction done and the best score so far.

    Raises:
        RunError: if the outputs become NaN or infinite.
        SpecError, UnknownNameError: if the metric is unknown or has no value.
    """
    trainer.rows.task.check_metric(trainer.spec.metric)
    trainer.add_callback(_ProgressCallback(trainer, progress))
    trainer.remove_callback(PrinterCallback)
    last = process_group.broadcast_object(_last_checkpoint(checkpoint))
    if last is not None and not Path(last).is_dir():
        raise RunError(
            f"{last} is missing; all machines need the same folder of runs, set it with --runs"
        )
    with warnings.catch_warnings(), without_peft_warnings(), quiet_transformers():
        # The schedule is stepped by the Trainer; torch warns about an order it cannot see.
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        trainer.train(resume_from_checkpoint=last)
    steps = trainer.state.global_step
    if not any(r.get("step") == steps and _is_eval(r) for r in trainer.state.log_history):
        trainer.evaluate()
    if trainer.best.state is not None:
        trainer.network.load_trainable_state_dict(trainer.best.state)
    network: nn.Module = trainer.network  # type: ignore[assignment]
    network.eval()
    history = [_record(row) for row in trainer.state.log_history]
    own_best = {name: step for name, (_, step) in trainer.own_best.items()}
    return TrainingLog(history, trainer.best.step, steps, own_best, trainer.states)


def _own_file(folder: Path, step: int) -> Path:
    return folder / f"own-{step}.safetensors"


def _write(state: State, path: Path) -> None:
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with atomic.new_file(path) as scratch:
        save_file(plain, scratch)


def _is_eval(record: dict[str, Any]) -> bool:
    return any(name.startswith("eval_") for name in record)


def _record(row: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("eval_", "validation/", 1): value for name, value in row.items()}


def _last_checkpoint(folder: Path | None) -> str | None:
    """The newest complete checkpoint; one that a kill left incomplete is skipped."""
    if folder is None or not folder.is_dir():
        return None
    # trainer_state.json is written after the weights and the optimizer.
    complete = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    numbers = {int(path.name.rpartition("-")[2]): str(path) for path in complete}
    return numbers[max(numbers)] if numbers else None
