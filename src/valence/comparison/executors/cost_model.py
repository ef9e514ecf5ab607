"""The time left of a comparison, from what its finished runs took; nothing depends on it."""

from __future__ import annotations

# Texts scored a second by the built-in encoder on two cores; replaced by what is measured
# as soon as one cell is done.
FIRST_GUESS_RATE = 200.0


class Clock:
    """Turns work into seconds, by what the finished cells took.

    Work is measured in texts scored once by the encoder; see ``Method.cost``.
    """

    def __init__(self) -> None:
        self.work = 0.0
        self.seconds = 0.0

    def left(self, work: float) -> float:
        """Seconds that one worker takes for so much work."""
        rate = self.work / self.seconds if self.seconds > 1 else FIRST_GUESS_RATE
        return work / rate

    def add(self, work: float, seconds: float) -> None:
        """Learn from a finished cell."""
        if work > 0:  # cells that encode nothing say nothing of the encoder's speed
            self.work += work
            self.seconds += seconds
