"""The standard errors of differences in macro-F1 and log loss are those of drawing rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss

from valence.evaluation.gains import gain_error, log_loss_gain
from valence.evaluation.task import softmax


def test_it_is_the_error_of_rows_that_are_drawn_one_by_one() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 200)
    before, after = (np.eye(3)[labels] + rng.normal(size=(200, 3)) * s for s in (1.0, 0.8))
    shares = np.bincount(labels) / 200
    gains = []
    for _ in range(400):
        rows = rng.integers(0, 200, 200)
        # every true class at its share, as the expected macro-F1 has it
        weights = (shares / (np.bincount(labels[rows], minlength=3) / 200))[labels[rows]]
        old, new = (
            f1_score(labels[rows], one[rows].argmax(1), average="macro", sample_weight=weights)
            for one in (before, after)
        )
        gains.append(new - old)
    assert gain_error(before, after, labels, shares) == pytest.approx(np.std(gains), rel=0.15)


def test_equal_predictions_have_no_error() -> None:
    labels = np.array([0, 1, 1, 0, 2])
    scores = np.eye(3)[[0, 1, 2, 0, 2]]
    assert gain_error(scores, 2 * scores, labels, np.ones(3) / 3) == 0.0


def test_gain_in_log_loss_and_its_error_are_those_of_the_rows() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 300)
    before, after = (2 * np.eye(3)[labels] + rng.normal(size=(300, 3)) * s for s in (2.0, 1.0))
    weights = rng.random(300) + 0.5

    def gain(rows: np.ndarray) -> float:
        old, new = (
            log_loss(
                labels[rows], softmax(one[rows]), labels=[0, 1, 2], sample_weight=weights[rows]
            )
            for one in (before, after)
        )
        return float(old - new)

    mean, error = log_loss_gain(before, after, labels, weights)
    assert mean == pytest.approx(gain(np.arange(300)))
    drawn = [gain(rng.integers(0, 300, 300)) for _ in range(400)]
    assert error == pytest.approx(np.std(drawn), rel=0.15)
