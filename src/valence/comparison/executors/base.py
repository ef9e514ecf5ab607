"""Who runs the cells of a grid: this process, a pool of processes, or a Ray cluster.

An executor takes the specs and emits events, cell by cell; it knows nothing of tables and
reports. Every finished cell is a run folder, whoever ran it. This package loads
nothing heavy, so that its processes can set their threads first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from valence.config.spec import RunSpec
from valence.methods.base import Sizes as Sizes

RETRIES = 3
"""How often a cell is run again whose worker was lost."""
FINAL = ("cached", "done", "failed")


@dataclass(frozen=True)
class RunEvent:
    """Progress of a cell.

    Attributes:
        status: ``started``, ``progress``, ``retried`` (its worker was lost), or one of ``FINAL``.
        share: Fraction of the training that is done.
        message: What happened.
        sizes: Rows of its data, where they are known.
        key: Name of the run folder, of a finished cell.
        seconds: Time taken.
    """

    status: Literal["started", "progress", "retried", "cached", "done", "failed"]
    share: float = 0.0
    message: str = ""
    sizes: Sizes | None = None
    key: str = ""
    seconds: float = 0.0


Emit = Callable[[RunEvent], None]
OnEvent = Callable[[int, RunEvent], None]


@dataclass(frozen=True)
class Batch:
    """What an executor is handed.

    Attributes:
        specs: The cells, in the order of the plan; their place is their number.
        root: Folder for finished runs.
        data_dir: Folder of corpora.
        track: The tool that runs are logged to.
    """

    specs: Sequence[RunSpec]
    root: Path
    data_dir: str | Path | None = None
    track: str | None = None


class Executor(Protocol):
    """Runs the cells that have no run folder yet."""

    def run(self, batch: Batch, on_event: OnEvent) -> None:
        """Run all; ``on_event`` is called in the caller's thread, at the end of each cell too.

        Whatever is raised, Ctrl-C too, stops the cells at work; finished ones are kept.
        """
        ...
