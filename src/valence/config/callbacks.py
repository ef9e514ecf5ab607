"""Callbacks of long-running work."""

from __future__ import annotations

from collections.abc import Callable

ProgressCallback = Callable[[float, str], None]
"""Called with the fraction done in [0, 1] and a short message."""


def part_of(progress: ProgressCallback | None, start: float, end: float) -> ProgressCallback | None:
    """The progress of one step of the work, as progress of all of it.

    Args:
        progress: Called for all of the work; None if nobody listens.
        start: Fraction of the work at which the step begins.
        end: Fraction of the work at which it ends.
    """
    if progress is None:
        return None
    return lambda done, message: progress(start + (end - start) * done, message)


EvalCallback = Callable[[float], None]
"""Called with the validation score of every evaluation, negated where lower is better; an
exception it raises ends the training."""
