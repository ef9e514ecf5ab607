"""The page: failures of this comparison alone, and pictures whatever is undefined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.runs import spec_of, true_labels, with_errors, write_run
from valence.reports import diagnostic_plots, plots
from valence.reports.groups import group_pivot, groups_table, write_workbook
from valence.reports.html import FailedRun, PageText, write_report
from valence.runs.store import RunStore

LABELS = true_labels(120)
GROUPS = np.array(["de", "en"])[np.arange(120) % 2]


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def test_failures_are_those_of_this_comparison(store: RunStore, tmp_path: Path) -> None:
    result = write_run(store, spec_of("lora"), LABELS, LABELS)
    store.record_failure("somebody-elses-run", ValueError("of long ago"))
    text = PageText(failures=[FailedRun("focal seed 45", "no such encoder")])
    path = write_report(store, [result], tmp_path / "report.html", text=text)
    page = path.read_text("utf-8")
    assert "<strong>focal seed 45</strong>: no such encoder" in page
    assert "of long ago" not in page


def test_every_setting_is_drawn_and_named(store: RunStore, tmp_path: Path) -> None:
    """Three settings of one method, and a class that is in no test row."""
    two = np.where(LABELS == 2, 0, LABELS)
    results = [
        write_run(store, spec_of("lora", seed, train__epochs=epochs), two,
                  np.minimum(with_errors(two, 0.3, seed + epochs), 1))
        for epochs in (3, 5, 7) for seed in (1, 2)
    ]  # fmt: skip
    assert results[0].test["f1/good"] is None
    page = write_report(store, results, tmp_path / "report.html", baseline="lora")
    text = page.read_text("utf-8")
    for epochs in (3, 5, 7):
        assert text.count(f"lora (train.epochs={epochs})") >= 1
    assert "from <strong>lora (train.epochs=3)</strong>" in text
    for figure in (
        plots.class_bars(results), plots.training_curves(store, results),
        plots.score_against_cost(results), diagnostic_plots.f1_by_size(results),
        diagnostic_plots.reliability(store, results),
    ):  # fmt: skip
        assert figure is not None
        axes = figure.axes[0]
        names = [
            *axes.get_legend_handles_labels()[1], *(note.get_text() for note in axes.texts),
        ]  # fmt: skip
        assert sum("train.epochs=" in name for name in names) == 3, names
    assert len(plots.confusion_matrices(store, results).axes) >= 3


def test_groups_have_a_row_for_every_setting(store: RunStore, tmp_path: Path) -> None:
    results = [
        write_run(store, spec_of("lora", 1, train__epochs=epochs), LABELS,
                  with_errors(LABELS, 0.1 * epochs, 1), groups=GROUPS)
        for epochs in (1, 5)
    ]  # fmt: skip
    table = groups_table(results)
    assert table["seeds"].tolist() == [1] * 6
    wide = group_pivot(table)
    assert [row[0] for row in wide.rows] == ["lora (train.epochs=1)", "lora (train.epochs=5)"]
    own = table[(table["name"] == "lora (train.epochs=5)") & (table["group"] == "en")].iloc[0]
    assert own["macro_f1_mean"] == pytest.approx(results[1].groups["en"]["macro_f1"])
    assert write_workbook({"1 llm (llm.model=a/b[c])": wide}, tmp_path / "tables.xlsx") == []
