"""Fine-tuning of a causal language model with LoRA on instruction records.

The defaults are those published with cross-lingual adaptive self-alignment. The loss is that
of the answer alone. Questions longer than the cutoff have their texts truncated, so that every
answer is whole. After every epoch the labels of the validation questions are scored, and the
adapter with the best macro-F1 is kept.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from valence.config.callbacks import ProgressCallback
from valence.data.pretrained import load_adapter
from valence.data.sampling import stratified_split
from valence.distributed import process_group
from valence.distributed.device import pick_device, use_bf16
from valence.errors import DataError, RunError
from valence.evaluation.classification import classification_scores
from valence.llm.classify import encode_truncated
from valence.llm.finetune_spec import ABOUT, FineTuneResult, FinetuneSpec
from valence.llm.local import LanguageModel, load_tokenizer, load_weights, use_nf4
from valence.llm.prompts import PromptRenderer, Question, make_renderer
from valence.llm.records import Example, read_instructions_info, read_rows
from valence.models.encoder import without_peft_warnings
from valence.storage import atomic, cache

if TYPE_CHECKING:
    from trl import SFTTrainer  # type: ignore[attr-defined]

HISTORY = "history.jsonl"
CHECK_QUESTIONS = 8  # questions on which a merged model is compared with the adapter


@dataclass(frozen=True)
class SFTData:
    """Training and validation questions.

    Attributes:
        data: Name of the corpus.
        template: Name of the template.
        renderer: The template with its labels.
        train, validation: Questions with labels; no test question is among them.
    """

    data: str
    template: str
    renderer: PromptRenderer
    train: list[Example]
    validation: list[Example]


def read_sft_data(folder: Path, spec: FinetuneSpec) -> SFTData:
    """Training and validation questions of a folder of instructions.

    Raises:
        DataError: if the folder holds none, or too few to set validation rows aside.
    """
    info = read_instructions_info(folder)
    renderer = make_renderer(info.template, info.classes)
    train, validation = read_rows(folder, "train"), read_rows(folder, "validation")
    if not validation:
        labels = np.array([example.label for example in train], dtype=np.int64)
        rest, held_out = stratified_split(labels, spec.validation_share, seed=spec.seed)
        train, validation = [train[i] for i in rest], [train[i] for i in held_out]
    if not train or not validation:
        raise DataError(
            f"{folder} has {len(train)} training and {len(validation)} validation records; give "
            "more, or raise validation_share"
        )
    return SFTData(info.data, info.template, renderer, train, validation)


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
    device = pick_device(spec.device)
    process_group.init_process_group(device)
    if out.exists() and any(out.iterdir()) and not (out / ABOUT).exists():
        raise RunError(f"{out} is no adapter and not empty; give another --out")
    with process_group.main_process_first():
        work = _prepare_work_folder(spec, sft_data, out, start)
    peft_model = _load_with_adapter(spec, start, device)
    model = LanguageModel(
        peft_model, load_tokenizer(spec.model), device=device, max_length=spec.cutoff
    )
    session = _FineTuneSession(spec, sft_data, model, work, progress)
    trainer = _trainer(session)
    session.gather_state = lambda: _full_state_dict(trainer)
    last = process_group.broadcast_object(_last_checkpoint(work))
    session.resume(0 if last is None else int(last.name.rpartition("-")[2]))
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    if not session.evaluated_at(trainer.state.global_step):
        session.evaluate(trainer.state.global_step)
    return process_group.run_on_main_process(lambda: session.finish(out))


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


def _load_with_adapter(spec: FinetuneSpec, start: Path | None, device: str) -> Any:
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers.trainer_utils import set_seed

    set_seed(spec.seed)
    nf4 = use_nf4(spec.quantization, device)
    # Sharded weights go to the GPU in parts; a whole model on each GPU would defeat that.
    base = load_weights(
        spec.model, nf4=nf4, device=device, keep_on_cpu=process_group.shards_weights()
    )
    if nf4:
        base = prepare_model_for_kbit_training(base)  # type: ignore[no-untyped-call]
    with without_peft_warnings():
        if start is not None:
            return load_adapter(base, start, is_trainable=True)
        config = LoraConfig(
            r=spec.lora_rank, lora_alpha=spec.lora_alpha, lora_dropout=spec.lora_dropout,  # type: ignore[arg-type]
            target_modules="all-linear", task_type="CAUSAL_LM",
        )  # fmt: skip
        return get_peft_model(base, config)


class _FineTuneSession:
    """One training: its rows as tokens, its evaluations, its history."""

    def __init__(
        self, spec: FinetuneSpec, sft_data: SFTData, model: LanguageModel, work: Path,
        progress: ProgressCallback | None,
    ) -> None:  # fmt: skip
        self.spec, self.sft_data, self.model = spec, sft_data, model
        self.work, self.progress = work, progress
        self.history: list[dict[str, Any]] = []
        self.gather_state: Callable[[], dict[str, Any] | None] = lambda: None
        self.eval_examples = sft_data.validation[: spec.validation_rows]
        renderer = sft_data.renderer
        self.answers = model.answer_ids(model.format_prompt(renderer, ""), renderer.answers)
        self.room = model.limit - max(len(ids) for ids in self.answers) - 1
        self.prompts, self.shortened = encode_truncated(
            self.encode, [example.question for example in sft_data.train], self.room
        )
        self.eval_prompts, _ = encode_truncated(
            self.encode, [e.question for e in self.eval_examples], self.room
        )

    def encode(self, questions: Sequence[Question]) -> list[list[int]]:
        """Token ids of questions."""
        renderer, model = self.sft_data.renderer, self.model
        return model.encode([model.format_prompt(renderer, q.text, q.demos) for q in questions])

    def rows(self) -> dict[str, list[list[int]]]:
        """Token ids of prompt, answer and end, and the mask of those the loss counts."""
        end = self.model.tokenizer.eos_token_id
        tail = [] if end is None else [end]
        ids, masks = [], []
        for prompt, example in zip(self.prompts, self.sft_data.train, strict=True):
            answer = self.answers[example.label]
            answer = answer if tail and answer[-1:] == tail else [*answer, *tail]
            ids.append([*prompt, *answer])
            masks.append([0] * len(prompt) + [1] * len(answer))
        return {"input_ids": ids, "completion_mask": masks}

    def evaluated_at(self, step: int) -> bool:
        """Whether the validation questions were scored at a step."""
        return any(row["step"] == step and "validation/macro_f1" in row for row in self.history)

    def evaluate(self, step: int) -> None:
        """Score the validation questions; keep the adapter if it is the best so far."""
        best = max((row.get("validation/macro_f1", -1.0) for row in self.history), default=-1.0)
        scores = self.scores()
        value = scores["macro_f1"]
        assert value is not None, "there are validation questions"
        self.log({"step": step, "validation/macro_f1": value,
                   "validation/accuracy": scores["accuracy"]})  # fmt: skip
        if value > best or self.spec.keep == "last":
            state = self.gather_state()  # a collective call: on all processes
            if not process_group.is_main_process():
                return
            with atomic.new_folder(self.work / "kept") as folder:
                self.model.model.save_pretrained(folder, state_dict=state)
            atomic.write_text(self.work / "scores.json", json.dumps(scores))

    def scores(self) -> dict[str, float | None]:
        """Every score of the validation questions, by the likelihood of the labels."""
        was_training = self.model.model.training
        self.model.model.eval()
        logits = self.model.likelihoods(self.eval_prompts, self.answers)
        self.model.model.train(was_training)
        classes = self.sft_data.renderer.classes
        counts = np.bincount([e.label for e in self.sft_data.train], minlength=len(classes))
        return classification_scores(
            np.array([e.label for e in self.eval_examples]), logits, classes=classes,
            train_counts=counts.tolist(), tail=(),
        )  # fmt: skip

    def log(self, row: dict[str, Any]) -> None:
        """Append a row to the history, on disk at once."""
        self.history.append(row)
        if not process_group.is_main_process():
            return
        with (self.work / HISTORY).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def resume(self, step: int) -> None:
        """Restore the history as it was at a step."""
        path = self.work / HISTORY
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.history = [row for line in lines if (row := json.loads(line))["step"] <= step]
        process_group.barrier()  # all have read what process 0 now rewrites
        if not process_group.is_main_process():
            return
        atomic.write_text(path, "".join(json.dumps(row) + "\n" for row in self.history))

    def finish(self, out: Path) -> FineTuneResult:
        """Publish the folder of the adapter and clear the work folder."""
        spec, sft_data = self.spec, self.sft_data
        scores = json.loads((self.work / "scores.json").read_text(encoding="utf-8"))
        notes: tuple[str, ...] = ()
        if self.shortened:
            notes = (f"{self.shortened} of {len(sft_data.train)} questions were shortened to "
                     f"{spec.cutoff} tokens",)  # fmt: skip
        short = [e.question.truncate(400) for e in sft_data.validation[:CHECK_QUESTIONS]]
        checks = [self.model.format_prompt(sft_data.renderer, q.text, q.demos) for q in short]
        result = FineTuneResult(
            spec=spec, data=sft_data.data, template=sft_data.template,
            classes=sft_data.renderer.classes, answers=sft_data.renderer.answers,
            checks=tuple(checks), validation=scores,
            steps=max((row["step"] for row in self.history), default=0),
            rows=len(sft_data.train), notes=notes,
        )  # fmt: skip
        adapter = self.work / "kept"
        try:
            self.model.tokenizer.save_pretrained(adapter)
            shutil.copyfile(self.work / HISTORY, adapter / HISTORY)
        except OSError as error:
            raise RunError(f"Cannot write {out}: {error.strerror or error}") from None
        atomic.write_text(adapter / ABOUT, result.model_dump_json(indent=1))
        atomic.publish_folder(adapter, out, marker=ABOUT)
        shutil.rmtree(self.work, ignore_errors=True)
        return result


def _trainer(session: _FineTuneSession) -> SFTTrainer:
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


def _callback(session: _FineTuneSession) -> Any:
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
