"""Splits and cuts: disjoint, complete, exact, seeded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from valence.data.batches import length_batches
from valence.data.collate import pad
from valence.data.noise import class_similarity
from valence.data.sampling import (
    longtail_counts,
    stratified_split,
    take_counts,
    wrong_labels,
)
from valence.errors import DataError

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(np.array)


@given(LABELS, st.floats(0.05, 0.6), st.integers(0, 99))
def test_split_is_a_partition_and_keeps_every_class(
    labels: np.ndarray, share: float, seed: int
) -> None:
    kept, taken = stratified_split(labels, share, seed=seed)
    assert sorted([*kept, *taken]) == list(range(len(labels)))
    for c in np.unique(labels):
        size, out = (labels == c).sum(), (labels[taken] == c).sum()
        assert out == 0 if size == 1 else 1 <= out < size
        assert abs(out - size * share) <= 1
    again = stratified_split(labels, share, seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(again, (kept, taken), strict=True))


@given(LABELS, st.integers(0, 99), st.data())
def test_take_is_exact_and_nested(labels: np.ndarray, seed: int, data: st.DataObject) -> None:
    sizes = np.bincount(labels, minlength=6)
    more = np.array([data.draw(st.integers(0, int(n))) for n in sizes])
    fewer = more // 2
    big, small = (take_counts(labels, counts, seed=seed) for counts in (more, fewer))
    assert np.bincount(labels[big], minlength=6).tolist() == more.tolist()
    assert set(small) <= set(big)


def test_take_more_than_there_is() -> None:
    with pytest.raises(DataError, match="'b' has 1 rows, 2 were requested"):
        take_counts(np.array([0, 0, 1]), [1, 2], seed=0, classes=("a", "b"))


@given(
    st.lists(st.integers(20, 400), min_size=2, max_size=8),
    st.sampled_from([1.0, 2.0, 10.0, 50.0, 200.0]),
    st.sampled_from(["exponential", "step"]),
)
def test_ratio_holds_and_order_is_kept(sizes: list[int], ratio: float, profile: str) -> None:
    counts = longtail_counts(sizes, ratio=ratio, profile=profile)
    assert (counts >= 1).all()
    assert (counts <= sizes).all()
    order = np.argsort(-np.array(sizes), kind="stable")
    assert (np.diff(counts[order]) <= 0).all()
    largest = counts.max() / ratio
    assert abs(counts.min() - max(1, largest)) <= 1


def test_exponential_profile_by_hand() -> None:
    assert longtail_counts([600] * 3, ratio=100).tolist() == [600, 60, 6]
    assert longtail_counts([600] * 4, ratio=10, profile="step").tolist() == [600, 600, 60, 60]
    # The published cut of TREC to ratio 20 with a head of 600: 1,295 texts.
    assert longtail_counts([600] * 6, ratio=20).sum() == pytest.approx(1295, abs=2)


@given(st.lists(st.integers(1, 200), min_size=2, max_size=8), st.data())
def test_total_is_exact(sizes: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(len(sizes), sum(sizes)))
    counts = longtail_counts(sizes, total=total)
    assert counts.sum() == total
    assert ((counts >= 1) & (counts <= sizes)).all()


def test_total_out_of_reach() -> None:
    with pytest.raises(DataError, match="30 rows of 2 classes"):
        longtail_counts([20, 10], total=31)
    with pytest.raises(DataError, match="ratio 10"):
        longtail_counts([20, 10], ratio=10, total=29)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.integers(1, 200))
def test_length_batches_hold_every_row_once_within_the_budget(
    lengths: list[int], budget: int
) -> None:
    batches = list(length_batches(lengths, token_budget=budget))
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=7), min_size=1, max_size=6))
def test_padding_gives_back_the_ids(rows: list[list[int]]) -> None:
    batch = pad(rows, 0)
    back = [
        ids[mask.bool()].tolist()
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    assert back == rows
    assert batch["input_ids"].shape[1] == max(map(len, rows))


@given(st.integers(1, 400), st.sampled_from([10.0, 200.0]))
def test_a_head_count_is_kept_and_small_classes_keep_all(head: int, ratio: float) -> None:
    sizes = np.array([500, 400, 30, 2, 1])
    counts = longtail_counts(sizes, ratio=ratio, head=head)
    assert counts[0] == min(head, 500)
    assert (counts <= sizes).all()
    assert (counts >= 1).all()


@given(LABELS, st.floats(0, 0.9), st.integers(0, 99))
def test_wrong_labels_are_as_many_as_asked_and_all_wrong(
    labels: np.ndarray, share: float, seed: int
) -> None:
    noisy = wrong_labels(labels, share, np.ones((6, 6)), seed=seed)
    assert (noisy != labels).sum() == round(share * len(labels))
    assert np.array_equal(noisy, wrong_labels(labels, share, np.ones((6, 6)), seed=seed))
    assert set(noisy) <= set(range(6))


def test_wrong_labels_follow_the_likelihood() -> None:
    labels = np.zeros(4000, dtype=np.int64)
    likelihood = np.array([[9.0, 1.0, 3.0], [1, 1, 1], [1, 1, 1]])
    noisy = wrong_labels(labels, 0.5, likelihood, seed=0)
    shares = np.bincount(noisy[noisy > 0], minlength=3) / (noisy > 0).sum()
    assert shares[2] == pytest.approx(0.75, abs=0.03)


def test_confusable_classes_share_words() -> None:
    texts = ["red wine", "red grape wine", "white wine grape", "fast car", "fast red car"]
    found = class_similarity(texts, np.array([0, 0, 1, 2, 2]), 4)
    assert found[0, 1] > found[0, 2]
    assert found.shape == (4, 4)
    assert np.isfinite(found).all()
