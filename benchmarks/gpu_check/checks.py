"""What a check is: a function that yields outcomes, or says why it cannot run."""

from __future__ import annotations

import gc
import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

Status = Literal["pass", "figure", "FAULT", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """One line of the report.

    Attributes:
        name: The check.
        status: Whether it held, is a figure alone, failed, or could not run.
        text: The figure or the reason, in one line.
        seconds: How long it took.
        values: Numbers of it, by name with unit.
    """

    name: str
    status: Status
    text: str
    seconds: float = 0.0
    values: dict[str, float] | None = None

    def line(self) -> str:
        return f"{self.status:8}{self.name}: {self.text} ({self.seconds:.1f} s)"


@dataclass(frozen=True)
class Place:
    """Where the checks run.

    Attributes:
        device: ``cuda`` or ``cpu``.
        rehearsal: Whether the CPU stands in for a GPU, with small sizes.
        scratch: A folder for models and caches.
    """

    device: str
    rehearsal: bool
    scratch: Path

    @property
    def is_gpu(self) -> bool:
        return self.device == "cuda"


class Skip(Exception):
    """A check that cannot run here; the message says why."""


class Fault(Exception):
    """A value that is wrong; the message says which."""


Result = tuple[Status, str, dict[str, float]]
Check = Callable[[Place], Result]


def need_gpu(place: Place) -> None:
    """Skip where there is neither a GPU nor a rehearsal."""
    if not place.is_gpu and not place.rehearsal:
        raise Skip("no CUDA GPU")


def need_packages(*names: str) -> None:
    """Skip where a package is not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise Skip(f"not installed: {', '.join(missing)}")


def run_check(name: str, check: Check, place: Place) -> Outcome:
    """The outcome of a check, whatever happens in it."""
    start = time.perf_counter()
    try:
        status, text, values = check(place)
    except Skip as reason:
        status, text, values = "skipped", str(reason), {}
    except Fault as fault:
        status, text, values = "FAULT", str(fault), {}
    except Exception as error:
        status, text, values = "FAULT", _one_line(error), {}
    free_memory()
    return Outcome(name, status, text, time.perf_counter() - start, values)


def _one_line(error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [""])[0][:200]
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {reason} [{Path(last.filename).name}:{last.lineno}]"


def free_memory() -> None:
    """Give back what a check held."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class PeakMemory:
    """Peak memory of a GPU from here on; none on a CPU."""

    def __init__(self, place: Place) -> None:
        import torch

        self.is_gpu = place.is_gpu
        if self.is_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()

    def mib(self) -> float:
        """The peak in MiB; 0 on a CPU."""
        import torch

        return torch.cuda.max_memory_allocated() / 2**20 if self.is_gpu else 0.0


class Clock:
    """Seconds since it was made, the GPU's work included."""

    def __init__(self, place: Place) -> None:
        self.is_gpu = place.is_gpu
        self._wait()
        self.start = time.perf_counter()

    def _wait(self) -> None:
        import torch

        if self.is_gpu:
            torch.cuda.synchronize()

    def seconds(self) -> float:
        self._wait()
        return time.perf_counter() - self.start


def append(path: Path, outcome: Outcome) -> None:
    """Write an outcome at once, so that what ends the process loses nothing."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")


def read(path: Path) -> Iterator[Outcome]:
    """The outcomes written so far."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line:
                yield Outcome(**json.loads(line))
