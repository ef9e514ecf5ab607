"""Missing modalities: steps dropped at a rate, for training and for robustness tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from valence.errors import SpecError

RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The rates of the usual robustness table (Zhang et al. 2024, NeurIPS)."""


def remaining_mask(
    mask: np.ndarray,
    rate: float,
    *,
    rows: Sequence[int] | np.ndarray,
    modality: str,
    seed: int,
    what: Literal["steps", "rows"] = "steps",
) -> np.ndarray:
    """The mask (B, L) without the steps that a missing rate drops.

    Draws belong to the row, not to the batch: batching changes nothing, and a step dropped at
    one rate is dropped at every higher one.

    Args:
        mask: (B, L), true at real steps.
        rate: Fraction to drop, in [0, 1].
        rows: B row numbers in the split.
        modality: Its name; modalities lose steps independently of each other.
        seed: Seed of the draws.
        what: ``"steps"`` drops single steps, ``"rows"`` the whole modality of a row.

    Raises:
        SpecError: if the rate is not in [0, 1].
    """
    if not 0.0 <= rate <= 1.0:
        raise SpecError(f"missing rate {rate} is not a fraction; use a number from 0 to 1")
    real = np.asarray(mask) != 0
    name = int.from_bytes(modality.encode(), "little")
    draws = np.empty(real.shape if what == "steps" else (len(real), 1))
    for i, row in enumerate(rows):
        draws[i] = np.random.default_rng([seed, name, int(row)]).random(draws.shape[1])
    remaining: np.ndarray = real & (draws >= rate)
    return remaining


def drop_steps(
    steps: np.ndarray,
    mask: np.ndarray,
    rate: float,
    *,
    rows: Sequence[int] | np.ndarray,
    modality: str,
    seed: int,
    what: Literal["steps", "rows"] = "steps",
) -> tuple[np.ndarray, np.ndarray]:
    """Steps (B, L, d) with zeros where they are dropped, and the remaining mask (B, L).

    Args:
        steps: (B, L, d).
        mask: (B, L), true at real steps.
        rate: As for :func:`remaining_mask`.
        rows: As for :func:`remaining_mask`.
        modality: As for :func:`remaining_mask`.
        seed: As for :func:`remaining_mask`.
        what: As for :func:`remaining_mask`.

    Raises:
        SpecError: if the rate is not in [0, 1].
    """
    remaining = remaining_mask(mask, rate, rows=rows, modality=modality, seed=seed, what=what)
    return np.where(remaining[..., None], steps, 0).astype(steps.dtype), remaining
