"""Who answers questions: a model on this machine, or one behind a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from valence.config.llm import LlmSpec
from valence.config.sections import EncoderSpec
from valence.errors import SpecError
from valence.llm.answers import Answers, named_labels, one_hot, parse_answer, token_logits
from valence.llm.control_tokens import as_data
from valence.llm.language_model import LanguageModel
from valence.llm.prompts import Demo, PromptRenderer, Question
from valence.llm.resident import free_memory, open_language_model
from valence.llm.server import ChatClient, Messages
from valence.llm.server_replies import Reply
from valence.models.base import Progress

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
            return Answers(
                logits, tuple(raw), shortened,
                (*self.model.notes, *several_note(raw, self.renderer)),
            )  # fmt: skip
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
            SpecError: if no question fits its context however short its texts are.
        """
        replies, shortened = self._complete(questions, progress)
        refused = {i: reply.refused for i, reply in enumerate(replies) if reply.refused}
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
        raw = tuple(reply.text for reply in replies)
        notes = (*self.client.notes, *several_note(raw, self.renderer))
        answered = len(replies) - len(refused)
        if self.llm.answer == "likelihood" and counted < answered:
            notes = (*notes, f"{answered - counted} of {answered} answers came without label "
                     "probabilities; do not use the probabilities of these rows")  # fmt: skip
        return Answers(logits, raw, shortened, notes, refused)

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
        long = [i for i, reply in enumerate(replies) if reply.too_long]
        if len(long) == len(replies):
            raise SpecError(
                f"{len(long)} prompts do not fit the context of {self.client.model!r}; use fewer "
                "demonstrations or another template"
            )
        for i in long:
            replies[i] = Reply("", refused="too long for the model's context")
        return replies, len(shortened - set(long))

    def close(self) -> None:
        """Nothing is held: connections are closed after every call."""

    def messages(self, question: Question) -> Messages:
        """The question as chat messages."""
        demos = [Demo(as_data(demo.text), demo.label) for demo in question.demos]
        return self.renderer.messages(as_data(question.text), demos)


def several_note(raw: Sequence[str], renderer: PromptRenderer) -> tuple[str, ...]:
    """A note where answers name more than one label, and so none."""
    count = sum(len(named_labels(text, renderer)) > 1 for text in raw)
    return (
        (f"{count} of {len(raw)} answers name several labels and count as none",) if count else ()
    )


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
                f"{len(long)} prompts are longer than the model's context ({room} tokens without "
                f"the answer), even with almost empty texts; raise {setting}, use fewer "
                "demonstrations, or another template or model"
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
