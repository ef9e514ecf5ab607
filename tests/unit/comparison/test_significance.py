"""The bootstrap is calibrated, sees real differences, and equals a plain formulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from valence.comparison.significance import STATISTICS, holm, mcnemar, paired_bootstrap
from valence.errors import UnknownNameError


def draw(seed: int, rate_a: float, rate_b: float, rows: int = 300) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(seed)
    labels = random.integers(3, size=rows)

    def predicted(rate: float) -> np.ndarray:
        return np.where(random.random(rows) < rate, labels, random.integers(3, size=rows))

    return labels, predicted(rate_a)[None], predicted(rate_b)[None]


def test_no_difference_is_seldom_called_one() -> None:
    rejected = [
        paired_bootstrap(*draw(i, 0.5, 0.5), class_count=3, resamples=200).p < 0.05
        for i in range(200)
    ]
    assert 0.01 <= np.mean(rejected) <= 0.10


def test_a_real_difference_is_seen_with_its_sign() -> None:
    found = paired_bootstrap(*draw(1, 0.8, 0.5), class_count=3)
    assert found.p < 0.01
    assert 0 < found.low < found.value < found.high


@pytest.mark.parametrize("metric", STATISTICS)
def test_value_is_the_plain_difference_and_the_same_method_has_none(metric: str) -> None:
    labels, a, b = draw(2, 0.7, 0.6)
    more = {"metric": metric, "class_count": 3, "tail": (2,), "resamples": 50}
    forward = paired_bootstrap(labels, a, b, **more)
    assert forward.value == pytest.approx(-paired_bootstrap(labels, b, a, **more).value)
    same = paired_bootstrap(labels, a, a, **more)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_seeds_are_averaged() -> None:
    labels, a, b = draw(3, 0.7, 0.6)
    one = paired_bootstrap(labels, a, b, class_count=3)
    two = paired_bootstrap(
        np.stack([labels, labels]), np.vstack([a, b]), np.vstack([b, b]), class_count=3
    )
    assert two.value == pytest.approx(one.value / 2)


def test_unknown_metric() -> None:
    with pytest.raises(UnknownNameError, match="macro_f1"):
        paired_bootstrap(*draw(0, 0.5, 0.5), metric="macrof1", class_count=3)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_mcnemar_is_the_exact_binomial() -> None:
    labels = np.zeros(20, int)
    ours, baseline = np.ones(20, int), np.ones(20, int)
    ours[:9], baseline[9:11] = 0, 0
    assert mcnemar(labels, ours, baseline) == pytest.approx(stats.binomtest(9, 11).pvalue)
    assert mcnemar(labels, ours, ours) == 1
