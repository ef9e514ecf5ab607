"""Missing steps: the share, the seeds, and independence of the batch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from valence.data.missing import RATES, drop_steps, remaining_mask
from valence.errors import SpecError

MASK = np.arange(200) < np.array([[200], [150], [100], [0]])


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("what", ["steps", "rows"])
def test_about_the_share_and_never_padding(rate: float, what: str) -> None:
    mask = np.repeat(MASK, 50, axis=0)
    kept = remaining_mask(mask, rate, rows=range(200), modality="audio", seed=1, what=what)
    assert not (kept & ~mask).any()
    assert kept.sum() / mask.sum() == pytest.approx(1 - rate, abs=0.02 if what == "steps" else 0.15)
    if what == "rows":
        assert all(row.sum() in (0, whole.sum()) for row, whole in zip(kept, mask, strict=True))


def test_what_is_gone_stays_gone_at_higher_rates() -> None:
    masks = [remaining_mask(MASK, r, rows=range(4), modality="text", seed=3) for r in RATES]
    for less, more in pairwise(masks):
        assert not (more & ~less).any()
    np.testing.assert_array_equal(masks[0], MASK)


def test_draws_belong_to_row_modality_and_seed() -> None:
    def draw(rows: list[int], modality: str = "audio", seed: int = 0) -> np.ndarray:
        return remaining_mask(MASK[rows], 0.5, rows=rows, modality=modality, seed=seed)

    np.testing.assert_array_equal(draw([0, 1, 2])[1:], draw([2, 1])[::-1])
    assert (draw([0]) != draw([0], modality="vision")).any()
    assert (draw([0]) != draw([0], seed=1)).any()
    # more padding draws no other numbers
    wide = np.pad(MASK[[1]], ((0, 0), (0, 30)))
    found = remaining_mask(wide, 0.5, rows=[1], modality="audio", seed=0)
    np.testing.assert_array_equal(found[:, :200], draw([1]))


def test_blank_zeroes_what_it_takes() -> None:
    steps = np.full((4, 200, 3), np.nan, dtype=np.float32)
    steps[MASK] = 7
    blanked, kept = drop_steps(steps, MASK, 0.4, rows=range(4), modality="vision", seed=0)
    assert blanked.dtype == np.float32
    assert (blanked[kept] == 7).all()
    assert (blanked[~kept] == 0).all()


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_is_a_share(rate: float) -> None:
    with pytest.raises(SpecError, match="missing rate"):
        remaining_mask(MASK, rate, rows=range(4), modality="audio", seed=0)
