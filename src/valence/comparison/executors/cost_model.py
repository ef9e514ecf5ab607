"""The time left of a comparison, from what its runs took so far; nothing depends on it."""

from __future__ import annotations

from collections.abc import Sequence

MIN_SECONDS = 2.0
"""Work of fewer seconds gives no estimate."""


class Clock:
    """Turns work into seconds, by what the cells took so far.

    Work is measured in texts scored once by the encoder; see ``Method.cost``.
    """

    def __init__(self) -> None:
        self.work = 0.0
        self.seconds = 0.0

    def left(self, work: float, running: Sequence[tuple[float, float]] = ()) -> float | None:
        """Seconds that one worker takes for so much work; None where it is not known.

        It is known once work was measured; what encodes nothing counts as no work.

        Args:
            work: What is left.
            running: Work and seconds of the unfinished cells so far.
        """
        done = self.work + sum(one for one, _ in running)
        seconds = self.seconds + sum(taken for one, taken in running if one > 0)
        return work * seconds / done if work and done and seconds >= MIN_SECONDS else None

    def add(self, work: float, seconds: float) -> None:
        """Learn from a finished cell."""
        if work > 0:  # cells that encode nothing say nothing of the encoder's speed
            self.work += work
            self.seconds += seconds
