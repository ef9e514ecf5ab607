"""One fine-tuning under way: its rows as tokens, its evaluations, its history."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from valence.config.callbacks import ProgressCallback
from valence.distributed import process_group
from valence.errors import RunError
from valence.evaluation.classification import classification_scores
from valence.llm.backends import encode_truncated
from valence.llm.finetune_spec import ABOUT, FineTuneResult, FinetuneSpec
from valence.llm.language_model import LanguageModel
from valence.llm.prompts import Question
from valence.llm.records import Example
from valence.llm.sft_data import SFTData, by_language, stratified_sample
from valence.storage import atomic
from valence.storage.lines import read_lines

HISTORY = "history.jsonl"
SCORES = "scores.json"
CHECK_QUESTIONS = 8  # questions on which a merged model is compared with the adapter
CHECK_CHARACTERS = 400


class FineTuneSession:
    """One training: its rows as tokens, its evaluations, its history."""

    def __init__(
        self, spec: FinetuneSpec, sft_data: SFTData, model: LanguageModel, work: Path,
        progress: ProgressCallback | None,
    ) -> None:  # fmt: skip
        self.spec, self.sft_data, self.model = spec, sft_data, model
        self.work, self.progress = work, progress
        self.history: list[dict[str, Any]] = []
        self.gather_state: Callable[[], dict[str, Any] | None] = lambda: None
        self.eval_examples = stratified_sample(
            sft_data.validation, spec.validation_rows, seed=spec.seed
        )
        renderer = sft_data.renderer
        self.answers = model.answer_ids(model.format_prompt(renderer, ""), renderer.answers)
        self.room = model.limit - max(len(ids) for ids in self.answers) - 1
        self.prompts, self.shortened = self._truncated(sft_data.train)
        self.eval_prompts, _ = self._truncated(self.eval_examples)
        self.check_texts = self._check_texts()

    def _truncated(self, examples: Sequence[Example]) -> tuple[list[list[int]], int]:
        questions = [example.question for example in examples]
        return encode_truncated(self.encode, questions, self.room, setting="cutoff")

    def _check_texts(self) -> list[str]:
        """Questions of all languages, as the model reads them, for comparisons later on."""
        examples = stratified_sample(self.sft_data.validation, CHECK_QUESTIONS, seed=self.spec.seed)
        short = [e.question.truncate(CHECK_CHARACTERS) for e in examples]
        renderer = self.sft_data.renderer
        return [self.model.format_prompt(renderer, q.text, q.demos) for q in short]

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
        logits, checked = self._answers()
        scores = self.scores(logits)
        value = scores["macro_f1"]
        assert value is not None, "there are validation questions"
        languages = self.scores_by_language(logits)
        own = {f"validation/{name}/macro_f1": s["macro_f1"] for name, s in languages.items()}
        self.log({"step": step, "validation/macro_f1": value,
                   "validation/accuracy": scores["accuracy"], **own})  # fmt: skip
        if value > best or self.spec.keep == "last":
            state = self.gather_state()  # a collective call: on all processes
            if not process_group.is_main_process():
                return
            with atomic.new_folder(self.work / "kept") as folder:
                self.model.model.save_pretrained(folder, state_dict=state)
            record = {"all": scores, "languages": languages, "checks": checked.tolist()}
            atomic.write_text(self.work / SCORES, json.dumps(record))

    def _answers(self) -> tuple[np.ndarray, np.ndarray]:
        """Label scores of the validation questions, and label probabilities of the checks."""
        was_training = self.model.model.training
        self.model.model.eval()
        try:
            logits = self.model.likelihoods(self.eval_prompts, self.answers)
            checked = self.model.label_probs(self.check_texts, self.answers)
        finally:
            self.model.model.train(was_training)
        return logits, checked

    def scores_by_language(self, logits: np.ndarray) -> dict[str, dict[str, float | None]]:
        """The scores of every language by itself; none where there is one."""
        rows = by_language(self.eval_examples)
        if len(rows) < 2:
            return {}
        return {name: self.scores(logits[own], own) for name, own in rows.items()}

    def scores(self, logits: np.ndarray, rows: np.ndarray | None = None) -> dict[str, float | None]:
        """Every score of the validation questions, or of some of them.

        Args:
            logits: (N, C) likelihoods of the labels.
            rows: The N questions; all when None.
        """
        labels = np.array([e.label for e in self.eval_examples])
        labels = labels if rows is None else labels[rows]
        classes = self.sft_data.renderer.classes
        counts = np.bincount([e.label for e in self.sft_data.train], minlength=len(classes))
        return classification_scores(
            labels, logits, classes=classes,
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
        lines = read_lines(path) if path.exists() else []
        self.history = [row for line in lines if (row := json.loads(line))["step"] <= step]
        process_group.barrier()  # all have read what process 0 now rewrites
        if not process_group.is_main_process():
            return
        atomic.write_text(path, "".join(json.dumps(row) + "\n" for row in self.history))

    def finish(self, out: Path) -> FineTuneResult:
        """Publish the folder of the adapter and clear the work folder."""
        spec, sft_data = self.spec, self.sft_data
        record = json.loads((self.work / SCORES).read_text(encoding="utf-8"))
        notes: tuple[str, ...] = self.model.notes
        if len(self.eval_examples) < len(sft_data.validation):
            notes = (*notes, f"{len(self.eval_examples)} of {len(sft_data.validation)} validation "
                     "records are scored, of every language and label in proportion")  # fmt: skip
        if self.shortened:
            notes = (*notes, f"{self.shortened} of {len(sft_data.train)} questions were "
                     f"shortened to {spec.cutoff} tokens",)  # fmt: skip
        result = FineTuneResult(
            spec=spec, data=sft_data.data, template=sft_data.template,
            classes=sft_data.renderer.classes, answers=sft_data.renderer.answers,
            checks=tuple(self.check_texts), validation=record["all"],
            validation_by_language=record["languages"], check_probs=record["checks"],
            weight_format=self.model.weight_format,
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
