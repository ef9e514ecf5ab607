"""Requests become batches: one bounded queue, one thread that owns the model.

A batch is as many texts as have a number of tokens together. Requests of few tokens go in the
order they came; those of many are scored piece by piece, in turn with the short ones, so that
nobody waits behind a long text longer than one batch. While the model works on a batch, the next
one gathers; a lone request waits a few milliseconds for company. What is refused is refused at
once, and what was given up by its sender is not computed.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from valence.serving.refusals import Refusal, broken, busy, stopping, too_late
from valence.serving.scoring import Answer, BatchScorer, about_tokens, joined, score_texts
from valence.serving.settings import Limits

MOST_RETRY_SECONDS = 60
BATCH_TOKENS = 4096
SHORT = 4  # a request is short if so many of them fill a batch
CALL_TOKENS = 32  # that one text of the weight of a call stands for
RATE_MEMORY = 0.8  # weight of the old rate in the new one, so that one slow batch says little


class BatcherCallback(Protocol):
    """Called for every batch and change of the queue, from the model's thread."""

    def batch(self, texts: int, seconds: float) -> None:
        """A batch is done."""
        ...

    def queue(self, texts: int) -> None:
        """So many texts wait."""
        ...


@dataclass(eq=False)
class _Job:
    """A request in the queue.

    Attributes:
        texts: Its texts.
        tokens: About how many tokens each has.
        call: What is called in place of scoring texts.
        weight: Texts whose place it takes.
        future: Its answer.
        taken: Texts that are scored or about to be.
        model: That has scored the first of them and so scores all.
        answers: What has been scored.
    """

    texts: list[str]
    tokens: list[int]
    call: Callable[[Any], Any] | None
    weight: int
    future: asyncio.Future[Any]
    taken: int = 0
    model: BatchScorer | None = None
    answers: list[Answer] = field(default_factory=list)

    @property
    def waiting_tokens(self) -> int:
        """About how many tokens of it wait."""
        return CALL_TOKENS * self.weight if self.call else sum(self.tokens[self.taken :])

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it waits any more."""
        return self.call is not None or self.taken == len(self.texts)


@dataclass(frozen=True)
class _Piece:
    """Some texts of a job; all of it where it is a call."""

    job: _Job
    texts: list[str]
    weight: int
    tokens: int


class Batcher:
    """The queue before a model and the thread behind it; used from one event loop.

    Args:
        model: Gives the model that answers now; called once per batch.
        limits: Bounds of the queue, the batches and the waiting.
        callback: Called for queue and batches.
        batch_tokens: About how many tokens are scored together; ``BATCH_TOKENS`` when None.
    """

    def __init__(
        self,
        model: Callable[[], BatchScorer],
        limits: Limits,
        callback: BatcherCallback | None = None,
        *,
        batch_tokens: int | None = None,
    ) -> None:
        self.model, self.limits, self.callback = model, limits, callback
        self.batch_tokens = batch_tokens or BATCH_TOKENS
        self._short: deque[_Job] = deque()
        self._long: deque[_Job] = deque()
        self._long_is_next = False
        self._waiting = self._waiting_tokens = 0
        self._tokens_per_second = 0.0
        self._changed = threading.Condition()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Texts in the queue."""
        return self._waiting

    @property
    def is_alive(self) -> bool:
        """Whether the model's thread runs."""
        return self._thread.is_alive()

    async def predict(self, texts: Sequence[str]) -> Answer:
        """The probabilities of ``texts``, scored together with those of other requests.

        Raises:
            Refusal: 429 where the queue is full, 503 where the time is over or the server
                stops, 500 where the model fails.
        """
        answer: Answer = await self._submit(list(texts), None, len(texts))
        return answer

    async def run(self, call: Callable[[Any], Any], *, weight: int) -> Any:
        """What ``call(model)`` returns; it has the model for itself meanwhile.

        Args:
            call: Run in the model's thread.
            weight: Texts whose place it takes in the queue.

        Raises:
            Refusal: as for :meth:`predict`, or what ``call`` raises.
        """
        return await self._submit([], call, weight)

    async def _submit(
        self, texts: list[str], call: Callable[[Any], Any] | None, weight: int
    ) -> Any:
        self._loop = asyncio.get_running_loop()
        tokens = [about_tokens(text) for text in texts]
        job = _Job(texts, tokens, call, weight, self._loop.create_future())
        with self._changed:
            if self._closed:
                raise stopping()
            # A weight beyond the whole queue is let in when nothing waits, or it never would be.
            if self._waiting and self._is_too_much(job):
                raise busy(self._retry_after())
            is_short = call is None and sum(tokens) <= self.batch_tokens // SHORT
            (self._short if is_short else self._long).append(job)
            self._count(weight, job.waiting_tokens)
            self._changed.notify()
        try:
            async with asyncio.timeout(self.limits.timeout_seconds):
                return await job.future
        except TimeoutError:
            raise too_late(self.limits.timeout_seconds) from None
        finally:
            self._withdraw(job)

    def _withdraw(self, job: _Job) -> None:
        """Free the place of a job that nobody waits for any more."""
        if job.future.done() and not job.future.cancelled():
            return
        with self._changed:
            for lane in (self._short, self._long):
                if job in lane:
                    lane.remove(job)
                    self._count(-job.weight, -job.waiting_tokens)

    def _count(self, texts: int, tokens: int) -> None:
        self._waiting += texts
        self._waiting_tokens += tokens
        if self.callback is not None:
            self.callback.queue(self._waiting)

    def _is_too_much(self, job: _Job) -> bool:
        tokens, rate = self._waiting_tokens + job.waiting_tokens, self._tokens_per_second
        is_slow = bool(rate) and tokens / rate > self.limits.wait_seconds
        return is_slow or self._waiting + job.weight > self.limits.queue_texts

    def _retry_after(self) -> int:
        rate = self._tokens_per_second
        seconds = self._waiting_tokens / rate if rate else 1.0
        return min(MOST_RETRY_SECONDS, max(1, math.ceil(seconds)))

    def _work(self) -> None:
        while batch := self._gather():
            try:
                self._answer(batch)
            except Exception as error:  # the thread must outlive whatever a batch does
                self._deliver([(piece.job, broken(error)) for piece in batch])

    def _gather(self) -> list[_Piece]:
        """The next batch, of one lane; empty when the queue is closed and empty."""
        with self._changed:
            while not self._short and not self._long and not self._closed:
                self._changed.wait()
            lane = self._next_lane()
            batch: list[_Piece] = []
            end = time.monotonic() + self.limits.gather_ms / 1000
            while self._fits(lane, batch, end):
                before = lane[0].waiting_tokens
                piece = self._piece(lane[0], batch)
                batch.append(piece)
                is_whole = lane[0].is_whole
                self._count(-piece.weight, -before + (0 if is_whole else lane[0].waiting_tokens))
                if is_whole:
                    lane.popleft()
                if piece.job.call is not None:
                    break
            return batch

    def _next_lane(self) -> deque[_Job]:
        """The short requests, or the long ones where those wait and had no turn last time."""
        takes_long = bool(self._long) and (self._long_is_next or not self._short)
        self._long_is_next = bool(self._long) and not takes_long
        return self._long if takes_long else self._short

    def _room(self, batch: list[_Piece]) -> tuple[int, int]:
        """Texts and tokens that still go into the batch."""
        texts = sum(len(piece.texts) for piece in batch)
        tokens = sum(piece.tokens for piece in batch)
        return self.limits.batch_texts - texts, self.batch_tokens - tokens

    def _fits(self, lane: deque[_Job], batch: list[_Piece], end: float) -> bool:
        """Wait until a job that goes into the batch is there; false where the batch is ready."""
        texts, tokens = self._room(batch)
        while not lane:
            left = end - time.monotonic()
            if not batch or self._closed or left <= 0 or texts <= 0 or tokens <= 0:
                return False
            if self._short or self._long:
                return False  # the other lane waits already
            self._changed.wait(left)
        if not batch:
            return True
        first = lane[0]
        fits = texts > 0 and first.call is None and first.tokens[first.taken] <= tokens
        return fits and (first.model is None or first.model is batch[0].job.model)

    def _piece(self, job: _Job, batch: list[_Piece]) -> _Piece:
        """As many texts of a job as go into the batch, one at least."""
        if job.call is not None:
            return _Piece(job, [], job.weight, 0)
        texts, tokens = self._room(batch)
        start = end = job.taken
        while end < len(job.texts) and end - start < texts:
            tokens -= job.tokens[end]
            if tokens < 0 and end > start:
                break
            end += 1
        job.taken = end
        job.weight -= end - start
        return _Piece(job, job.texts[start:end], end - start, sum(job.tokens[start:end]))

    def _answer(self, batch: list[_Piece]) -> None:
        pieces = [piece for piece in batch if not piece.job.future.done()]
        if not pieces:
            return
        model = pieces[0].job.model or self.model()
        clock = time.perf_counter()
        if (call := pieces[0].job.call) is not None:
            self._deliver([(pieces[0].job, _attempt(call, model))])
            return
        for piece in pieces:
            piece.job.model = model
        answers = _attempt(partial(_score, pieces=pieces), model)
        if isinstance(answers, Exception) and len(pieces) > 1:
            # One bad text must not take the others along.
            alone = [_attempt(partial(_score, pieces=[piece]), model) for piece in pieces]
            self._settle_pieces(
                [(piece, x if isinstance(x, Exception) else x[0])
                 for piece, x in zip(pieces, alone, strict=True)]
            )  # fmt: skip
            return
        self._record_batch(pieces, time.perf_counter() - clock)
        if isinstance(answers, Exception):
            answers = [answers] * len(pieces)
        self._settle_pieces(list(zip(pieces, answers, strict=True)))

    def _settle_pieces(self, results: list[tuple[_Piece, Any]]) -> None:
        """Answer the jobs that are whole, or of which a piece has failed."""
        done: list[tuple[_Job, Any]] = []
        for piece, result in results:
            job = piece.job
            if isinstance(result, Exception):
                self._withdraw(job)
                done.append((job, result))
                continue
            job.answers.append(result)
            if job.is_whole:
                done.append((job, joined(job.answers)))
        self._deliver(done)

    def _record_batch(self, pieces: list[_Piece], seconds: float) -> None:
        texts = sum(len(piece.texts) for piece in pieces)
        tokens = sum(piece.tokens for piece in pieces)
        # A lone text says nothing of a busy hour.
        if 2 * texts >= self.limits.batch_texts or 2 * tokens >= self.batch_tokens:
            rate = tokens / max(seconds, 1e-6)
            old = self._tokens_per_second or rate
            self._tokens_per_second = RATE_MEMORY * old + (1 - RATE_MEMORY) * rate
        if self.callback is not None:
            self.callback.batch(texts, seconds)

    def _deliver(self, results: list[tuple[_Job, Any]]) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        loop.call_soon_threadsafe(_settle, results)

    def close(self) -> None:
        """Take nothing more, finish what was taken, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()


def _score(model: BatchScorer, pieces: list[_Piece]) -> list[Answer]:
    answer = score_texts(model, [text for piece in pieces for text in piece.texts])
    ends = np.cumsum([len(piece.texts) for piece in pieces])[:-1]
    parts = np.split(answer.probabilities, ends)
    chosen = [None] * len(parts) if answer.chosen is None else np.split(answer.chosen, ends)
    return [
        replace(answer, probabilities=part, chosen=own)
        for part, own in zip(parts, chosen, strict=True)
    ]


def _attempt(call: Callable[[Any], Any], model: Any) -> Any:
    """What ``call`` gives, or the error as a value, which goes back to the caller."""
    try:
        return call(model)
    except Refusal as refusal:
        return refusal
    except Exception as error:
        return broken(error)


def _settle(results: list[tuple[_Job, Any]]) -> None:
    for job, result in results:
        if job.future.done():
            continue
        if isinstance(result, Exception):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
