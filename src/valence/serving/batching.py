"""Requests become batches: one bounded queue, one thread that owns the model.

A batch is whole requests in the order they came. While the model works on one, the next
ones gather; a lone request waits a few milliseconds for company. What is refused is refused
at once, and what was given up by its sender is not computed.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from valence.errors import ModelError
from valence.serving.refusals import Refusal, broken, busy, stopping, too_late
from valence.serving.settings import Limits

MOST_RETRY_SECONDS = 60
RATE_MEMORY = 0.8  # weight of the old rate in the new one, so that one slow batch says little


class BatchScorer(Protocol):
    """The model's interface, as :class:`~valence.inference.predictor.Predictor` has it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Label names in the order of the probabilities; none of a model that gives a number."""
        ...

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """(N, C) probabilities."""
        ...

    def chosen(self, probs: np.ndarray) -> np.ndarray | None:
        """(N, C) which label is given for probabilities; None where it never abstains."""
        ...

    def columns(self, texts: Sequence[str]) -> Mapping[str, list[Any]]:
        """The numbers of N texts by name, of a model without labels."""
        ...


@dataclass(frozen=True)
class Answer:
    """The model's output for one request's N texts.

    Attributes:
        classes: C label names of the model that answered; of one that gives a number, its name.
        probabilities: (N, C); of a model that gives a number, (N, 1) that number.
        chosen: (N, C) which label is given, of a model that may abstain.
    """

    classes: tuple[str, ...]
    probabilities: np.ndarray
    chosen: np.ndarray | None = None


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
    texts: list[str]
    call: Callable[[Any], Any] | None
    weight: int
    future: asyncio.Future[Any]


class Batcher:
    """The queue before a model and the thread behind it; used from one event loop.

    Args:
        model: Gives the model that answers now; called once per batch.
        limits: Bounds of the queue, the batches and the waiting.
        callback: Called for queue and batches.
    """

    def __init__(
        self,
        model: Callable[[], BatchScorer],
        limits: Limits,
        callback: BatcherCallback | None = None,
    ) -> None:
        self.model, self.limits, self.callback = model, limits, callback
        self._queue: deque[_Job] = deque()
        self._waiting = 0
        self._texts_per_second = 0.0
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
        job = _Job(texts, call, weight, self._loop.create_future())
        with self._changed:
            if self._closed:
                raise stopping()
            # A weight beyond the whole queue is let in when nothing waits, or it never would be.
            if self._waiting and self._is_too_much(self._waiting + weight):
                raise busy(self._retry_after())
            self._queue.append(job)
            self._count(weight)
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
            if job in self._queue:
                self._queue.remove(job)
                self._count(-job.weight)

    def _count(self, texts: int) -> None:
        self._waiting += texts
        if self.callback is not None:
            self.callback.queue(self._waiting)

    def _is_too_much(self, texts: int) -> bool:
        limits, rate = self.limits, self._texts_per_second
        return texts > limits.queue_texts or bool(rate and texts / rate > limits.wait_seconds)

    def _retry_after(self) -> int:
        seconds = self._waiting / self._texts_per_second if self._texts_per_second else 1.0
        return min(MOST_RETRY_SECONDS, max(1, math.ceil(seconds)))

    def _work(self) -> None:
        while batch := self._gather():
            try:
                self._answer(batch)
            except Exception as error:  # the thread must outlive whatever a batch does
                self._deliver([(job, broken(error)) for job in batch])

    def _gather(self) -> list[_Job]:
        """The next batch; empty when the queue is closed and empty."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            batch: list[_Job] = []
            size = 0
            end = time.monotonic() + self.limits.gather_ms / 1000
            while self._fits(batch, size, end):
                job = self._queue.popleft()
                batch.append(job)
                size += job.weight
                if job.call is not None:
                    break
            self._count(-size)
            return batch

    def _fits(self, batch: list[_Job], size: int, end: float) -> bool:
        """Wait until a job that goes into the batch is there; false where the batch is ready."""
        while not self._queue:
            left = end - time.monotonic()
            if not batch or self._closed or left <= 0 or size >= self.limits.batch_texts:
                return False
            self._changed.wait(left)
        if not batch:
            return True
        first = self._queue[0]
        return first.call is None and size + first.weight <= self.limits.batch_texts

    def _answer(self, batch: list[_Job]) -> None:
        jobs = [job for job in batch if not job.future.done()]
        if not jobs:
            return
        model = self.model()
        clock = time.perf_counter()
        if jobs[0].call is not None:
            self._deliver([(jobs[0], _attempt(jobs[0].call, model))])
            return
        answers = _attempt(partial(_score, jobs=jobs), model)
        if isinstance(answers, Exception) and len(jobs) > 1:
            # One bad text must not take the others along.
            alone = [_attempt(partial(_score, jobs=[job]), model) for job in jobs]
            self._deliver(
                [(job, x if isinstance(x, Exception) else x[0])
                 for job, x in zip(jobs, alone, strict=True)]
            )  # fmt: skip
            return
        self._record_batch(sum(job.weight for job in jobs), time.perf_counter() - clock)
        if isinstance(answers, Exception):
            answers = [answers] * len(jobs)
        self._deliver(list(zip(jobs, answers, strict=True)))

    def _record_batch(self, texts: int, seconds: float) -> None:
        if 2 * texts >= self.limits.batch_texts:  # a lone text says nothing of a busy hour
            rate = texts / max(seconds, 1e-6)
            old = self._texts_per_second or rate
            self._texts_per_second = RATE_MEMORY * old + (1 - RATE_MEMORY) * rate
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


def _score(model: BatchScorer, jobs: list[_Job]) -> list[Answer]:
    texts = [text for job in jobs for text in job.texts]
    classes = model.classes
    if classes:
        scores = np.asarray(model.predict_proba(texts))
    else:
        columns = model.columns(texts)
        classes = tuple(columns)
        scores = np.column_stack([columns[name] for name in classes])
    if scores.shape != (len(texts), len(classes)):
        raise ModelError(f"{len(texts)} texts gave scores of shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ModelError("The model gave a score that is no number")
    ends = np.cumsum([len(job.texts) for job in jobs])[:-1]
    parts = np.split(scores, ends)
    abstains = bool(model.classes)
    return [Answer(classes, part, model.chosen(part) if abstains else None) for part in parts]


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
