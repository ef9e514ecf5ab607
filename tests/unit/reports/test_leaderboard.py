"""The leaderboard: a row for every setting, the seeds behind every mark, no 0 for what is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.runs import spec_of, true_labels, with_errors, write_run
from valence.reports.files import write_tables
from valence.reports.leaderboard import json_rows, leaderboard, leaderboard_columns, verdict
from valence.reports.tables import own_best_table, runs_table, summary_markdown
from valence.runs.store import RunResult, RunStore

LABELS = true_labels(300)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def runs_of(
    store: RunStore, method: str, share_wrong: float, seeds: tuple[int, ...], **settings: object
) -> list[RunResult]:
    return [
        write_run(store, spec_of(method, seed, **settings), LABELS,
                  with_errors(LABELS, share_wrong, seed))
        for seed in seeds
    ]  # fmt: skip


def test_settings_are_rows_and_n_counts_seeds(store: RunStore) -> None:
    results = [
        *runs_of(store, "majority", 1.0, (1, 2)), *runs_of(store, "lora", 0.4, (1, 2)),
        *runs_of(store, "lora", 0.2, (1,), train__epochs=7),
        *runs_of(store, "lora", 0.1, (1,), train__epochs=9),
    ]  # fmt: skip
    table = leaderboard(store, results, "majority").set_index("name")
    assert sorted(table["seeds"]) == [1, 1, 2, 2]
    assert list(table.index)[:2] == ["lora (train.epochs=9)", "lora (train.epochs=7)"]
    assert set(table["method"]) == {"majority", "lora"}
    own = [r.test["macro_f1"] for r in results if r.spec.get("train.epochs") == 7]
    assert table.loc["lora (train.epochs=7)", "macro_f1_mean"] == pytest.approx(own[0])
    assert np.isnan(table.loc["lora (train.epochs=7)", "macro_f1_sd"])
    summary = summary_markdown(results)
    assert sum("| 1 |" in line for line in summary.splitlines()) >= 2
    assert "| lora (train.epochs=7) | 1 |" in summary


def test_a_mark_says_on_how_many_seeds_it_rests(store: RunStore) -> None:
    results = [*runs_of(store, "majority", 1.0, (1,)), *runs_of(store, "lora", 0.1, (1, 2, 3))]
    table = leaderboard(store, results, "majority")
    heads, rows = leaderboard_columns(table)
    cells = dict(zip(heads, rows[0], strict=True))
    assert cells["seeds"] == "3"
    assert cells["vs baseline"] == "▲ n=1", "they have one seed in common"
    assert cells["p over seeds"] == "–"
    text = verdict(table)
    assert "lora is significantly better (1 seed)" in text
    assert "With one seed, the effect of the seed is unknown." in text


def test_three_seeds_have_a_p_value_of_their_own(store: RunStore, tmp_path: Path) -> None:
    results = [
        *runs_of(store, "majority", 1.0, (1, 2, 3)), *runs_of(store, "lora", 0.1, (1, 2, 3)),
    ]  # fmt: skip
    table = leaderboard(store, results, "majority")
    heads, rows = leaderboard_columns(table)
    assert dict(zip(heads, rows[0], strict=True))["vs baseline"] == "▲ n=3"
    assert dict(zip(heads, rows[0], strict=True))["p over seeds"] not in ("–", "")
    assert dict(zip(heads, rows[1], strict=True))["p over seeds"] == ""
    text = verdict(table)
    assert "(3 seeds)" in text
    assert "One seed" not in text
    write_tables(store, results, tmp_path / "out", baseline="majority")
    kept = pd.read_csv(tmp_path / "out" / "leaderboard.csv").set_index("method")
    assert 0 < kept.loc["lora", "p_seeds"] < 0.05
    assert np.isnan(kept.loc["majority", "p_seeds"])
    shown = json.loads(json.dumps(json_rows(table), allow_nan=False))
    assert 0 < shown[0]["p_seeds"] < 0.05
    assert shown[1]["p_seeds"] is None
    assert shown[0]["seeds_compared"] == 3


def test_no_difference_names_its_seeds_too(store: RunStore) -> None:
    results = [*runs_of(store, "lora", 0.5, (1, 2)), *runs_of(store, "focal", 0.5, (1, 2))]
    text = verdict(leaderboard(store, results, "lora"))
    assert "No difference from lora is significant on these test rows (2 seeds)." in text


def test_an_undefined_score_is_a_dash_everywhere(store: RunStore) -> None:
    two = np.where(LABELS == 2, 0, LABELS)
    results = [write_run(store, spec_of(m), two, two) for m in ("majority", "lora")]
    assert results[0].test["tail_f1"] is None
    table = leaderboard(store, results, "majority")
    heads, rows = leaderboard_columns(table)
    assert {dict(zip(heads, row, strict=True))["tail-F1"] for row in rows} == {"–"}
    assert {dict(zip(heads, row, strict=True))["macro-F1"] for row in rows} == {"1.000"}
    assert json_rows(table)[0]["tail_f1_mean"] is None
    assert "On the tail classes" not in verdict(table)
    line = next(line for line in summary_markdown(results).splitlines() if "| lora |" in line)
    assert "| – |" in line
    assert runs_table(results)["f1/good"].isna().all()
    assert own_best_table(results).empty
