"""Which tracking tool the Trainer reports its curves to, while a block runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Reporting:
    """Where the Trainer reports to.

    Attributes:
        tool: A value of the Trainer's ``report_to``.
        run: Name of the run there.
        project: Name of the project there.
    """

    tool: str = "none"
    run: str | None = None
    project: str = "valence"


NO_TOOL = Reporting()
_current: ContextVar[Reporting] = ContextVar("reporting", default=NO_TOOL)


def current_reporting() -> Reporting:
    """Where trainings that begin now report to; to no tool by default."""
    return _current.get()


@contextmanager
def reporting_to(reporting: Reporting) -> Iterator[None]:
    """Let the trainings of a block report to a tool."""
    token = _current.set(reporting)
    try:
        yield
    finally:
        _current.reset(token)
