"""Differences from a baseline: Holm, the test over seeds, and runs paired as they belong."""

from __future__ import annotations

import pytest

from valence.comparison.significance import across_seeds, holm


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
