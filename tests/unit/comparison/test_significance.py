"""Differences from a baseline: Holm, the test over seeds, and runs paired as they belong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.runs import spec_of, true_labels, with_errors, write_run
from valence.comparison import significance
from valence.comparison.significance import across_seeds, against_baseline, holm
from valence.config.spec import RunSpec
from valence.errors import DataError
from valence.runs.store import RunResult, RunStore

LABELS = true_labels(90)
Written = Callable[..., RunResult]


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path)


@pytest.fixture
def written(store: RunStore) -> Written:
    def write(spec: RunSpec, share_wrong: float, labels: np.ndarray = LABELS) -> RunResult:
        predicted = with_errors(labels, share_wrong, seed=spec.seed)
        return write_run(store, spec, labels, predicted)

    return write


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_over_seeds_it_is_the_paired_t_test_from_three_on() -> None:
    ours, theirs = [0.5, 0.6, 0.55], [0.4, 0.45, 0.5]
    assert across_seeds(ours, theirs) == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert across_seeds(ours[:2], theirs[:2]) is None
    assert across_seeds([0.5] * 4, [0.4] * 4) is None, "the same gap every time says nothing"


def test_settings_with_one_seed_are_not_seeds(store: RunStore, written: Written) -> None:
    results = [
        written(spec_of("majority"), 1.0), written(spec_of("lora"), 0.5),
        written(spec_of("lora", train__epochs=7), 0.2),
        written(spec_of("lora", train__epochs=9), 0.0),
    ]  # fmt: skip
    table = against_baseline(store, results, "majority")
    assert table["seeds"].tolist() == [1, 1, 1]
    assert table["name"].str.contains("train.epochs=").all()
    base = results[0].test["macro_f1"]
    gaps = [r.test["macro_f1"] - base for r in results[1:]]  # type: ignore[operator]
    assert table["difference"].tolist() == pytest.approx(gaps), "each against the baseline alone"
    assert table["p_seeds"].isna().all()


def test_a_setting_is_paired_with_the_seeds_it_has(store: RunStore, written: Written) -> None:
    base = [written(spec_of("majority", seed), 1.0) for seed in (1, 2, 3, 4)]
    some = [written(spec_of("lora", seed), 0.4) for seed in (1, 2, 3)]
    late = [written(spec_of("lora", seed, train__epochs=7), 0.2) for seed in (3, 4)]
    table = against_baseline(store, [*base, *some, *late], "majority").set_index("name")
    assert table["seeds"].tolist() == [3, 2]
    pairs = [(own.test["macro_f1"], base[i].test["macro_f1"]) for i, own in enumerate(some)]
    assert table["p_seeds"].iloc[0] == pytest.approx(stats.ttest_rel(*zip(*pairs)).pvalue)  # noqa: B905
    assert np.isnan(table["p_seeds"].iloc[1])


def test_of_several_settings_of_the_baseline_the_first_is_it(
    store: RunStore, written: Written
) -> None:
    results = [
        written(spec_of("lora"), 0.5), written(spec_of("lora", train__epochs=7), 0.1),
        written(spec_of("majority"), 1.0),
    ]  # fmt: skip
    table = against_baseline(store, results, "lora")
    assert table["name"].tolist() == ["lora (train.epochs=7)", "majority"]


def test_a_seed_without_the_metric_is_left_out_and_not_0(store: RunStore, written: Written) -> None:
    """The tail class is in no test row of seed 2, where both are right: no tail-F1 there."""
    two = np.where(LABELS == 2, 1, LABELS)
    ours = [written(spec_of("lora", seed), 0.0, rows) for seed, rows in ((1, LABELS), (2, two))]
    base = [
        written(spec_of("tfidf-lr", seed), share, rows)
        for seed, share, rows in ((1, 0.6, LABELS), (2, 0.0, two))
    ]
    assert ours[1].test["tail_f1"] is None
    (row,) = against_baseline(store, [*ours, *base], "tfidf-lr", metric="tail_f1").itertuples()
    assert row.seeds == 1
    assert row.difference == pytest.approx(1 - base[0].test["tail_f1"])  # type: ignore[operator]


def test_seeds_on_the_same_rows_share_the_draws(
    store: RunStore, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    plain = significance.paired_bootstrap

    def watched(labels: object, *rest: object, **more: object) -> object:
        seen.append(np.ndim(labels))  # type: ignore[arg-type]
        return plain(labels, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(significance, "paired_bootstrap", watched)
    other = np.roll(LABELS, 1)
    for rows in (LABELS, other):
        runs = [
            written(spec_of(method, seed), share, labels)
            for method, share in (("lora", 0.3), ("majority", 1.0))
            for seed, labels in ((1, LABELS), (2, rows))
        ]
        against_baseline(store, runs, "majority")
    assert seen == [1, 2]


def test_other_test_rows_are_refused(store: RunStore, written: Written) -> None:
    results = [written(spec_of("lora"), 0.5), written(spec_of("majority"), 1.0, LABELS[:50])]
    with pytest.raises(DataError, match="lora and majority were scored on different test rows"):
        against_baseline(store, results, "majority")


def test_without_a_run_of_the_baseline_there_is_nothing(store: RunStore, written: Written) -> None:
    assert against_baseline(store, [written(spec_of("lora"), 0.5)], "majority").empty
