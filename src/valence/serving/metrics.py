"""Counts and times for Prometheus; over several processes where there are several."""

from __future__ import annotations

import os

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """What ``/metrics`` shows; a :class:`~valence.serving.batching.BatcherCallback`."""

    def __init__(self) -> None:
        own = CollectorRegistry()
        self.registry = own
        self.requests = Counter(
            "valence_requests", "Answered requests.", ["path", "status"], registry=own
        )
        self.seconds = Histogram(
            "valence_request_seconds", "From the first byte to the answer.", ["path"],
            buckets=SECONDS, registry=own,
        )  # fmt: skip
        self.batches = Histogram(
            "valence_batch_texts", "Texts scored together.", buckets=TEXTS, registry=own
        )
        self.batch_seconds = Histogram(
            "valence_batch_seconds", "Time of the model per batch.", buckets=SECONDS, registry=own
        )
        self.waiting = Gauge(
            "valence_queue_texts", "Texts that wait.", multiprocess_mode="livesum", registry=own
        )
        self.reloads = Counter("valence_reloads", "Model reloads.", ["outcome"], registry=own)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request got its answer."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def batch(self, texts: int, seconds: float) -> None:
        """A batch is done."""
        self.batches.observe(texts)
        self.batch_seconds.observe(seconds)

    def queue(self, texts: int) -> None:
        """So many texts wait."""
        self.waiting.set(texts)

    def text(self) -> bytes:
        """The page of metrics, of all processes."""
        if SHARED_FOLDER not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
