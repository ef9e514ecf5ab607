"""Prompting a language model about rows: questions, backends, and the model that answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from valence.config.callbacks import ProgressCallback
from valence.data.dataset import Dataset, Split, TrainingData
from valence.data.examples import Examples
from valence.errors import ModelError, UnknownNameError
from valence.evaluation.task import CERTAIN, Task
from valence.llm.backends import Backend, PromptSettings, open_backend
from valence.llm.prompts import Demo, Question, make_renderer
from valence.llm.records import with_demos
from valence.llm.retrieval import NONE, Embedder, Retriever
from valence.models.base import Model, Outputs, Progress, no_features


class QuestionBuilder:
    """Builds questions from texts; sees training rows only.

    Args:
        settings: How the model is prompted.
        data: Training rows, the only source of demonstrations.
        progress: Called with (done, total) texts that had to be embedded.

    Raises:
        SpecError: if the template does not fit the labels.
    """

    def __init__(
        self, settings: PromptSettings, data: TrainingData, progress: Progress | None = None
    ) -> None:
        self.settings, self.data, self.progress = settings, data, progress
        self.renderer = make_renderer(settings.llm.template, data.classes)
        self.retriever: Retriever | None = None

    def questions(self, examples: Examples) -> list[Question]:
        """A question for every row.

        Raises:
            DataError: if a language of the rows has no training rows.
        """
        llm = self.settings.llm
        demos: Sequence[tuple[Demo, ...]] = [()] * len(examples)
        if llm.shots == "fixed":
            demos = [self._fixed()] * len(examples)
        elif llm.shots == "retrieved" and len(examples):
            self.retriever = self.retriever or self._retriever()
            nearest = self.retriever.find(examples, llm.per_label)
            demos = with_demos(self.renderer, self.data.train, nearest)
        return [Question(text, own) for text, own in zip(examples.texts, demos, strict=True)]

    def _retriever(self) -> Retriever:
        llm, settings = self.settings.llm, self.settings
        embedder = Embedder(settings.encoder, llm.pooling, device=settings.device)
        return Retriever(
            embedder, self.data.train, len(self.data.classes),
            group=(self.data.group or None) if llm.pool == "language" else None,
            progress=self.progress,
        )  # fmt: skip

    def _fixed(self) -> tuple[Demo, ...]:
        """The same rows for all texts, drawn by the seed; classes without rows give none."""
        llm, rows, classes = self.settings.llm, self.data.train, len(self.data.classes)
        rng = np.random.default_rng(self.settings.seed)
        most = llm.shots_total or llm.per_label
        sampled = [rng.permutation(np.flatnonzero(rows.labels == c))[:most] for c in range(classes)]
        if llm.shots_total is not None:
            counts = _shared_out(llm.shots_total, [len(own) for own in sampled], rng)
            sampled = [own[:count] for own, count in zip(sampled, counts, strict=True)]
        chosen = np.full((1, classes, most), NONE, dtype=np.int64)
        for label, own in enumerate(sampled):
            chosen[0, label, : len(own)] = own
        return with_demos(self.renderer, rows, chosen)[0]


def _shared_out(total: int, available: Sequence[int], rng: np.random.Generator) -> list[int]:
    """So many of each class that they make ``total``: one each in a random order, then the next."""
    counts = [0] * len(available)
    while total > 0:
        order = [c for c in rng.permutation(len(available)) if counts[c] < available[c]][:total]
        if not order:
            break
        for c in order:
            counts[c] += 1
        total -= len(order)
    return counts


@dataclass
class PromptedModel(Model):
    """A prompted language model; rows without a valid answer are NaN."""

    task: Task
    provenance: Mapping[str, Any]
    builder: QuestionBuilder
    backend: Backend
    fallback: int | None = None
    progress: ProgressCallback | None = None
    notes: list[str] = field(default_factory=list)

    def predict(self, examples: Examples, progress: Progress | None = None) -> Outputs:
        """Outputs of N rows, in their order, with the answer to each."""
        questions = self.builder.questions(examples)
        if not questions:
            return Outputs(np.zeros((0, self.task.output_size), np.float32), no_features(0))
        answers = self.backend.answer(questions, progress or row_progress(self.progress, "answers"))
        logits = answers.logits
        if self.fallback is not None and answers.invalid.any():
            logits = logits.copy()
            logits[answers.invalid] = 0.0
            logits[answers.invalid, self.fallback] = CERTAIN
        return Outputs(
            logits,
            no_features(len(examples)),
            answers=answers.texts(),
            notes=answers.summary(None if examples.ids is None else examples.ids.tolist()),
        )

    def close(self) -> None:
        """Let go of the language model, whoever still refers to this one."""
        self.backend.close()

    def save(self, folder: Path) -> None:
        """Refuse: a prompted model has nothing of its own to save.

        Raises:
            ModelError: always, saying what to do.
        """
        raise ModelError(
            "A prompted language model cannot be saved; prompt it again: valence llm classify DATA"
        )


def prompted_model(
    settings: PromptSettings, data: TrainingData, provenance: Mapping[str, Any],
    progress: ProgressCallback | None = None,
) -> PromptedModel:  # fmt: skip
    """A language model, ready to be prompted.

    Args:
        settings: How it is prompted.
        data: Training rows, for demonstrations.
        provenance: The spec it is prompted by, as plain values.
        progress: Called with the fraction of answers done and a message.

    Raises:
        SpecError, ModelError, RunError: if template, model or server cannot be used.
        UnknownNameError: if the fallback is no label.
    """
    label, fallback = settings.llm.fallback, None
    if label is not None:
        if label not in data.classes:
            raise UnknownNameError("label for llm.fallback", label, data.classes)
        fallback = data.classes.index(label)
    builder = QuestionBuilder(settings, data, row_progress(progress, "embedding"))
    backend = open_backend(settings, builder.renderer)
    return PromptedModel(data.task, provenance, builder, backend, fallback, progress)


def row_progress(progress: ProgressCallback | None, what: str) -> Progress:
    """Row counts as a fraction and a message for ``progress``."""

    def on_rows(done: int, total: int) -> None:
        if progress is not None:
            progress(done / total, f"{what} {done} of {total}")

    return on_rows


def all_questions(
    settings: PromptSettings, dataset: Dataset
) -> tuple[QuestionBuilder, list[Question]]:
    """Every question of a run, content-free ones included where they are prompted."""
    builder = QuestionBuilder(settings, dataset.without_test())
    splits: list[Split] = [dataset.validation] if settings.llm.validation else []
    rows = [split.examples(dataset.group) for split in (*splits, dataset.test)]
    questions = list(chain.from_iterable(builder.questions(examples) for examples in rows))
    if settings.llm.prior == "content-free":
        questions += [question.without_content() for question in questions]
    return builder, questions
