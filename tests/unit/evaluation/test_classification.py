"""Scores agree with scikit-learn and stay defined where classes are missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from valence.evaluation.classification import METRICS, class_groups, classification_scores


def scores(labels: np.ndarray, logits: np.ndarray, **more: object) -> dict[str, float | None]:
    count = logits.shape[1]
    values = {"classes": [f"c{i}" for i in range(count)], "train_counts": range(count, 0, -1)}
    return classification_scores(labels, logits, **{**values, "tail": [count - 1], **more})


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 10_000))
def test_agrees_with_scikit_learn(classes: int, rows: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    labels, logits = draw.integers(classes, size=rows), draw.normal(size=(rows, classes))
    predicted = logits.argmax(1)
    found = scores(labels, logits)
    assert found["macro_f1"] == pytest.approx(
        sk.f1_score(labels, predicted, average="macro", zero_division=0)
    )
    assert found["weighted_f1"] == pytest.approx(
        sk.f1_score(labels, predicted, average="weighted", zero_division=0)
    )
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    recalls = sk.recall_score(
        labels, predicted, labels=np.unique(labels), average=None, zero_division=0
    )
    assert found["balanced_accuracy"] == pytest.approx(recalls.mean())
    assert found["g_mean"] == pytest.approx(np.prod(recalls) ** (1 / len(recalls)))
    assert set(METRICS) <= set(found)


def test_worked_example() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    logits = np.eye(3)[[0, 0, 0, 1, 1, 0, 1]]
    found = scores(labels, logits)
    assert found["f1/c0"] == pytest.approx(0.75)
    assert found["f1/c1"] == pytest.approx(0.4)
    assert found["f1/c2"] == found["tail_f1"] == found["worst_f1"] == 0
    assert found["head_f1"] == pytest.approx(0.75)
    assert found["middle_f1"] == pytest.approx(0.4)
    assert found["g_mean"] == 0
    assert found["macro_f1"] == pytest.approx(1.15 / 3)


def test_auc_is_none_where_a_class_is_missing() -> None:
    logits = np.random.default_rng(0).normal(size=(9, 3))
    assert scores(np.array([0, 1] * 4 + [0]), logits)["auc"] is None
    assert scores(np.arange(9) % 3, logits)["auc"] is not None
    assert scores(np.array([0, 1] * 4 + [0]), logits[:, :2])["auc"] is not None


def test_groups_cover_every_class_once() -> None:
    for count in range(2, 30):
        tail = tuple(range(count - max(1, round(count / 3)), count))
        head, middle = class_groups(list(range(count, 0, -1)), tail)
        assert sorted([*head, *middle, *tail]) == list(range(count))


def test_absent_classes_are_left_out_of_every_mean_alike() -> None:
    """150 classes of which 40 are in no test row and never predicted: all right is all 1."""
    labels = np.arange(110).repeat(3)
    found = scores(labels, np.eye(150)[labels], tail=range(100, 150))
    for name in ("macro_f1", "tail_f1", "middle_f1", "head_f1", "worst_f1"):
        assert found[name] == 1, name
    assert found["f1/c109"] == 1
    assert found["f1/c110"] is None


def test_a_group_of_classes_without_a_row_has_no_f1() -> None:
    labels = np.array([0, 0, 1, 1, 0])
    found = scores(labels, np.eye(4)[labels], tail=[3])
    assert found["macro_f1"] == 1
    assert found["tail_f1"] is None
    assert found["middle_f1"] == found["head_f1"] == 1, "class 2 of the middle is left out"
    empty = scores(np.zeros(0, int), np.zeros((0, 4)), tail=[3])
    assert set(empty.values()) == {None}


def test_a_class_that_is_predicted_and_never_true_counts_as_0() -> None:
    labels = np.array([0, 0, 1, 1])
    found = scores(labels, np.eye(3)[[0, 0, 1, 2]], tail=[2])
    assert found["f1/c2"] == found["tail_f1"] == 0
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3) / 3)
