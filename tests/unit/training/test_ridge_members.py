"""Members of ``kernel-ridge``: which are fitted, how they are selected and averaged."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from valence.evaluation.classification import joint_score
from valence.evaluation.task import softmax
from valence.training import ridge_members
from valence.training.ridge_members import (
    MIXES,
    STRENGTHS,
    TEXT_STRENGTHS,
    RidgeProblem,
    Views,
    fit_members,
    mean_member,
    select_members,
)


def views(seed: int, labels: np.ndarray) -> Views:
    rng = np.random.default_rng(seed)
    encoder = rng.normal(size=(len(labels), 8)).astype(np.float32) / 3
    encoder[np.arange(len(labels)), labels] += 1
    text = sparse.random(len(labels), 30, 0.2, format="csr", dtype=np.float32, random_state=seed)
    return Views(text, encoder)


@pytest.fixture
def problem() -> RidgeProblem:
    rng = np.random.default_rng(0)
    labels, held = np.concatenate([[2, 2], rng.integers(0, 2, 58)]), rng.integers(0, 3, 30)
    shares = np.array([0.5, 0.3, 0.2])
    return RidgeProblem(views(1, labels), views(2, held), labels, held, shares, 45)


def scores(weights: ridge_members.Weights, rows: Views) -> np.ndarray:
    text, encoder = weights
    total = 0.0 if text is None else rows.text @ text
    return total + (0.0 if encoder is None else rows.encoder @ encoder)


@pytest.mark.parametrize("dual_rows", [1000, 10])
def test_weights_give_the_logits_of_every_member(
    problem: RidgeProblem, monkeypatch: pytest.MonkeyPatch, dual_rows: int
) -> None:
    monkeypatch.setattr(ridge_members, "DUAL_ROWS", dual_rows)
    members = fit_members(problem)
    kernels = (len(MIXES) + 2) * len(STRENGTHS)
    assert len(members) == (
        kernels if dual_rows > 60 else len(STRENGTHS) + len(TEXT_STRENGTHS) + len(MIXES)
    )
    assert len({member.name for member in members}) == len(members)
    for member in [*members, mean_member(members[:3])]:
        given = scores(member.weights(), problem.validation) + member.bias
        np.testing.assert_allclose(given, member.held_out, atol=1e-3)
        assert member.own.shape == (60, 3)


def test_one_view_alone(problem: RidgeProblem) -> None:
    text = RidgeProblem(
        Views(problem.train.text, None), Views(problem.validation.text, None), problem.labels,
        problem.held_labels, problem.shares, 45,
    )  # fmt: skip
    members = fit_members(text)
    assert len(members) == len(STRENGTHS)
    assert all(member.weights()[1] is None for member in members)


def score_of(member: ridge_members.Member, problem: RidgeProblem) -> float:
    probs = softmax(np.concatenate([member.own, member.held_out]))
    labels = np.concatenate([problem.labels, problem.held_labels])
    return joint_score(probs, labels, problem.shares)


def test_selection_takes_the_best_first(problem: RidgeProblem) -> None:
    members = fit_members(problem)
    best = select_members(members, problem, count=4)
    values = [score_of(m, problem) for m in best]
    assert values == sorted(values, reverse=True)
    assert values[0] == max(score_of(m, problem) for m in members)


def test_joint_score_depends_on_shares_and_not_on_row_counts() -> None:
    labels = np.array([0] * 8 + [1] * 2)
    logits = np.where(np.eye(2)[labels] > 0, 5.0, -5.0)
    logits[9] *= -1  # half of the rare class is wrong
    rare, common = (
        joint_score(softmax(logits), labels, np.array(s)) for s in ([0.9, 0.1], [0.5, 0.5])
    )
    assert rare != pytest.approx(common)
    again = joint_score(np.tile(softmax(logits), (3, 1)), np.tile(labels, 3), np.array([0.9, 0.1]))
    assert again == pytest.approx(rare)
    # recall 1 and 1/2: F1 = 2·.9/(.9 + .95) and 2·.05/(.05 + .1), by hand
    hard = (2 * 0.9 / (0.9 + 0.95) + 2 * 0.05 / (0.05 + 0.1)) / 2
    sure = joint_score(softmax(logits * 100), labels, np.array([0.9, 0.1]))
    assert sure == pytest.approx(1.5 * hard, abs=1e-6)
