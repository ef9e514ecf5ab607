"""Prompting a language model about rows: questions, backends, and the model that answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from valence.config.callbacks import ProgressCallback
from valence.config.llm import LlmSpec
from valence.config.sections import EncoderSpec
from valence.data.dataset import Dataset, Split, TrainingData
from valence.data.examples import Examples
from valence.errors import ModelError, SpecError, UnknownNameError
from valence.evaluation.task import CERTAIN, Task
from valence.llm.answers import Answers, one_hot, parse_answer, token_logits
from valence.llm.language_model import LanguageModel
from valence.llm.prompts import Demo, PromptRenderer, Question, make_renderer
from valence.llm.records import with_demos
from valence.llm.resident import free_memory, open_language_model
from valence.llm.retrieval import NONE, Embedder, Retriever
from valence.llm.server import ChatClient, Messages, Reply
from valence.models.base import Model, Outputs, Progress, no_features

MIN_CHARACTERS = 16
"""A text truncated below this says nothing; the context is too short for the template then."""
HALVINGS = 8


@dataclass(frozen=True)
class PromptSettings:
    """How a language model is prompted.

    Attributes:
        llm: Model, template and shots.
        encoder: The encoder that retrieves demonstrations.
        device: Where both run.
        seed: Of demonstrations that are the same for all texts.
    """

    llm: LlmSpec
    encoder: EncoderSpec = field(default_factory=EncoderSpec)
    device: str = "auto"
    seed: int = 45


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


class Backend(Protocol):
    """Anything that answers questions."""

    def answer(self, questions: Sequence[Question], progress: Progress | None = None) -> Answers:
        """Answers to N questions, in their order."""
        ...

    def close(self) -> None:
        """Let go of what it holds; it answers nothing afterwards."""
        ...


class LocalBackend:
    """A model on this machine."""

    def __init__(self, llm: LlmSpec, renderer: PromptRenderer, model: LanguageModel) -> None:
        self.llm, self.renderer, self.model = llm, renderer, model
        blank = model.format_prompt(renderer, "")
        self.answer_ids = model.answer_ids(blank, renderer.answers)
        longest = max(len(ids) for ids in self.answer_ids)
        self.room = model.limit - (
            longest if llm.answer == "likelihood" else max(longest, llm.max_new_tokens)
        )

    def answer(self, questions: Sequence[Question], progress: Progress | None = None) -> Answers:
        """Answers to N questions, in their order.

        Raises:
            SpecError: if the model's context is too short for the template.
        """
        prompts, shortened = encode_truncated(self.encode, questions, self.room)
        if self.llm.answer == "greedy":
            raw = self.model.generate(prompts, self.llm.max_new_tokens, progress)
            labels = [parse_answer(text, self.renderer) for text in raw]
            logits = one_hot(labels, len(self.renderer.classes))
            return Answers(logits, tuple(raw), shortened, self.model.notes)
        scores = self.model.likelihoods(prompts, self.answer_ids, progress)
        if self.llm.prior == "content-free":
            blank = [question.without_content() for question in questions]
            blank_prompts, _ = encode_truncated(self.encode, blank, self.room)
            scores = scores - self.model.likelihoods(blank_prompts, self.answer_ids)
        return Answers(scores, (), shortened, self.model.notes)

    def close(self) -> None:
        """Let go of the model."""
        self.model.close()
        free_memory()

    def encode(self, questions: Sequence[Question]) -> list[list[int]]:
        """Token ids of questions."""
        texts = [self.model.format_prompt(self.renderer, q.text, q.demos) for q in questions]
        return self.model.encode(texts)


class ServerBackend:
    """A model behind a server."""

    def __init__(self, llm: LlmSpec, renderer: PromptRenderer, client: ChatClient) -> None:
        self.llm, self.renderer, self.client = llm, renderer, client

    def answer(self, questions: Sequence[Question], progress: Progress | None = None) -> Answers:
        """Answers to N questions, in their order.

        Raises:
            RunError: if the server fails for good.
            SpecError: if a question does not fit its context however short its texts are.
        """
        replies, shortened = self._complete(questions, progress)
        labels = [parse_answer(reply.text, self.renderer) for reply in replies]
        logits = one_hot(labels, len(self.renderer.classes))
        counted = 0
        if self.llm.answer == "likelihood":
            for i, reply in enumerate(replies):
                token_scores = token_logits(reply.tokens, labels[i], self.renderer)
                if token_scores is not None:
                    logits[i], counted = token_scores, counted + 1
            if self.llm.prior == "content-free" and counted:
                logits = self._subtract_prior(questions, logits)
        notes: tuple[str, ...] = ()
        if self.llm.answer == "likelihood" and counted < len(replies):
            notes = (f"{len(replies) - counted} of {len(replies)} answers came without "
                     "probabilities of the labels; their probabilities mean nothing",)  # fmt: skip
        return Answers(logits, tuple(reply.text for reply in replies), shortened, notes)

    def _subtract_prior(self, questions: Sequence[Question], logits: np.ndarray) -> np.ndarray:
        blank = [question.without_content() for question in questions]
        replies, _ = self._complete(blank, None)
        for i, reply in enumerate(replies):
            label = parse_answer(reply.text, self.renderer)
            prior = token_logits(reply.tokens, label, self.renderer)
            if prior is not None:
                logits[i] = logits[i] - prior
        return logits

    def _complete(
        self, questions: Sequence[Question], progress: Progress | None
    ) -> tuple[list[Reply], int]:
        """A reply to every question, and how many had to be shortened."""
        requests = list(questions)
        replies = self.client.complete([self.messages(q) for q in requests], progress)
        shortened: set[int] = set()
        for _ in range(HALVINGS):
            long = [i for i, reply in enumerate(replies) if reply.too_long]
            if not long:
                return replies, len(shortened)
            shortened |= set(long)
            for i in long:
                requests[i] = requests[i].truncate(max(MIN_CHARACTERS, requests[i].longest // 2))
            retried = self.client.complete([self.messages(requests[i]) for i in long])
            for i, reply in zip(long, retried, strict=True):
                replies[i] = reply
        raise SpecError(
            f"{sum(reply.too_long for reply in replies)} questions do not fit the context of "
            f"{self.client.model!r}, however short; give fewer demonstrations or another template"
        )

    def close(self) -> None:
        """Nothing is held: connections are closed after every call."""

    def messages(self, question: Question) -> Messages:
        """The question as chat messages."""
        return self.renderer.messages(question.text, question.demos)


def encode_truncated(
    encode: Callable[[Sequence[Question]], list[list[int]]],
    questions: Sequence[Question],
    room: int,
    *,
    setting: str = "llm.max_length",
) -> tuple[list[list[int]], int]:
    """Token ids of questions that fit, and how many had to be shortened.

    All texts of a question that is too long are truncated at one length, the largest that fits.

    Args:
        encode: Token ids of questions.
        questions: N questions.
        room: Most tokens of a question.
        setting: What the user calls the limit.

    Raises:
        SpecError: if a template does not fit even around almost empty texts.
    """
    prompts = encode(questions)
    long = [i for i, ids in enumerate(prompts) if len(ids) > room]
    for i in long:
        low, high = 0, questions[i].longest
        while high - low > 1:
            middle = (low + high) // 2
            ids = encode([questions[i].truncate(middle)])[0]
            if len(ids) <= room:
                low, prompts[i] = middle, ids
            else:
                high = middle
        if low < MIN_CHARACTERS:
            raise SpecError(
                f"{len(long)} questions are longer than the model's context ({room} tokens "
                f"without the answer), even around almost empty texts; raise {setting}, give fewer "
                "demonstrations, or take another template or model"
            )
    return prompts, len(long)


def open_backend(settings: PromptSettings, renderer: PromptRenderer) -> Backend:
    """The backend that answers.

    Raises:
        ModelError, SpecError, RunError: if the model or the server cannot be used.
    """
    llm = settings.llm
    if llm.server is not None:
        return ServerBackend(llm, renderer, make_client(llm))
    model = open_language_model(
        llm.model, quantization=llm.quantization, device=settings.device,
        precision=llm.precision, max_length=llm.max_length,
    )  # fmt: skip
    return LocalBackend(llm, renderer, model)


def make_client(llm: LlmSpec) -> ChatClient:
    """The client of the server that is configured.

    Raises:
        SpecError, RunError: as :class:`ChatClient`.
    """
    return ChatClient(
        llm.server, llm.model, max_new_tokens=llm.max_new_tokens, concurrency=llm.concurrency,
        per_minute=llm.per_minute,
    )  # fmt: skip


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
            logits, no_features(len(examples)), answers=answers.texts(), notes=answers.summary()
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
            "A prompted language model leaves no model to keep; "
            "prompt it again: valence llm classify DATA"
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
