"""Every strategy keeps the contract; ours looks for the rare classes first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from valence.errors import UnknownNameError
from valence.labeling.strategies import STRATEGIES, PoolView, class_density, find_strategy


def make_pool(*, size: int = 300, classes: int = 4, labeled: int = 30, seed: int = 0) -> PoolView:
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(size, 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    rows = rng.choice(size, labeled, replace=False)
    probs = rng.dirichlet(np.ones(classes), size)
    scores = rng.normal(size=(size, classes))
    closed = np.isin(np.arange(size), rows)
    distance = np.full(size, 2.0, dtype=np.float32)
    if labeled:
        inner = (embeddings @ embeddings[rows].T).max(axis=1)
        distance = np.sqrt(np.maximum(2 - 2 * inner, 0))
    return PoolView(
        np.flatnonzero(~closed), embeddings, rows, rng.integers(classes, size=labeled), classes,
        probs if labeled else None, None, distance, scores if labeled else None,
    )  # fmt: skip


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("count", [1, 10, 1000])
@pytest.mark.parametrize("labeled", [0, 30])
def test_rows_are_different_candidates_and_the_seed_decides(
    name: str, count: int, labeled: int
) -> None:
    pool = make_pool(labeled=labeled)
    choose = STRATEGIES[name].choose
    first = choose(pool, count, np.random.default_rng(3))
    again = choose(pool, count, np.random.default_rng(3))
    np.testing.assert_array_equal(first, again)
    assert len(first) == len(set(first.tolist())) == min(count, len(pool.candidates))
    assert set(first.tolist()) <= set(pool.candidates.tolist())


@pytest.mark.parametrize("name", STRATEGIES)
def test_equal_rows_and_certain_probabilities_are_no_trouble(name: str) -> None:
    pool = make_pool(size=40, labeled=10)
    same = np.tile(pool.embeddings[:1], (40, 1))
    certain = np.eye(pool.class_count)[np.zeros(40, dtype=int)]
    flat = replace(
        pool, embeddings=same, probs=certain, distance=np.zeros(40, np.float32), scores=certain
    )
    chosen = STRATEGIES[name].choose(flat, 20, np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 20


def test_entropy_and_margin_take_the_most_uncertain_rows() -> None:
    pool = make_pool(classes=2)
    assert pool.probs is not None
    doubt = np.abs(pool.probs[pool.candidates, 0] - 0.5)
    best = pool.candidates[np.argsort(doubt)[:5]]
    for name in ("entropy", "margin"):
        chosen = STRATEGIES[name].choose(pool, 5, np.random.default_rng(0))
        assert set(chosen.tolist()) == set(best.tolist()), name


def test_k_center_takes_the_farthest_row_first() -> None:
    pool = make_pool()
    (first,) = STRATEGIES["k-center"].choose(pool, 1, np.random.default_rng(0))
    assert pool.distance[first] == pool.distance[pool.candidates].max()


def test_badge_spreads_over_uncertain_rows() -> None:
    pool = make_pool(classes=2)
    assert pool.probs is not None
    sure = np.where(np.arange(300)[:, None] < 150, [[1.0, 0.0]], [[0.5, 0.5]])
    chosen = STRATEGIES["badge"].choose(replace(pool, probs=sure), 20, np.random.default_rng(0))
    assert (chosen < 150).sum() <= 1  # all rows without doubt are one point


def two_classes(*, informed: bool) -> tuple[PoolView, np.ndarray]:
    """A pool of 400 rows, a tenth of which are of class 1, and the class of every row.

    Args:
        informed: Whether the scores tell the classes apart.
    """
    rng = np.random.default_rng(4)
    truth = (np.arange(400) % 10 == 0).astype(int)
    embeddings = rng.normal(size=(400, 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    scores = 0.3 * rng.normal(size=(400, 2))
    if informed:
        scores[np.arange(400), truth] += 1.2
    labeled = np.arange(200)
    view = PoolView(
        np.arange(200, 400), embeddings, labeled, truth[labeled], 2,
        distance=np.ones(400, np.float32), scores=scores,
    )  # fmt: skip
    return view, truth


def test_tail_first_looks_for_the_class_with_few_labels() -> None:
    view, truth = two_classes(informed=True)
    chosen = STRATEGIES["tail-first"].choose(view, 20, np.random.default_rng(0))
    assert truth[chosen].mean() >= 0.5  # of one row in ten


def test_tail_first_draws_at_random_where_the_labels_bear_nothing_out() -> None:
    view, _ = two_classes(informed=False)
    density = class_density(view)
    assert density.mean() == pytest.approx(1.0)
    assert (density**2).mean() < 1.3  # 1 for a random draw
    informed, _ = two_classes(informed=True)
    assert (class_density(informed) ** 2).mean() > 3


def test_a_misleading_model_is_corrected_by_the_labels() -> None:
    view, truth = two_classes(informed=True)
    given = np.full((400, 2), 0.1)
    given[np.arange(400), 1 - truth] = 0.9  # always wrong
    chosen = STRATEGIES["tail-first"].choose(
        replace(view, given=given), 20, np.random.default_rng(0)
    )
    assert truth[chosen].mean() >= 0.4


def test_tail_first_starts_with_the_words_of_the_labels() -> None:
    pool = make_pool(labeled=0, classes=2)
    affinity = np.random.default_rng(1).random((300, 2)) / 10
    near = np.arange(10, 20)
    affinity[near, 1] = 1.0
    affinity[near + 20, 0] = 1.0
    view = replace(pool, affinity=affinity)
    chosen = STRATEGIES["tail-first"].choose(view, 10, np.random.default_rng(0))
    assert np.isin(chosen, [*near, *(near + 20)]).sum() >= 5


def test_tail_first_starts_with_what_a_given_model_says() -> None:
    view, truth = two_classes(informed=True)
    given = np.full((400, 2), 0.05)
    given[np.arange(400), truth] = 0.95
    none = np.zeros(0, dtype=int)
    start = replace(view, candidates=np.arange(400), labeled=none, labels=none, scores=None,
                    given=given)  # fmt: skip
    chosen = STRATEGIES["tail-first"].choose(start, 20, np.random.default_rng(0))
    assert 0.2 <= truth[chosen].mean() <= 0.8  # of one row in ten


def test_an_unknown_strategy_is_named() -> None:
    with pytest.raises(UnknownNameError, match="tail-first"):
        find_strategy("tail-frist")
