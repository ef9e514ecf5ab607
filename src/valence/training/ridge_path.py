"""Weighted ridge regression with every strength and its exact leave-one-out scores at once.

One eigendecomposition serves all strengths λ. With K the kernel (a constant is added for the
bias), W the row weights and Y the targets, the coefficients are α = (K + λW⁻¹)⁻¹Y, and the score
of row i of a model that was fitted without it is y_i − α_i / [(K + λW⁻¹)⁻¹]_ii (Rifkin & Lippert
2007). The primal form gives the same from the features' second moments, at a cost that grows
linearly with the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse

CHUNK_ROWS = 4096
CG_TOLERANCE = 1e-3
CG_STEPS = 200


@dataclass(frozen=True)
class RidgePath:
    """Fits of S strengths.

    Attributes:
        loo: (S, N, C) leave-one-out scores of the training rows.
        weight: (S, D, C) weights of the features in the primal form; of the training rows (D = N)
            in the dual form.
        bias: (S, C).
    """

    loo: np.ndarray
    weight: np.ndarray
    bias: np.ndarray


def balanced_weights(labels: np.ndarray, class_count: int) -> np.ndarray:
    """(N,) row weights N / (C · n_c), C being the classes that have rows."""
    counts = np.bincount(labels, minlength=class_count)
    present = int((counts > 0).sum())
    weights: np.ndarray = len(labels) / (present * counts[labels])
    return weights


def one_vs_rest(labels: np.ndarray, class_count: int) -> np.ndarray:
    """(N, C) targets: 1 for the class of a row, −1 for the others."""
    targets = np.full((len(labels), class_count), -1.0)
    targets[np.arange(len(labels)), labels] = 1.0
    return targets


def dual_path(
    kernel: np.ndarray, targets: np.ndarray, weights: np.ndarray, strengths: Sequence[float]
) -> RidgePath:
    """Fit from a kernel: N³ operations, N² numbers.

    Args:
        kernel: (N, N) inner products of the training rows, without the constant.
        targets: (N, C).
        weights: (N,) positive row weights.
        strengths: λ, all positive.
    """
    root = np.sqrt(weights)
    values, vectors = linalg.eigh(
        (kernel + 1.0) * root[:, None] * root, overwrite_a=True, check_finite=False, driver="evd"
    )
    values = np.maximum(values, 0.0)
    projected = vectors.T @ (targets * root[:, None])
    squares = vectors**2
    loo, coefficients = [], []
    for strength in strengths:
        shrunk = 1.0 / (values + strength)
        alpha = (vectors @ (projected * shrunk[:, None])) * root[:, None]
        diagonal = (squares @ shrunk) * weights
        loo.append(targets - alpha / diagonal[:, None])
        coefficients.append(alpha)
    weight = np.stack(coefficients)
    return RidgePath(np.stack(loo), weight, weight.sum(axis=1))


def primal_path(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray, strengths: Sequence[float]
) -> RidgePath:
    """Fit from features: N·D² + D³ operations, D² numbers besides the features.

    Args:
        features: (N, D) float32, without the constant.
        targets: (N, C).
        weights: (N,) positive row weights.
        strengths: λ, all positive.
    """
    rows, width = features.shape
    moments = np.zeros((width + 1, width + 1), dtype=np.float32)
    response = np.zeros((width + 1, targets.shape[1]))
    root = np.sqrt(weights).astype(np.float32)
    parts = [slice(i, i + CHUNK_ROWS) for i in range(0, rows, CHUNK_ROWS)]
    for part in parts:
        weighted = _with_constant(features[part]) * root[part, None]
        moments += weighted.T @ weighted
        response += weighted.T @ (targets[part] * root[part, None])
    values, vectors = linalg.eigh(moments, overwrite_a=True, check_finite=False, driver="evd")
    values = np.maximum(values, 0.0).astype(np.float64)
    projected = vectors.T @ response
    shrunk = 1.0 / (values + np.asarray(strengths, dtype=np.float64)[:, None])
    solutions = np.einsum("sd,dc->sdc", shrunk, projected)
    loo = np.empty((len(shrunk), *targets.shape))
    for part in parts:
        turned = (_with_constant(features[part]) * root[part, None]) @ vectors
        leverage = (turned**2) @ shrunk.T
        for number, solution in enumerate(solutions):
            fitted = (turned @ solution) / root[part, None]
            own = leverage[:, number, None]
            loo[number, part] = (fitted - own * targets[part]) / np.maximum(1.0 - own, 1e-9)
    weight = vectors @ solutions
    return RidgePath(loo, weight[:, :-1], weight[:, -1])


def _with_constant(features: np.ndarray) -> np.ndarray:
    return np.concatenate([features, np.ones((len(features), 1), features.dtype)], axis=1)


def sparse_ridge(
    features: sparse.csr_matrix, targets: np.ndarray, weights: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (D, C) and bias (C,) of one strength, by conjugate gradients on all targets at once.

    The cost of an iteration is that of two products with the features.

    Args:
        features: (N, D), without the constant.
        targets: (N, C).
        weights: (N,) positive row weights.
        strength: λ, positive.
    """
    constant = sparse.csr_matrix(np.ones((features.shape[0], 1), np.float32))
    rows = sparse.hstack([features, constant], format="csr")
    columns = rows.T.tocsr()
    weighted = weights[:, None].astype(np.float32)
    solution = np.zeros((rows.shape[1], targets.shape[1]), dtype=np.float32)
    residual = columns @ (weighted * targets.astype(np.float32))
    direction = residual.copy()
    squared = (residual**2).sum(axis=0)
    enough = CG_TOLERANCE**2 * squared
    for _ in range(CG_STEPS):
        if (squared <= enough).all():
            break
        product = columns @ (weighted * (rows @ direction)) + strength * direction
        step = squared / np.maximum((direction * product).sum(axis=0), 1e-30)
        solution += step * direction
        residual -= step * product
        before, squared = squared, (residual**2).sum(axis=0)
        direction = residual + squared / np.maximum(before, 1e-30) * direction
    return solution[:-1], solution[-1]
