"""Krippendorff's alpha against published values."""

from __future__ import annotations

import numpy as np
import pytest

from valence.labeling.agreement import krippendorff_alpha

_ = -1
# The example of Krippendorff (2011), section C: four observers, twelve units, missing values.
FOUR_OBSERVERS = np.array([
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
])  # fmt: skip
# Section A: two observers, ten units, two values.
TWO_OBSERVERS = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]])


def test_published_values() -> None:
    assert krippendorff_alpha(TWO_OBSERVERS) == pytest.approx(0.095, abs=5e-4)
    assert krippendorff_alpha(FOUR_OBSERVERS) == pytest.approx(0.743, abs=5e-4)


def test_limits() -> None:
    same = np.array([[0, 1, 2, 0], [0, 1, 2, 0]])
    assert krippendorff_alpha(same) == pytest.approx(1.0)
    assert krippendorff_alpha(np.array([[0, 0], [0, 0]])) is None
    assert krippendorff_alpha(np.array([[0, 1], [_, _]])) is None
    assert krippendorff_alpha(np.zeros((2, 0), dtype=int)) is None
    rng = np.random.default_rng(0)
    chance = krippendorff_alpha(rng.integers(3, size=(2, 5000)))
    assert chance == pytest.approx(0.0, abs=0.05)
