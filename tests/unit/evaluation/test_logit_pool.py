"""Weights of a logarithmic pool."""

from __future__ import annotations

import numpy as np
import pytest

from valence.evaluation.logit_pool import pool_shares, pool_weights
from valence.evaluation.task import softmax


def rows(count: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels drawn from the softmax of 2·a + b, and a and b."""
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, count, 3))
    probs = softmax(2 * first + second)
    labels = (probs.cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1)
    return labels, first, second


def test_weights_are_those_that_made_the_labels() -> None:
    labels, first, second = rows()
    weights = pool_weights([first, second], labels, np.ones(len(labels)))
    np.testing.assert_allclose(weights, [2.0, 1.0], atol=0.15)
    np.testing.assert_allclose(pool_shares(weights, [first, second]), [2 / 3, 1 / 3], atol=0.05)


def test_scale_of_the_logits_does_not_matter() -> None:
    labels, first, second = rows(500)
    plain = pool_weights([first, second], labels, np.ones(500))
    scaled = pool_weights([1000 * first, second / 1000], labels, np.ones(500))
    np.testing.assert_allclose(scaled * [1000, 1 / 1000], plain, rtol=1e-3)


def test_a_model_that_is_wrong_gets_no_weight() -> None:
    labels, first, second = rows()
    noise = np.random.default_rng(2).normal(size=first.shape)
    weights = pool_weights([2 * first + second, noise - first], labels, np.ones(len(labels)))
    assert weights[0] == pytest.approx(1.0, abs=0.1)
    assert weights[1] < 0.02


def test_rows_without_weight_do_not_count() -> None:
    labels, first, second = rows(600)
    counts = np.r_[np.ones(300), np.zeros(300)]
    half = pool_weights([first[:300], second[:300]], labels[:300], np.ones(300))
    np.testing.assert_allclose(pool_weights([first, second], labels, counts), half, rtol=0.05)


def test_a_class_that_a_model_has_not_seen_does_not_take_its_weight() -> None:
    labels, first, second = rows(1000)
    unseen = first.copy()
    unseen[:50, 2] = -1e4
    weights = pool_weights([unseen, second], labels, np.ones(1000))
    shares = pool_shares(weights, [unseen, second])
    assert 0.3 < shares[0] < 0.8
