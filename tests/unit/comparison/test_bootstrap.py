"""The bootstrap is calibrated, equals drawing rows one by one, and keeps within its memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from valence.comparison import bootstrap
from valence.comparison.bootstrap import (
    STATISTICS,
    Difference,
    paired_bootstrap,
    paired_bootstrap_mae,
)
from valence.errors import UnknownNameError
from valence.evaluation.classification import ClassCounts, classification_scores, confusion

MIB = 2**20
MEMORY_MIB = 200


def draw(seed: int, rate_a: float, rate_b: float, rows: int = 300) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(seed)
    labels = random.integers(3, size=rows)

    def predicted(rate: float) -> np.ndarray:
        return np.where(random.random(rows) < rate, labels, random.integers(3, size=rows))

    return labels, predicted(rate_a)[None], predicted(rate_b)[None]


def several(seeds: int, rows: int = 300, classes: int = 3) -> tuple[np.ndarray, ...]:
    """The same rows under several seeds of two methods."""
    random = np.random.default_rng(7)
    labels = random.integers(classes, size=rows)

    def predicted(rate: float) -> np.ndarray:
        right = random.random((seeds, rows)) < rate
        return np.where(right, labels, random.integers(classes, size=(seeds, rows)))

    return labels, predicted(0.7), predicted(0.6)


def row_by_row(
    labels: np.ndarray, ours: np.ndarray, baseline: np.ndarray, *, metric: str, class_count: int,
    tail: tuple[int, ...], resamples: int,
) -> np.ndarray:  # fmt: skip
    """(R,) differences, by the plain formulation: draw rows, count, score, for every seed."""
    random = np.random.default_rng(11)
    found = []
    for _ in range(resamples):
        rows = random.integers(len(labels), size=len(labels))
        gap = 0.0
        for own, other in zip(ours, baseline, strict=True):
            for side, sign in ((own, 1), (other, -1)):
                counts = ClassCounts.of(confusion(labels[rows], side[rows], class_count))
                gap += sign * float(STATISTICS[metric](counts, tail)) / len(ours)
        found.append(gap)
    return np.array(found)


def test_no_difference_is_seldom_called_one() -> None:
    rejected = [
        (paired_bootstrap(*draw(i, 0.5, 0.5), class_count=3, resamples=200).p or 0) < 0.05
        for i in range(200)
    ]
    assert 0.01 <= np.mean(rejected) <= 0.10


def test_a_real_difference_is_seen_with_its_sign() -> None:
    found = paired_bootstrap(*draw(1, 0.8, 0.5), class_count=3)
    assert found.p is not None
    assert found.low is not None
    assert found.p < 0.01
    assert 0 < found.low < (found.value or 0) < (found.high or 0)


@pytest.mark.parametrize("metric", STATISTICS)
def test_value_is_the_plain_difference_and_the_same_method_has_none(metric: str) -> None:
    labels, a, b = draw(2, 0.7, 0.6)
    more = {"metric": metric, "class_count": 3, "tail": (2,), "resamples": 50}
    forward = paired_bootstrap(labels, a, b, **more)
    scores = [
        classification_scores(
            labels, np.eye(3)[own[0]], classes=("a", "b", "c"), train_counts=(3, 2, 1), tail=(2,)
        )[metric]
        for own in (a, b)
    ]  # fmt: skip
    assert forward.value == pytest.approx(scores[0] - scores[1])
    assert forward.value == pytest.approx(-paired_bootstrap(labels, b, a, **more).value)
    same = paired_bootstrap(labels, a, a, **more)
    assert same == Difference(0, 0, 0, 1)


def test_seeds_are_averaged() -> None:
    labels, a, b = draw(3, 0.7, 0.6)
    one = paired_bootstrap(labels, a, b, class_count=3)
    for rows in (labels, np.stack([labels, labels])):
        two = paired_bootstrap(rows, np.vstack([a, b]), np.vstack([b, b]), class_count=3)
        assert two.value == pytest.approx((one.value or 0) / 2)


@pytest.mark.parametrize("chunked", [False, True], ids=["tuples", "chunks of rows"])
@pytest.mark.parametrize("metric", STATISTICS)
def test_it_is_the_distribution_of_drawn_rows(
    metric: str, chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, ours, baseline = several(3)
    if chunked:  # more tuples than a chunk has rows, so that rows are drawn chunk by chunk
        monkeypatch.setattr(bootstrap, "CHUNK_ROWS", 32)
        monkeypatch.setattr(bootstrap, "CHUNK_NUMBERS", 1 << 14)
    more = {"metric": metric, "class_count": 3, "tail": (2,), "resamples": 3000}
    expected = row_by_row(labels, ours, baseline, **more)
    found = paired_bootstrap(labels, ours, baseline, **more)
    plain = {"metric": metric, "class_count": 3, "tail": (2,), "resamples": 1}
    assert found.value == paired_bootstrap(labels, ours, baseline, **plain).value
    # The standard error of a 2.5% quantile of so many draws is 0.05 of their deviation.
    within = 4 * 0.05 * expected.std()
    low, high = np.quantile(expected, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=within)
    assert found.high == pytest.approx(high, abs=within)


def test_seeds_on_the_same_rows_see_the_same_draws() -> None:
    """Two equal seeds say no more than one; two test sets halve the variance."""
    labels, a, b = draw(5, 0.7, 0.6, rows=2000)
    twice = np.vstack([a, a]), np.vstack([b, b])
    one = paired_bootstrap(labels, a, b, class_count=3)
    shared = paired_bootstrap(labels, *twice, class_count=3)
    apart = paired_bootstrap(np.stack([labels, labels]), *twice, class_count=3)
    widths = [(d.high or 0) - (d.low or 0) for d in (one, shared, apart)]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)
    assert widths[2] == pytest.approx(widths[0] / np.sqrt(2), rel=0.1)


def test_test_sets_of_seeds_may_differ_in_size() -> None:
    sets = [draw(seed, 0.7, 0.6, rows) for seed, rows in ((1, 200), (2, 300))]
    labels, ours, baseline = ([part[i] for part in sets] for i in range(3))
    found = paired_bootstrap(
        labels, [own[0] for own in ours], [own[0] for own in baseline], class_count=3
    )
    alone = [paired_bootstrap(*part, class_count=3).value or 0 for part in sets]
    assert found.value == pytest.approx(np.mean(alone))


def test_a_resample_without_a_tail_class_is_left_out() -> None:
    """One tail row among six: a third of the draws have none, and none of them counts as 0."""
    labels = np.array([0, 0, 0, 0, 0, 1])
    ours, baseline = labels[None], np.zeros((1, 6), dtype=int)
    found = paired_bootstrap(
        labels, ours, baseline, metric="tail_f1", class_count=2, tail=(1,), resamples=500
    )
    assert found == Difference(1.0, 1.0, 1.0, pytest.approx(2 / 501, rel=0.7))
    never = paired_bootstrap(
        labels, ours, baseline, metric="tail_f1", class_count=3, tail=(2,), resamples=50
    )
    assert never == Difference(None, None, None, None)


def test_tuples_of_many_classes_and_seeds_are_told_apart() -> None:
    """77 classes and 5 seeds: eleven ids do not fit one whole number of 64 bits."""
    labels, ours, baseline = several(5, rows=400, classes=77)
    found = paired_bootstrap(labels, ours, baseline, class_count=77, resamples=20)
    scores = [
        [
            classification_scores(
                labels, np.eye(77)[own], classes=[str(i) for i in range(77)],
                train_counts=[1] * 77, tail=(),
            )["macro_f1"]
            for own in side
        ]
        for side in (ours, baseline)
    ]  # fmt: skip
    assert found.value == pytest.approx(np.mean(scores[0]) - np.mean(scores[1]))


def test_unknown_metric() -> None:
    with pytest.raises(UnknownNameError, match="macro_f1"):
        paired_bootstrap(*draw(0, 0.5, 0.5), metric="macrof1", class_count=3)


def test_mae_is_the_distribution_of_drawn_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    labels = random.normal(size=500)
    ours = labels + random.normal(0, 0.8, (2, 500))
    baseline = labels + random.normal(0, 1, (2, 500))
    gaps = (np.abs(ours - labels) - np.abs(baseline - labels)).mean(axis=0)
    expected = [gaps[random.integers(500, size=500)].mean() for _ in range(4000)]
    low, high = np.quantile(expected, [0.025, 0.975])
    for rows in (bootstrap.CHUNK_ROWS, 64):
        monkeypatch.setattr(bootstrap, "CHUNK_ROWS", rows)
        found = paired_bootstrap_mae(labels, ours, baseline, resamples=4000)
        assert found.value == pytest.approx(gaps.mean())
        assert found.low == pytest.approx(low, abs=0.2 * np.std(expected))
        assert found.high == pytest.approx(high, abs=0.2 * np.std(expected))


def peak_mib(call: object) -> float:
    tracemalloc.start()
    try:
        call()  # type: ignore[operator]
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_ten_million_rows_take_200_mib() -> None:
    labels, ours, baseline = several(3, rows=10_000_000, classes=5)
    ours, baseline, labels = (x.astype(np.int16) for x in (ours, baseline, labels))
    found: list[Difference] = []
    used = peak_mib(lambda: found.append(paired_bootstrap(labels, ours, baseline, class_count=5)))
    assert used < MEMORY_MIB
    assert 0.05 < (found[0].low or 0) < (found[0].high or 0) < 0.15


def test_fifty_thousand_rows_of_many_classes_take_little() -> None:
    """2.1 GB when every row had a weight in every resample."""
    labels, ours, baseline = several(1, rows=50_000, classes=77)
    assert peak_mib(lambda: paired_bootstrap(labels, ours, baseline, class_count=77)) < MEMORY_MIB


def test_too_many_tuples_are_drawn_in_chunks_of_rows() -> None:
    labels, ours, baseline = several(2, rows=1_200_000, classes=300)
    used = peak_mib(lambda: paired_bootstrap(labels, ours, baseline, class_count=300, resamples=2))
    assert used < MEMORY_MIB


def test_mae_of_a_million_rows_takes_little() -> None:
    labels = np.zeros(1_000_000, np.float32)
    side = np.ones((3, 1_000_000), np.float32)
    used = peak_mib(lambda: paired_bootstrap_mae(labels, side, side, resamples=5))
    assert used < 60
