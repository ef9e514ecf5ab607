"""Ridge regressions: exact leave-one-out scores, and the same fits in all three forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from valence.training.ridge_path import (
    balanced_weights,
    dual_path,
    one_vs_rest,
    primal_path,
    sparse_ridge,
)

STRENGTHS = (0.1, 1.0, 10.0)


def problem(seed: int, rows: int = 40, width: int = 12) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(rows, width)) / np.sqrt(width)).astype(np.float32)
    labels = np.concatenate([[0, 0], rng.integers(1, 3, rows - 2)])  # a class of two rows
    return features, labels, one_vs_rest(labels, 3), balanced_weights(labels, 3)


def refitted(features: np.ndarray, targets: np.ndarray, weights: np.ndarray, strength: float,
             left_out: int | None = None) -> np.ndarray:  # fmt: skip
    """(D + 1, C) solution of the normal equations, the constant last."""
    rows = np.c_[features, np.ones(len(features))].astype(np.float64)
    kept = np.arange(len(rows)) != (-1 if left_out is None else left_out)
    weighted = rows[kept].T * weights[kept]
    moments = weighted @ rows[kept] + strength * np.eye(rows.shape[1])
    return np.linalg.solve(moments, weighted @ targets[kept])


def test_leave_one_out_scores_are_those_of_refitted_models() -> None:
    features, _, targets, weights = problem(0)
    path = dual_path(features @ features.T.astype(np.float64), targets, weights, STRENGTHS)
    for number, strength in enumerate(STRENGTHS):
        for row in range(len(features)):
            solution = refitted(features, targets, weights, strength, left_out=row)
            expected = np.append(features[row], 1.0) @ solution
            np.testing.assert_allclose(path.loo[number, row], expected, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(3, 60), st.integers(1, 30))
def test_dual_and_primal_form_agree(seed: int, rows: int, width: int) -> None:
    features, _, targets, weights = problem(seed, rows, width)
    dual = dual_path((features @ features.T).astype(np.float64), targets, weights, STRENGTHS)
    primal = primal_path(features, targets, weights, STRENGTHS)
    as_weights = np.einsum("nd,snc->sdc", features, dual.weight)
    np.testing.assert_allclose(primal.weight, as_weights, atol=1e-3)
    np.testing.assert_allclose(primal.bias, dual.bias, atol=1e-3)
    np.testing.assert_allclose(primal.loo, dual.loo, atol=2e-2)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_conjugate_gradients_solve_the_same_problem(strength: float) -> None:
    features, _, targets, weights = problem(3)
    weight, bias = sparse_ridge(sparse.csr_matrix(features), targets, weights, strength)
    expected = refitted(features, targets, weights, strength)
    np.testing.assert_allclose(np.vstack([weight, bias]), expected, atol=5e-3)


def test_classes_weigh_alike_and_absent_ones_do_not_count() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    weights = balanced_weights(labels, 3)
    assert weights[labels == 0].sum() == pytest.approx(50)
    assert weights[labels == 1].sum() == pytest.approx(50)
