"""Fits in a thread of their own: a page that is labeled on never waits for them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from valence.errors import ValenceError
from valence.labeling.estimate import Estimate, Forecast, estimate_macro_f1, forecast
from valence.labeling.pool import LabelPool
from valence.labeling.sampling import SamplingSettings
from valence.labeling.strategies import STRATEGIES

QUEUE = 60
"""Rows that are chosen at once; most of them are chosen anew after the next fit."""
LOW_QUEUE = 10
FORECAST_EVERY = 50
"""Labels between two forecasts, which take several fits."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelState:
    """What is known of the model; a new one takes its place as a whole.

    Attributes:
        phase: ``preparing``, ``ready`` or ``failed``.
        done: Fraction of the preparation.
        message: What is done, or why it failed.
        fits: How many there were.
        probs: (N, C) probabilities; None before there is a model.
        changed: Predictions that the last fit changed; None before the second one.
        last_labels: Labels that came with the last fit.
        predicted: Rows of the pool by predicted class.
        estimate: Macro-F1 with its interval.
        forecast: What more labels would bring.
        sample: Labeled rows of the random sample.
    """

    phase: str = "preparing"
    done: float = 0.0
    message: str = ""
    fits: int = 0
    probs: np.ndarray | None = None
    changed: int | None = None
    last_labels: int = 0
    predicted: Mapping[str, int] = field(default_factory=dict)
    estimate: Estimate | None = None
    forecast: Forecast | None = None
    sample: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        estimate, more = self.estimate, self.forecast
        return {
            "phase": self.phase, "done": round(self.done, 3), "message": self.message,
            "fits": self.fits, "changed": self.changed, "last_labels": self.last_labels,
            "predicted": dict(self.predicted), "sample": self.sample,
            "estimate": None if estimate is None else {
                "value": estimate.value, "low": estimate.low, "high": estimate.high,
                "rows": estimate.rows,
            },
            "forecast": None if more is None else {
                "labels": more.labels, "gain": more.gain, "margin": more.margin,
            },
        }  # fmt: skip


Prepare = Callable[[Callable[[int, int], None]], LabelPool]
"""Makes the pool; takes a callback with (done, total) texts that are encoded."""


class Background:
    """The thread that fits.

    Args:
        prepare: Makes the pool; called in the thread.
        classes: Label names.
        settings: Strategy, labels between two fits, and the seed.

    Attributes:
        state: The last one.
    """

    def __init__(
        self, prepare: Prepare, classes: Sequence[str], settings: SamplingSettings
    ) -> None:
        self.state = ModelState()
        self._prepare, self._classes = prepare, tuple(classes)
        self._strategy, self._batch = STRATEGIES[settings.strategy], settings.batch
        self._rng = np.random.default_rng(settings.seed)
        self._wake = threading.Condition()
        self._queue: deque[int] = deque()
        self._labels: dict[int, int] = {}
        self._closed: set[int] = set()
        self._sample: list[int] = []
        self._pending = 0
        self._unused = 0  # labels that were too few, or of one class, for a fit
        self._stopped = False
        self._idle = False
        self._thread = threading.Thread(target=self._run, name="valence-label-fit", daemon=True)

    def start(self, labels: Mapping[int, int], sample: Sequence[int]) -> None:
        """Begin with the labels so far.

        Args:
            labels: Class ids by row, in the order in which the rows were labeled.
            sample: Rows of the random sample.
        """
        self._labels, self._closed = dict(labels), set(labels)
        self._sample, self._pending = list(sample), len(labels)
        self._thread.start()

    def close(self) -> None:
        """Stop; a fit that is going on is waited for."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def wait(self, timeout: float = 300.0) -> bool:
        """Wait until the labels so far have been used.

        Labels that are fewer than those between two fits wait for the next ones.

        Args:
            timeout: Seconds.

        Returns:
            False if the time was too short.
        """
        with self._wake:
            return self._wake.wait_for(lambda: self._idle, timeout)

    def set_label(self, row: int, label: int, closed: bool, sample: Sequence[int]) -> None:
        """A row has a label now, or −1: none any more."""
        with self._wake:
            if label >= 0:
                self._labels[row] = label
            else:
                self._labels.pop(row, None)
            (self._closed.add if closed else self._closed.discard)(row)
            self._sample = list(sample)
            self._pending += 1
            if self._pending + self._unused >= self._batch:
                self._idle = False
                self._wake.notify_all()

    def pop(self, is_taken: Callable[[int], bool]) -> int | None:
        """The next row that the strategy chose; None where none is ready."""
        with self._wake:
            chosen = None
            while self._queue and chosen is None:
                row = self._queue.popleft()
                if row not in self._closed and not is_taken(row):
                    chosen = row
            if len(self._queue) < LOW_QUEUE:
                self._wake.notify_all()
            return chosen

    def _run(self) -> None:
        try:
            pool = self._prepare(self._report)
            if pool.given is not None:
                pool.probs = pool.given
            self.state = replace(self.state, phase="ready", done=1.0, message="",
                                 probs=pool.probs)  # fmt: skip
            self._loop(pool)
        except ValenceError as error:
            self.state = replace(self.state, phase="failed", message=str(error))
        except Exception as error:
            logger.exception("The fits in the background have failed")
            reason = f"{type(error).__name__}: {error}"
            self.state = replace(self.state, phase="failed", message=reason)
        finally:
            self._rest()

    def _rest(self) -> None:
        with self._wake:
            self._idle = True
            self._wake.notify_all()

    def _report(self, done: int, total: int) -> None:
        message = f"encoding: {done} of {total} texts"
        self.state = replace(self.state, done=done / max(1, total), message=message)

    def _loop(self, pool: LabelPool) -> None:
        fitted = -1
        while True:
            with self._wake:
                while not (self._stopped or self._has_work(fitted)):
                    self._rest()
                    self._wake.wait(timeout=1.0)
                self._idle = False
                if self._stopped:
                    return
                labels, closed = dict(self._labels), set(self._closed)
                sample, self._pending = list(self._sample), 0
            _apply(pool, labels, closed, sample)
            has_model = self._fit(pool, labels, len(labels) - max(fitted, 0))
            fitted = len(labels) if has_model else max(fitted, 0)
            self._unused = 0 if has_model else min(len(labels), self._batch - 1)
            chosen = pool.choose(self._strategy, QUEUE, self._rng)
            with self._wake:
                self._queue = deque(int(row) for row in chosen)

    def _has_work(self, fitted: int) -> bool:
        if fitted < 0:
            return True
        if self._pending > 0 and self._pending + self._unused >= self._batch:
            return True
        return len(self._queue) < LOW_QUEUE and self._pending > 0

    def _fit(self, pool: LabelPool, labels: Mapping[int, int], before: int) -> bool:
        old = None if pool.probs is None else pool.probs.argmax(axis=1)
        if not pool.refit():
            return False
        assert pool.probs is not None
        new = pool.probs.argmax(axis=1)
        counts = np.bincount(new, minlength=len(self._classes))
        state = self.state
        due = state.forecast is None or len(labels) // FORECAST_EVERY != (
            (len(labels) - before) // FORECAST_EVERY
        )
        self.state = replace(
            state, fits=state.fits + 1, probs=pool.probs,
            changed=None if old is None else int((old != new).sum()), last_labels=before,
            predicted=dict(zip(self._classes, counts.tolist(), strict=True)),
            sample=int((pool.random & (pool.labels >= 0)).sum()),
            estimate=estimate_macro_f1(pool, self._rng),
            forecast=forecast(pool, list(labels), self._rng) if due else state.forecast,
        )  # fmt: skip
        return True


def _apply(
    pool: LabelPool, labels: Mapping[int, int], closed: set[int], sample: Sequence[int]
) -> None:
    pool.labels[:] = -1
    pool.labels[list(labels)] = list(labels.values())
    pool.closed[:] = False
    pool.closed[[*closed, *labels]] = True
    pool.random[:] = False
    pool.random[list(sample)] = True
