"""Fine-tuning of a causal language model with LoRA on instruction records.

The defaults are those published with cross-lingual adaptive self-alignment. The loss is that
of the answer alone. Questions longer than the cutoff have their texts truncated, so that every
answer is whole. After every epoch the labels of the validation questions are scored, and the
adapter with the best macro-F1 is kept.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valence.config.callbacks import ProgressCallback
from valence.data.pretrained import load_adapter
from valence.data.quiet import quiet_transformers
from valence.distributed import process_group
from valence.distributed.device import pick_device, use_bf16
from valence.errors import RunError
from valence.llm.finetune_spec import ABOUT, FineTuneResult, FinetuneSpec
from valence.llm.language_model import LanguageModel
from valence.llm.local import load_tokenizer, load_weights, weight_format_in_effect, weight_note
from valence.llm.resident import free_memory, release_language_model
from valence.llm.sft_data import SFTData
from valence.llm.sft_session import FineTuneSession
from valence.models.encoder import without_peft_warnings
from valence.storage import cache

if TYPE_CHECKING:
    from trl import SFTTrainer  # type: ignore[attr-defined]


def finetune(
    spec: FinetuneSpec,
    sft_data: SFTData,
    out: Path,
    *,
    start: Path | None = None,
    progress: ProgressCallback | None = None,
) -> FineTuneResult:
    """Train an adapter and write it to ``out``; an interrupted training is resumed.

    Args:
        spec: Model and hyperparameters.
        sft_data: Training and validation questions.
        out: Folder of the adapter; gets also ``history.jsonl`` and ``finetune.json``.
        start: An adapter whose training is continued; a new one when not given.
        progress: Called with the fraction done and a message.

    Raises:
        ModelError, SpecError: if the model cannot be used.
        RunError: if TRL is not installed, or ``out`` cannot be written.
    """
    _require_trl()
    release_language_model()
    device = pick_device(spec.device)
    process_group.init_process_group(device)
    if out.exists() and any(out.iterdir()) and not (out / ABOUT).exists():
        raise RunError(f"{out} is not empty and not an adapter; use another --out")
    with process_group.main_process_first():
        work = _prepare_work_folder(spec, sft_data, out, start)
    model = _trained_model(spec, start, device)
    session = FineTuneSession(spec, sft_data, model, work, progress)
    try:
        _train(session, work)
        return process_group.run_on_main_process(lambda: session.finish(out))
    finally:
        model.close()  # before another one is loaded, as rounds of self-alignment do
        free_memory()


def _train(session: FineTuneSession, work: Path) -> None:
    """Train to the end, from the last checkpoint on."""
    trainer = _trainer(session)
    session.gather_state = lambda: _full_state_dict(trainer)
    last = process_group.broadcast_object(_last_checkpoint(work))
    session.resume(0 if last is None else int(last.name.rpartition("-")[2]))
    with quiet_transformers():
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    if not session.evaluated_at(trainer.state.global_step):
        session.evaluate(trainer.state.global_step)
    session.gather_state = lambda: None


def _trained_model(spec: FinetuneSpec, start: Path | None, device: str) -> LanguageModel:
    weight_format = finetune_format(spec, device)
    return LanguageModel(
        load_with_adapter(spec, start, device), load_tokenizer(spec.model), device=device,
        max_length=spec.cutoff, weight_format=weight_format,
        notes=(weight_note(weight_format, spec.quantization, device),),
    )  # fmt: skip


def _require_trl() -> None:
    from importlib.util import find_spec

    if find_spec("trl") is None or find_spec("datasets") is None:
        raise RunError("Fine-tuning needs TRL, which is not installed: pip install 'valence[llm]'")


def _prepare_work_folder(
    spec: FinetuneSpec, sft_data: SFTData, out: Path, start: Path | None
) -> Path:
    """The folder of an unfinished training; one with other settings or rows is cleared."""
    work = out.with_name(f".{out.name}.unfinished")
    rows = (repr(example) for example in (*sft_data.train, *sft_data.validation))
    same = spec.model_copy(update={"device": "auto"})
    key = cache.content_key([same.model_dump_json(), str(start), sft_data.template, *rows])
    try:
        if not (work / key).exists():
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            (work / key).touch()
    except OSError as error:
        raise RunError(f"Cannot write {work}: {error.strerror or error}") from None
    return work


def finetune_format(spec: FinetuneSpec, device: str) -> str:
    """The number format that the base is held in.

    Raises:
        SpecError: if NF4 is requested and not available.
    """
    # On a CPU bf16 is that of the products alone; the weights that are updated need float32.
    precision = spec.precision if device == "cuda" else "fp32"
    return weight_format_in_effect(spec.quantization, precision, device, setting="quantization")


def load_with_adapter(spec: FinetuneSpec, start: Path | None, device: str) -> Any:
    """The base model with a new adapter, or one whose training is continued.

    Args:
        spec: Model, number format and sizes of the adapter.
        start: The adapter that is continued; a new one when None.
        device: Where it is trained.

    Raises:
        ModelError, SpecError: if the model cannot be used.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers.trainer_utils import set_seed

    set_seed(spec.seed)
    weight_format = finetune_format(spec, device)
    # Sharded weights go to the GPU in parts; a whole model on each GPU would defeat that.
    base = load_weights(
        spec.model, weight_format=weight_format, device=device,
        keep_on_cpu=process_group.shards_weights(),
    )  # fmt: skip
    if weight_format == "nf4":
        base = prepare_model_for_kbit_training(base)  # type: ignore[no-untyped-call]
    with without_peft_warnings():
        if start is not None:
            return load_adapter(base, start, is_trainable=True)
        config = LoraConfig(
            r=spec.lora_rank, lora_alpha=spec.lora_alpha, lora_dropout=spec.lora_dropout,  # type: ignore[arg-type]
            target_modules="all-linear", task_type="CAUSAL_LM",
        )  # fmt: skip
        return get_peft_model(base, config)


def _trainer(session: FineTuneSession) -> SFTTrainer:
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    disable_progress_bar()
    spec, model = session.spec, session.model
    settings = SFTConfig(
        output_dir=str(session.work),
        per_device_train_batch_size=spec.batch_size,
        gradient_accumulation_steps=process_group.per_process_batch_size(
            spec.accumulation, "accumulation"
        ),
        learning_rate=spec.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=spec.warmup_share,
        num_train_epochs=spec.epochs,
        max_steps=spec.max_steps or -1,
        max_length=None,
        completion_only_loss=True,
        packing=False,
        save_strategy="steps",
        save_steps=spec.save_steps,
        save_total_limit=1,
        logging_steps=1,
        eval_strategy="no",
        bf16=use_bf16(spec.precision, model.device),
        fp16=False,
        use_cpu=model.device == "cpu",
        seed=spec.seed,
        data_seed=spec.seed,
        gradient_checkpointing=None,  # type: ignore[arg-type]
        activation_checkpointing=model.device == "cuda",
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
    )
    if model.tokenizer.pad_token_id is None:
        model.tokenizer.pad_token = model.tokenizer.eos_token
    trainer = SFTTrainer(
        model=model.model, args=settings, train_dataset=Dataset.from_dict(session.rows()),
        processing_class=model.tokenizer, callbacks=[_callback(session)],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)  # stdout is for results
    return trainer


def _full_state_dict(trainer: SFTTrainer) -> dict[str, Any] | None:
    """The gathered weights where they are sharded; None where every process holds all."""
    if not process_group.shards_weights():
        return None
    state: dict[str, Any] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return state


def _callback(session: FineTuneSession) -> Any:
    from transformers import TrainerCallback

    class SessionCallback(TrainerCallback):
        """Logs losses, evaluates after every epoch, and reports progress."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                rate = float(logs.get("learning_rate", 0.0))
                session.log({"step": state.global_step, "loss": float(logs["loss"]), "rate": rate})
                if session.progress is not None:
                    fraction = state.global_step / max(1, state.max_steps)
                    session.progress(fraction, f"step {state.global_step} of {state.max_steps}, "
                                     f"loss {float(logs['loss']):.3f}")  # fmt: skip

        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if not session.evaluated_at(state.global_step):
                session.evaluate(state.global_step)

    return SessionCallback()


def _last_checkpoint(work: Path) -> Path | None:
    paths = [path for path in work.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    return max(paths, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
