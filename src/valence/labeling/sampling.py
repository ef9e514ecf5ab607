"""How rows of a pool are given out: :class:`SamplingSettings`."""

from __future__ import annotations

from dataclasses import dataclass

from valence.labeling.strategies import DEFAULT_STRATEGY


@dataclass(frozen=True)
class SamplingSettings:
    """How rows are given out, on the page and in a replay.

    Attributes:
        strategy: A name of :data:`~valence.labeling.strategies.STRATEGIES`.
        random_share: Fraction of the rows that are drawn at random, for the estimate.
        batch: Labels between two fits.
        seed: Of all that is random.
    """

    strategy: str = DEFAULT_STRATEGY
    random_share: float = 0.2
    batch: int = 10
    seed: int = 0
