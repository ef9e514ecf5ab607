"""Scores by group, the tables over groups, and transfers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

from tests.conftest import make_reviews
from valence.comparison.grid import Comparison, execute, plan, with_transfer
from valence.config.data import DataSpec
from valence.evaluation.classification import group_scores
from valence.reports.groups import group_pivot, groups_table, markdown, write_group_tables
from valence.reports.transfer import (
    leave_one_out_columns,
    transfer_matrix,
    transfer_table,
    transfer_verdict,
    write_transfer,
)
from valence.runs.store import RunResult, RunStore

NAMES = ("de", "en", "sw")


def test_scores_are_those_of_each_group_alone() -> None:
    draw = np.random.default_rng(0)
    labels, predicted = draw.integers(0, 4, 300), draw.integers(0, 4, 300)
    groups = draw.choice(["a", "b", "c"], 300)
    labels[groups == "c"] = np.minimum(labels[groups == "c"], 1)
    predicted[groups == "c"] = np.minimum(predicted[groups == "c"], 2)
    found = group_scores(labels, predicted, groups, ["w", "x", "y", "z"])
    for name, scores in found.items():
        own = groups == name
        truth, said = labels[own], predicted[own]
        assert scores["rows"] == own.sum()
        assert scores["accuracy"] == pytest.approx(accuracy_score(truth, said))
        for average in ("macro", "micro", "weighted"):
            expected = f1_score(truth, said, average=average, zero_division=0)
            assert scores[f"{average}_f1"] == pytest.approx(expected), (name, average)
    assert found["c"]["f1/z"] is None
    assert found["a"]["f1/w"] == pytest.approx(
        f1_score(labels[groups == "a"], predicted[groups == "a"], average=None)[0]
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("groups")
    for number, name in enumerate(NAMES):
        (folder / "reviews" / name).mkdir(parents=True)
        for split, rows in (("train", 60), ("test", 25)):
            table = make_reviews(rows, seed=number if split == "train" else 50 + number)
            table.to_csv(folder / "reviews" / name / f"{split}.csv", index=False)
    return folder


def results(
    root: Path, kind: str, methods: tuple[str, ...], seeds: int, target_rows: tuple[int, ...] = ()
) -> list[RunResult]:
    comparison = Comparison(
        data=(DataSpec(name=str(root / "reviews")),), methods=methods,
        seeds=tuple(range(seeds)), transfer=kind, target_rows=target_rows,
    )  # fmt: skip
    outcome = execute(plan(with_transfer(comparison)), store=RunStore(root / "runs"))
    assert not outcome.failures, outcome.failures[0].error
    return outcome.results


def test_table_over_languages(root: Path, tmp_path: Path) -> None:
    found = results(root, "none", ("majority", "tfidf-lr"), 2)
    rows = RunStore(root / "runs").predictions(found[0].key)
    assert set(rows["group"]) == set(NAMES)
    table = groups_table(found)
    assert len(table) == 2 * (len(NAMES) + 1)
    own = table[(table["method"] == "tfidf-lr") & (table["group"] == "de")].iloc[0]
    scores = [r.groups["de"]["macro_f1"] for r in found if r.spec.method == "tfidf-lr"]
    assert own["macro_f1_mean"] == pytest.approx(np.mean(scores))
    assert own["macro_f1_sd"] == pytest.approx(np.std(scores, ddof=1))
    assert own["rows"] == 25
    wide = group_pivot(table)
    assert wide.heads == ["method", "mean", *NAMES]
    assert wide.rows[0][0] == "tfidf-lr"
    assert "**" in markdown(wide)
    assert write_group_tables(found, tmp_path) == []
    from openpyxl import load_workbook

    book = load_workbook(tmp_path / "by-language.xlsx")
    assert book.sheetnames == ["macro-F1", "micro-F1", "weighted-F1", "accuracy"]
    assert book["macro-F1"]["A1"].value == "method"
    assert len(pd.read_csv(tmp_path / "by-language.csv")) == 8
    assert "| method | mean | de |" in (tmp_path / "by-language.md").read_text(encoding="utf-8")


def test_matrix_has_one_training_per_language(root: Path, tmp_path: Path) -> None:
    found = results(root, "matrix", ("tfidf-lr",), 1)
    assert len(found) == len(NAMES)
    table = transfer_table(found)
    assert len(table) == len(NAMES) ** 2
    matrix = transfer_matrix(table)
    for result in found:
        (name,) = result.spec.data.train_groups or ("",)
        for tested, scores in result.groups.items():
            assert matrix.loc[name, tested] == scores["macro_f1"]
    assert "The best source for other groups" in transfer_verdict(table)
    rows = table.groupby("tested_on")["rows"].min()
    assert (rows < 30).all()
    (note,) = write_transfer(found, tmp_path)
    assert note.startswith("fewer than 30 test rows, so their scores are unreliable: de ")
    assert f"sw {rows['sw']}" in note
    for name in ("transfer.csv", "transfer.md", "transfer.xlsx", "transfer-tfidf-lr.png"):
        assert (tmp_path / name).stat().st_size > 200


def test_the_diagonal_is_the_training_on_that_language_alone(root: Path) -> None:
    found = results(root, "matrix", ("tfidf-lr",), 1)
    alone = Comparison(
        data=(DataSpec(name=str(root / "reviews"), groups=("en",)),), methods=("tfidf-lr",),
        seeds=(0,),
    )  # fmt: skip
    (single,) = execute(plan(alone), store=RunStore(root / "runs")).results
    moved = next(r for r in found if r.spec.data.train_groups == ("en",))
    assert moved.groups["en"] == single.groups["en"]


def test_leave_one_out(root: Path) -> None:
    found = results(root, "leave-one-out", ("tfidf-lr",), 1)
    table = transfer_table(found)
    heads, rows = leave_one_out_columns(table)
    assert heads[2:] == ["left out", "trained with", "difference"]
    assert [row[0] for row in rows] == [*NAMES, "mean"]
    left = next(r for r in found if r.spec.data.train_groups == ("de", "en"))
    assert rows[2][2] == f"{left.groups['sw']['macro_f1']:.3f}"


def test_a_few_rows_of_the_language_left_out(root: Path) -> None:
    found = results(root, "leave-one-out", ("tfidf-lr",), 1, (12, 30))
    table = transfer_table(found)
    heads, rows = leave_one_out_columns(table)
    few = ["12 rows alone", "12 rows and the others", "30 rows alone", "30 rows and the others"]
    assert heads == ["group", "test rows", "left out", *few, "trained with", "difference"]
    alone = next(r for r in found if r.spec.data.group_rows == {"sw": 30} and r.sizes["train"] < 30)
    place = NAMES.index("sw")
    assert rows[place][heads.index("30 rows alone")] == f"{alone.groups['sw']['macro_f1']:.3f}"
    means = [float(row[2]) for row in rows[: len(NAMES)]]
    assert float(rows[-1][2]) == pytest.approx(np.mean(means), abs=1e-3)
    assert list(transfer_matrix(table).index) == [*(f"all but {name}" for name in NAMES), "all"]
    assert "0." in transfer_verdict(table)
