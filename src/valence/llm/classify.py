"""Asking a language model about rows: questions, a plan of what they cost, and answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Protocol

import numpy as np
import pandas as pd

from valence.config.llm import LlmSpec
from valence.config.spec import RunSpec
from valence.data.dataset import Dataset, Split, TrainingData
from valence.data.groups import LANGUAGE
from valence.errors import SpecError, UnknownNameError
from valence.llm.answers import Answers, counted_wrong, one_hot, parse_answer, token_logits
from valence.llm.local import LanguageModel, load_language_model
from valence.llm.prompts import Demo, PromptRenderer, Question, make_renderer
from valence.llm.records import with_demos
from valence.llm.retrieval import NONE, Embedder, Retriever
from valence.llm.server import Messages, Server
from valence.models.base import Progress, Scores
from valence.training.trainer import Report

LEAST_CHARACTERS = 16
"""A text cut below this says nothing; the context is too short for the template then."""
HALVINGS = 8


class Asker:
    """Makes the questions of a spec; sees training rows only.

    Args:
        spec: How to ask.
        data: Training rows, the only source of demonstrations.
        progress: Told (done, all) texts that had to be embedded.

    Raises:
        SpecError: if the template does not fit the labels.
    """

    def __init__(self, spec: RunSpec, data: TrainingData, progress: Progress | None = None) -> None:
        self.spec, self.data, self.progress = spec, data, progress
        self.wording = make_renderer(spec.llm.template, data.classes)
        self.retriever: Retriever | None = None

    def questions(self, rows: Split) -> list[Question]:
        """A question for every row; labels of ``rows`` are not read.

        Raises:
            DataError: if a language of the rows has no training rows.
        """
        demos: Sequence[tuple[Demo, ...]] = [()] * len(rows)
        if self.spec.llm.shots == "fixed":
            demos = [self._fixed()] * len(rows)
        elif self.spec.llm.shots == "retrieved" and len(rows):
            self.retriever = self.retriever or self._retriever()
            found = self.retriever.find(rows, self.spec.llm.per_label)
            demos = with_demos(self.wording, rows, self.data.train, found)
        return [Question(text, own) for text, own in zip(rows.texts, demos, strict=True)]

    def _retriever(self) -> Retriever:
        llm = self.spec.llm
        embedder = Embedder(self.spec.encoder, llm.pooling, device=self.spec.train.device)
        return Retriever(
            embedder, self.data.train, len(self.data.classes),
            group=(self.spec.data.group or LANGUAGE) if llm.pool == "language" else None,
            progress=self.progress,
        )  # fmt: skip

    def _fixed(self) -> tuple[Demo, ...]:
        """The same rows for all texts, drawn by the seed; classes without rows give none."""
        draw = np.random.default_rng(self.spec.seed)
        rows, wanted = self.data.train, self.spec.llm.per_label
        found = np.full((1, len(self.data.classes), wanted), NONE, dtype=np.int64)
        for label in range(len(self.data.classes)):
            own = np.flatnonzero(rows.labels == label)
            taken = draw.permutation(own)[:wanted]
            found[0, label, : len(taken)] = taken
        return with_demos(self.wording, rows.take([0]), rows, found)[0]


class Backend(Protocol):
    """Something that answers questions."""

    def answer(self, questions: Sequence[Question], progress: Progress | None = None) -> Answers:
        """Answers to N questions, in their order."""
        ...


class LocalBackend:
    """A model on this machine."""

    def __init__(self, llm: LlmSpec, wording: PromptRenderer, model: LanguageModel) -> None:
        self.llm, self.wording, self.model = llm, wording, model
        blank = model.question(wording, "")
        self.answer_ids = model.answer_ids(blank, wording.answers)
        longest = max(len(ids) for ids in self.answer_ids)
        self.room = model.limit - (
            longest if llm.answer == "likelihood" else max(longest, llm.max_new_tokens)
        )

    def answer(self, questions: Sequence[Question], progress: Progress | None = None) -> Answers:
        """Answers to N questions, in their order.

        Raises:
            SpecError: if the model's context is too short for the template.
        """
        prompts, shortened = fitted(self.encode, questions, self.room)
        if self.llm.answer == "greedy":
            raw = self.model.decode(prompts, self.llm.max_new_tokens, progress)
            labels = [parse_answer(text, self.wording) for text in raw]
            logits = one_hot(labels, len(self.wording.classes))
            return Answers(logits, tuple(raw), shortened)
        scores = self.model.likelihoods(prompts, self.answer_ids, progress)
        if self.llm.prior == "content-free":
            blank = [question.without_content() for question in questions]
            free, _ = fitted(self.encode, blank, self.room)
            scores = scores - self.model.likelihoods(free, self.answer_ids)
        return Answers(scores, (), shortened)

    def encode(self, questions: Sequence[Question]) -> list[list[int]]:
        """Token ids of questions."""
        texts = [self.model.question(self.wording, q.text, q.demos) for q in questions]
        return self.model.encode(texts)


class ServerBackend:
    """A model behind a server."""

    def __init__(self, llm: LlmSpec, wording: PromptRenderer, server: Server) -> None:
        self.llm, self.wording, self.server = llm, wording, server

    def answer(self, questions: Sequence[Question], progress: Progress | None = None) -> Answers:
        """Answers to N questions, in their order.

        Raises:
            RunError: if the server fails for good.
            SpecError: if a question does not fit its context however short it is cut.
        """
        replies, shortened = self._asked(questions, progress)
        labels = [parse_answer(reply.text, self.wording) for reply in replies]
        logits = one_hot(labels, len(self.wording.classes))
        told = 0
        if self.llm.answer == "likelihood":
            for i, reply in enumerate(replies):
                found = token_logits(reply.tokens, labels[i], self.wording)
                if found is not None:
                    logits[i], told = found, told + 1
            if self.llm.prior == "content-free" and told:
                logits = self._corrected(questions, logits)
        notes: tuple[str, ...] = ()
        if self.llm.answer == "likelihood" and told < len(replies):
            notes = (f"{len(replies) - told} of {len(replies)} answers came without probabilities "
                     "of the labels; their probabilities mean nothing",)  # fmt: skip
        return Answers(logits, tuple(reply.text for reply in replies), shortened, notes)

    def _corrected(self, questions: Sequence[Question], logits: np.ndarray) -> np.ndarray:
        blank = [question.without_content() for question in questions]
        replies, _ = self._asked(blank, None)
        for i, reply in enumerate(replies):
            label = parse_answer(reply.text, self.wording)
            free = token_logits(reply.tokens, label, self.wording)
            if free is not None:
                logits[i] = logits[i] - free
        return logits

    def _asked(self, questions: Sequence[Question], progress: Progress | None) -> tuple[list, int]:  # type: ignore[type-arg]
        asked = list(questions)
        replies = self.server.ask([self.messages(question) for question in asked], progress)
        shortened: set[int] = set()
        for _ in range(HALVINGS):
            long = [i for i, reply in enumerate(replies) if reply.too_long]
            if not long:
                return replies, len(shortened)
            shortened |= set(long)
            for i in long:
                asked[i] = asked[i].cut(max(LEAST_CHARACTERS, asked[i].longest // 2))
            again = self.server.ask([self.messages(asked[i]) for i in long])
            for i, reply in zip(long, again, strict=True):
                replies[i] = reply
        raise SpecError(
            f"{sum(reply.too_long for reply in replies)} questions do not fit the context of "
            f"{self.server.model!r}, however short; give fewer demonstrations or another template"
        )

    def messages(self, question: Question) -> Messages:
        """The question as chat messages."""
        return self.wording.messages(question.text, question.demos)


def fitted(
    encode: Callable[[Sequence[Question]], list[list[int]]],
    questions: Sequence[Question],
    room: int,
) -> tuple[list[list[int]], int]:
    """Token ids of questions that fit, and how many had to be shortened.

    All texts of a question that is too long are cut at one length, the largest that fits.

    Args:
        encode: Token ids of questions.
        questions: N questions.
        room: Most tokens.

    Raises:
        SpecError: if a template does not fit even around almost empty texts.
    """
    prompts = encode(questions)
    long = [i for i, ids in enumerate(prompts) if len(ids) > room]
    for i in long:
        low, high = 0, questions[i].longest
        while high - low > 1:
            middle = (low + high) // 2
            ids = encode([questions[i].cut(middle)])[0]
            if len(ids) <= room:
                low, prompts[i] = middle, ids
            else:
                high = middle
        if low < LEAST_CHARACTERS:
            raise SpecError(
                f"{len(long)} questions are longer than the model's context ({room} tokens "
                "without the answer), even around almost empty texts; raise llm.max_length, give "
                "fewer demonstrations, or take another template or model"
            )
    return prompts, len(long)


def open_backend(spec: RunSpec, wording: PromptRenderer) -> Backend:
    """The backend of a spec.

    Raises:
        ModelError, SpecError, RunError: if the model or the server cannot be used.
    """
    llm = spec.llm
    if llm.server is not None:
        return ServerBackend(llm, wording, open_server(llm))
    model = load_language_model(
        llm.model, quantisation=llm.quantisation, device=spec.train.device,
        max_length=llm.max_length,
    )  # fmt: skip
    return LocalBackend(llm, wording, model)


def open_server(llm: LlmSpec) -> Server:
    """The client of a spec's server.

    Raises:
        SpecError, RunError: as :class:`Server`.
    """
    return Server(
        llm.server, llm.model, max_new_tokens=llm.max_new_tokens, concurrency=llm.concurrency,
        per_minute=llm.per_minute,
    )  # fmt: skip


class Prompted:
    """A language model asked as a spec says; what ``run`` scores.

    Args:
        spec: What to ask, and how.
        data: Training rows, for demonstrations.
        report: Told how far the answering is.

    Raises:
        SpecError, ModelError, RunError: if template, model or server cannot be used.
        UnknownNameError: if the fallback is no label.
    """

    def __init__(self, spec: RunSpec, data: TrainingData, *, report: Report | None = None) -> None:
        self.report = report
        self.asker = Asker(spec, data, self._progress("embedding"))
        self.backend = open_backend(spec, self.asker.wording)
        self.counts = [int(count) for count in data.train_counts]
        self.fallback: int | None = None
        if spec.llm.fallback is not None:
            if spec.llm.fallback not in data.classes:
                raise UnknownNameError("label for llm.fallback", spec.llm.fallback, data.classes)
            self.fallback = data.classes.index(spec.llm.fallback)

    def answer(self, rows: Split) -> Answers:
        """Answers about every row, in their order."""
        questions = self.asker.questions(rows)
        if not questions:
            return Answers(np.zeros((0, len(self.asker.wording.classes)), dtype=np.float32))
        return self.backend.answer(questions, self._progress("answers"))

    def scores(self, rows: Split) -> tuple[Scores, pd.DataFrame, tuple[str, ...]]:
        """Scores of labelled rows, what was said to each, and notes; no answer counts as wrong."""
        answers = self.answer(rows)
        logits = counted_wrong(answers, rows.labels, self.counts, self.fallback)
        table = pd.DataFrame(
            answers.records([str(i) for i in rows.ids], self.asker.wording.classes)
        )
        return Scores(logits, np.zeros((len(rows), 0), np.float32)), table, answers.told()

    def _progress(self, what: str) -> Progress:
        def tell(done: int, all_: int) -> None:
            if self.report is not None:
                self.report(done / all_, f"{what} {done} of {all_}")

        return tell


def rows_asked(spec: RunSpec, dataset: Dataset) -> list[Split]:
    """The splits that a run asks about."""
    return [*([dataset.validation] if spec.llm.validation else []), dataset.test]


def all_questions(spec: RunSpec, dataset: Dataset) -> tuple[Asker, list[Question]]:
    """Every question of a run, those without content included where they are asked."""
    asker = Asker(spec, dataset.without_test())
    asked = list(chain.from_iterable(asker.questions(rows) for rows in rows_asked(spec, dataset)))
    if spec.llm.prior == "content-free":
        asked += [question.without_content() for question in asked]
    return asker, asked
