"""The Trainer's arguments for a spec."""

from __future__ import annotations

from pathlib import Path

from transformers import TrainingArguments

from valence.config.spec import RunSpec
from valence.distributed import process_group
from valence.distributed.device import pick_device, use_bf16


def training_arguments(spec: RunSpec, checkpoint: Path | None) -> TrainingArguments:
    """The Trainer's arguments for a spec.

    Raises:
        SpecError: if the device asked for is not there.
    """
    train = spec.train
    device = pick_device(train.device)
    adapted = spec.encoder.adaptation in ("lora", "dora")
    by_step = train.eval_steps is not None
    return TrainingArguments(
        output_dir=str(checkpoint) if checkpoint else ".",
        per_device_train_batch_size=process_group.per_process_batch_size(
            train.batch_size, "train.batch_size"
        ),
        gradient_accumulation_steps=train.accumulation,
        num_train_epochs=train.epochs,
        learning_rate=train.learning_rate * (train.lr_scale if adapted else 1.0),
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
        seed=spec.seed,
        data_seed=spec.seed,
        disable_tqdm=True,
        report_to="none",
    )
