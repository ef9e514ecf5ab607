"""The estimate covers the truth; the replay and its report are what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.label.conftest import topic_rows
from valence.config.data import DataSpec
from valence.evaluation.classification import ClassCounts, confusion, mean_defined
from valence.labeling.estimate import estimate_macro_f1, forecast, predictions
from valence.labeling.features import Featurizer, KernelFeatures
from valence.labeling.pool import LabelPool
from valence.labeling.quick_model import class_shares, fit_quick_model, with_shares
from valence.labeling.replay import RandomOrder, ReplayPlan, ReplayRows, replay
from valence.labeling.replay_report import simulate
from valence.labeling.sampling import SamplingSettings

CLASSES = ("food", "room", "staff")


@pytest.fixture(scope="module")
def rows() -> ReplayRows:
    """A corpus with wrong labels, so that no model is perfect."""
    table, test = topic_rows(900, seed=1), topic_rows(300, seed=2)
    rng = np.random.default_rng(0)
    featurizer = Featurizer(table["text"].tolist(), encoder="none")
    pool = featurizer.pool
    labels = table["label"].map(CLASSES.index).to_numpy()
    labels = np.where(rng.random(900) < 0.25, rng.permutation(labels), labels)
    return ReplayRows(
        KernelFeatures.of(pool, pool), featurizer.embeddings, labels,
        KernelFeatures.of(featurizer.transform(test["text"].tolist()), pool),
        test["label"].map(CLASSES.index).to_numpy(), CLASSES,
    )  # fmt: skip


def test_the_interval_covers_the_macro_f1_of_the_pool(rows: ReplayRows) -> None:
    inside, checked = 0, 0
    widths: list[float] = []
    for seed in range(12):
        random = np.random.default_rng(seed + 100)

        def watch(pool: LabelPool, random: np.random.Generator = random) -> None:
            nonlocal inside, checked
            estimate = estimate_macro_f1(pool, random)
            if estimate is None or len(pool.labeled) % 60:
                return
            counts = confusion(rows.pool_labels, predictions(pool), len(CLASSES))
            truth = float(mean_defined(ClassCounts.of(counts).f1))
            checked += 1
            inside += estimate.low <= truth <= estimate.high
            widths.append(estimate.high - estimate.low)

        replay(rows, SamplingSettings("tail-first", batch=20, seed=seed), 240, watch)
    assert checked >= 30
    assert inside / checked >= 0.9
    assert np.mean(widths) < 0.4


def test_a_forecast_of_a_rising_curve_is_a_gain(rows: ReplayRows) -> None:
    forecasts = []

    def watch(pool: LabelPool) -> None:
        one = forecast(pool, pool.labeled.tolist(), np.random.default_rng(0))
        if one is not None:
            forecasts.append(one)

    replay(rows, SamplingSettings("random", batch=20), 120, watch)
    assert forecasts
    assert all(one.margin > 0 for one in forecasts)
    assert str(forecasts[-1]).startswith("100 more labels: ")


def test_rows_in_random_order_are_a_random_sample(rows: ReplayRows) -> None:
    pool = LabelPool(rows.pool, rows.embeddings, 3)
    order = RandomOrder(900, np.random.default_rng(0))
    chosen = order.order[5:10]
    pool.set_labels(chosen, np.zeros(5, dtype=int))
    drawn = order.draw(pool, 10)
    assert not set(drawn.tolist()) & set(chosen.tolist())
    assert set(np.flatnonzero(pool.random)) == set(order.order[:15].tolist())


def test_the_model_learns_and_its_out_of_fold_scores_are_honest(rows: ReplayRows) -> None:
    own = np.arange(200)
    model = fit_quick_model(rows.pool.take(own), rows.pool_labels[own], 3)
    predicted = model.scores(rows.test).argmax(axis=1)
    assert (predicted == rows.test_labels).mean() > 0.7
    inside = (model.scores(rows.pool.take(own)).argmax(axis=1) == rows.pool_labels[own]).mean()
    outside = (model.out_of_fold.argmax(axis=1) == rows.pool_labels[own]).mean()
    assert outside < inside
    two = np.flatnonzero(rows.pool_labels < 2)[:50]
    part = fit_quick_model(rows.pool.take(two), rows.pool_labels[two], 3)
    assert (part.scores(rows.pool).argmax(axis=1) < 2).all()  # never a class without rows


def test_class_shares_are_estimated_from_balanced_probabilities() -> None:
    rng = np.random.default_rng(0)
    shares = np.array([0.7, 0.2, 0.1])
    truth = rng.choice(3, 4000, p=shares)
    logits = rng.normal(size=(4000, 3)) + 2.5 * np.eye(3)[truth]
    balanced = np.exp(2.5 * logits)
    balanced /= balanced.sum(axis=1, keepdims=True)
    estimated = class_shares(balanced, np.full(3, 1 / 3))
    np.testing.assert_allclose(estimated, shares, atol=0.05)
    assert with_shares(balanced, shares).sum(axis=1) == pytest.approx(np.ones(4000))


def test_a_simulation_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    topic_rows(300, seed=3).to_csv(folder / "train.csv", index=False)
    topic_rows(100, seed=4).to_csv(folder / "test.csv", index=False)
    plan = ReplayPlan(("random", "tail-first"), (0, 1), SamplingSettings(batch=20), 80)
    done = simulate(DataSpec(name=str(folder)), plan, out=tmp_path / "out", encoder="none")
    curves = pd.read_csv(tmp_path / "out" / "curves.csv")
    assert curves.groupby(["strategy", "seed"])["labels"].max().tolist() == [80] * 4
    page = (tmp_path / "out" / "simulation.html").read_text(encoding="utf-8")
    assert "The rarest class is staff" in page
    assert len(list((tmp_path / "out" / "pictures").glob("*.png"))) == 2
    heads, table = done.table()
    assert heads[0] == "strategy"
    assert [row[0] for row in table] == ["random", "tail-first"]
    again = simulate(DataSpec(name=str(folder)), plan, out=tmp_path / "out", encoder="none")
    assert again.as_json() == done.as_json()
