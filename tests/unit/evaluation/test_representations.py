"""How features separate classes: closed cases, and what may not change the measures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valence.evaluation.representations import (
    REPRESENTATIONS,
    effective_rank,
    representations,
)


def clusters(seed: int, classes: int = 3, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), rng.integers(2, 9, classes))
    means = rng.normal(size=(classes, width))
    return means[labels] + 0.5 * rng.normal(size=(len(labels), width)), labels


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_means_as_far_apart_as_they_can_be(classes: int) -> None:
    features = np.repeat(np.eye(classes), 4, axis=0)
    measured = representations(features, np.repeat(np.arange(classes), 4), classes, tail=[0])
    apart = -1 / (classes - 1)
    assert measured.within_between == 0
    assert measured.effective_rank == pytest.approx(classes - 1)
    assert measured.cosines == pytest.approx(apart)
    assert measured.margins == pytest.approx(1 - apart)
    assert measured.summary()["tail_cosine"] == pytest.approx(apart)


def test_scatter_of_two_classes_by_hand() -> None:
    # Means at (±2, 0), rows one above and one below: 1 within, 4 between.
    features = np.array([[2.0, 1], [2, -1], [-2, 1], [-2, -1]])
    measured = representations(features, np.array([0, 0, 1, 1]), 2)
    assert measured.within_between == pytest.approx(1 / 4)
    # A row (2, 1) to the other row (2, −1): 3/5; to the other mean (−2, 0): −2/√5.
    assert measured.margins == pytest.approx(3 / 5 + 2 / np.sqrt(5))
    assert measured.nearest.tolist() == [1, 0]


def test_frequent_class_does_not_decide() -> None:
    rng = np.random.default_rng(0)
    rare, frequent = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)) + 5
    labels = np.array([0] * 4 + [1] * 4)
    once = representations(np.concatenate([rare, frequent]), labels, 2)
    many = np.concatenate([rare, np.repeat(frequent, 50, axis=0)])
    often = representations(many, np.array([0] * 4 + [1] * 200), 2)
    assert often.within_between == pytest.approx(once.within_between)
    assert often.margins[0] == pytest.approx(once.margins[0])


def test_rare_class_that_falls_into_another_is_seen() -> None:
    rng = np.random.default_rng(1)
    noise = 0.1 * rng.normal(size=(30, 3))
    labels = np.repeat([0, 1, 2], 10)
    apart = representations(np.eye(3)[labels] + noise, labels, 3, tail=[2])
    collapsed = representations(np.eye(3)[np.minimum(labels, 1)] + noise, labels, 3, tail=[2])
    before, after = apart.summary(), collapsed.summary()
    assert before["tail_margin"] > 1 > 0.5 > after["tail_margin"]
    assert before["tail_cosine"] < 0 < 0.9 < after["tail_cosine"]
    assert collapsed.nearest[2] == 1


def test_margin_leaves_the_row_out_of_its_class() -> None:
    # Noise without classes: with the row in its own mean every margin would be above zero.
    features = np.random.default_rng(2).normal(size=(400, 20))
    labels = np.tile([0, 1], 200)
    assert abs(representations(features, labels, 2).margins.mean()) < 0.1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-50, 50))
def test_shift_rotation_and_scale_change_nothing(seed: int, scale: float, shift: float) -> None:
    features, labels = clusters(seed)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))[0]
    before = representations(features, labels, 3, tail=[1])
    after = representations(scale * (features @ turn) + shift, labels, 3, tail=[1])
    assert after.summary() == pytest.approx(before.summary(), rel=1e-6, abs=1e-6)
    assert after.nearest.tolist() == before.nearest.tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_order_of_rows_changes_nothing_and_bounds_hold(seed: int) -> None:
    features, labels = clusters(seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    measured = representations(features, labels, 3)
    again = representations(features[order], labels[order], 3)
    assert again.summary() == pytest.approx(measured.summary())
    assert measured.within_between > 0
    assert 1 <= measured.effective_rank <= 6 + 1e-9
    assert (np.abs(measured.margins) <= 2).all()
    assert (np.abs(measured.cosines) <= 1 + 1e-9).all()


def test_effective_rank_of_known_spectra() -> None:
    assert effective_rank(np.outer([1.0, -1, 2, -2], [1, 2, 3])) == pytest.approx(1)
    square = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert effective_rank(square) == pytest.approx(2)
    assert effective_rank(square.T[:, :2]) == pytest.approx(1)  # fewer rows than columns
    assert np.isnan(effective_rank(np.ones((4, 3))))


def test_what_is_undefined_is_none() -> None:
    features = np.random.default_rng(3).normal(size=(5, 4))
    alone = representations(features, np.zeros(5, int), 3, tail=[1]).summary()
    assert alone == dict.fromkeys(REPRESENTATIONS)
    lonely = representations(features, np.array([0, 0, 0, 0, 2]), 3, tail=[2])
    assert lonely.summary()["tail_margin"] is None
    assert lonely.summary()["tail_cosine"] == pytest.approx(lonely.cosines[2])
    assert lonely.nearest.tolist() == [2, -1, 0]
    assert representations(np.zeros((5, 0)), np.arange(5), 5).summary()["margin"] is None
    with pytest.raises(ValueError, match="5 features and 4 labels"):
        representations(features, np.zeros(4, int), 2)
