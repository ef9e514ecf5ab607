"""A sweep's points stand in the sensitivity table, and never in for the method as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.runs import ROWS, true_labels, write_run
from valence.comparison.grid import Cell, Comparison, Outcome, plan
from valence.comparison.sweep import separate_sweep
from valence.reports.plots import sensitivity_curves
from valence.reports.tables import sensitivity_table
from valence.runs.store import RunStore

LABELS = true_labels()


def outcome_of(comparison: Comparison, store: RunStore) -> Outcome:
    return Outcome(
        [Cell(spec, "done", write_run(store, spec, LABELS, LABELS)) for spec in plan(comparison)]
    )


def test_a_point_does_not_stand_in_for_a_method_that_failed(tmp_path: Path) -> None:
    comparison = Comparison(
        data=(ROWS,), methods=("majority", "hy-mora"), seeds=(1, 2),
        sweep={"loss.temperature": (0.1, 0.5)},
    )  # fmt: skip
    outcome = outcome_of(comparison, RunStore(tmp_path))
    (lost,) = [
        cell for cell in outcome.cells
        if cell.spec.method == "hy-mora" and cell.spec.seed == 2
        and cell.spec.get("loss.temperature") not in (0.1, 0.5)
    ]  # fmt: skip
    lost.status, lost.result = "failed", None
    plain, sweep = separate_sweep(outcome, comparison)
    assert sweep is not None
    found = sorted((r.spec.method, r.spec.seed) for r in plain)
    assert found == [("hy-mora", 1), ("majority", 1), ("majority", 2)]
    assert sorted(r.spec.get("loss.temperature") for r in sweep.results) == [0.1, 0.1, 0.5, 0.5]


def test_a_method_that_stands_at_a_point_counts_as_both(tmp_path: Path) -> None:
    (spec,) = plan(Comparison(data=(ROWS,), methods=("hy-mora",), seeds=(1,)))
    own = spec.get("loss.temperature")
    comparison = Comparison(
        data=(ROWS,), methods=("hy-mora", "lora"), seeds=(1,),
        sweep={"loss.temperature": (own, 0.9)},
    )  # fmt: skip
    plain, sweep = separate_sweep(outcome_of(comparison, RunStore(tmp_path)), comparison)
    assert sweep is not None
    assert [r.spec.method for r in plain] == ["hy-mora", "lora"]
    assert sorted(r.spec.get("loss.temperature") for r in sweep.results) == [own, 0.9]
    assert {r.spec.method for r in sweep.results} == {"hy-mora"}, "lora does not read it"


def test_without_a_sweep_all_runs_are_plain(tmp_path: Path) -> None:
    comparison = Comparison(data=(ROWS,), methods=("lora",), seeds=(1, 2))
    outcome = outcome_of(comparison, RunStore(tmp_path))
    assert separate_sweep(outcome, comparison) == (outcome.results, None)


def test_the_lines_of_a_second_axis_are_not_averaged(tmp_path: Path) -> None:
    comparison = Comparison(
        data=(ROWS,), methods=("hy-mora",), seeds=(1,),
        sweep={"loss.temperature": (0.1, 0.5), "loss.weight": (0.3, 0.7)},
    )  # fmt: skip
    _, sweep = separate_sweep(outcome_of(comparison, RunStore(tmp_path)), comparison)
    assert sweep is not None
    assert len(sensitivity_table(sweep)) == 4
    figure = sensitivity_curves(sweep)
    assert figure is not None
    _, names = figure.axes[0].get_legend_handles_labels()
    assert len(names) == 4, "two scores for each value of the second axis"
    assert {name.partition(",")[0] for name in names} == {
        "hy-mora (loss.weight=0.3)", "hy-mora (loss.weight=0.7)",
    }  # fmt: skip
    assert np.isclose(len(figure.axes[0].get_xticks()), 2)
