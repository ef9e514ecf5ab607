"""The Trainer's arguments for a training section."""

from __future__ import annotations

from pathlib import Path

from transformers import TrainingArguments

from valence.config.sections import TrainSpec
from valence.distributed import process_group
from valence.distributed.device import pick_device, use_bf16
from valence.training.reporting import current_reporting


def training_arguments(
    train: TrainSpec, *, learning_rate: float, seed: int, checkpoint: Path | None = None
) -> TrainingArguments:
    """The Trainer's arguments.

    Args:
        train: The training section.
        learning_rate: The rate in effect.
        seed: Seed of everything random.
        checkpoint: Folder of the checkpoints; None saves none.

    Raises:
        SpecError: if the requested device is not available.
    """
    device = pick_device(train.device)
    by_step = train.eval_steps is not None
    reporting = current_reporting()
    batch_size = process_group.per_process_batch_size(train.batch_size, "train.batch_size")
    return TrainingArguments(
        output_dir=str(checkpoint) if checkpoint else ".",
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=train.accumulation,
        num_train_epochs=train.epochs,
        learning_rate=learning_rate,
        weight_decay=train.weight_decay,
        lr_scheduler_type=train.schedule,
        warmup_steps=train.warmup_share,
        max_grad_norm=train.max_grad_norm,
        bf16=use_bf16(train.precision, device),
        eval_strategy="steps" if by_step else "epoch",
        eval_steps=train.eval_steps,
        save_strategy="epoch" if checkpoint else "no",
        save_total_limit=1,
        logging_strategy="steps",
        logging_steps=5,
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        dataloader_pin_memory=device == "cuda",
        use_cpu=device == "cpu",
        seed=seed,
        data_seed=seed,
        disable_tqdm=True,
        report_to=reporting.tool,
        run_name=reporting.run,
        project=reporting.project,
    )
