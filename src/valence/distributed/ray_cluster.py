"""A Ray cluster: joined by its address, or started on this machine, and kept quiet."""

from __future__ import annotations

import io
import logging
import os
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, TextIO, cast

from valence.errors import RunError

STORE_BYTES = 128 << 20
"""Ray's memory for objects on a cluster started here: names and counts go through it."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # what asks for no GPU sees none
    "RAY_worker_niceness": "0",  # Ray's 15 would starve it beside anything else
}
ANSWER_SECONDS = 10.0
TALKER = "ray_listen_error_messages"  # a thread of Ray's that prints on stdout
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Cluster:
    """Which machines work, and what each piece of work asks of them.

    Attributes:
        address: Of a running Ray cluster; one is started on this machine when None.
        workers: Most pieces at a time; as many as there is room for when None.
        cpus: Cores of a piece; fractions of one are possible.
        gpus: GPUs of a piece; fractions of one are possible.
    """

    address: str | None = None
    workers: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise RunError(f"{self.workers} workers are not possible; use --workers 1 or more")
        if self.cpus <= 0 or self.gpus < 0:
            raise RunError("A run needs more than 0 CPUs and at least 0 GPUs")

    @property
    def threads(self) -> int:
        """Processor threads of a piece."""
        return max(1, int(self.cpus))

    def room(self, ray: Any) -> int:
        """How many pieces the cluster has room for now.

        Raises:
            RunError: if no machine of it has room for one.
        """
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        fits = sum(self._fits(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes)
        if not fits:
            largest = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
            raise RunError(
                f"No machine of the Ray cluster has {self.cpus:g} CPUs and {self.gpus:g} GPUs "
                f"(the largest has {largest:g} CPUs); request less"
            )
        return min(fits, self.workers or fits)

    def _fits(self, cpus: float, gpus: float) -> int:
        by_cpu = int(cpus / self.cpus + 1e-9)
        return min(by_cpu, int(gpus / self.gpus + 1e-9)) if self.gpus else by_cpu


@contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """The module ``ray``, connected; a connection that was there before is used and left.

    Raises:
        RunError: if Ray is not installed or the cluster cannot be reached.
    """
    ray = _imported()
    _check_answers(cluster.address)
    if ray.is_initialized():
        with redirect_stdout(cast(TextIO, _Deaf(sys.stdout))):
            yield ray
        return
    verbose = bool(os.environ.get("VALENCE_DEBUG"))
    options: dict[str, Any] = {
        "address": cluster.address or "local",
        "log_to_driver": verbose,
        "logging_level": logging.INFO if verbose else logging.CRITICAL,
    }
    if cluster.address is None:
        options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
        if cluster.workers is not None:
            options["num_cpus"] = max(1, -int(-cluster.workers * cluster.cpus // 1))
    try:
        with _no_warnings(), _no_stderr():
            ray.init(**options)
    except Exception as error:  # Ray raises many kinds, none of which a user should read whole
        where = f"the Ray cluster {cluster.address}" if cluster.address else "Ray on this machine"
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise RunError(
            f"Cannot reach {where}: {reason}; check --ray-address and, if it asks for a token, "
            "RAY_AUTH_TOKEN"
        ) from None
    with redirect_stdout(cast(TextIO, _Deaf(sys.stdout))):
        try:
            yield ray
        finally:
            with redirect_stdout(io.StringIO()):  # it prints again what was held back
                ray.shutdown()


@contextmanager
def quietly() -> Iterator[None]:
    """Silence Ray Data's own progress while the block runs."""
    import ray.data.context

    names = ("ray.data", "ray.data.dataset")
    before = [logging.getLogger(name).level for name in names]
    with _no_warnings():
        context = ray.data.context.DataContext.get_current()
        context.enable_progress_bars = False
        if not os.environ.get("VALENCE_DEBUG"):
            for name in names:
                logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for name, level in zip(names, before, strict=True):
                logging.getLogger(name).setLevel(level)


def use_threads(threads: int) -> None:
    """Let this process use so many threads; sure to work only before torch is loaded."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))


def _check_answers(address: str | None) -> None:
    """Find out in seconds what Ray needs minutes for: that nobody listens at an address."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise RunError(
            f"Cannot reach the Ray cluster {address}: {error.strerror or error}; check "
            "--ray-address, and that its first machine is up"
        ) from None


def _imported() -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        with _no_warnings():
            import ray
    except ImportError:
        raise RunError("This needs Ray, which is not installed: pip install 'valence[ray]'") from (
            None
        )
    return ray


class _Deaf:
    """A stdout on which Ray's own thread says nothing: it would stand amid JSON."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        if threading.current_thread().name == TALKER:
            return len(text)
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Silence what Ray's C++ part prints past Python."""
    if os.environ.get("VALENCE_DEBUG"):
        yield
        return
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
