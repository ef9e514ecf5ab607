"""Two report folders side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import spec_of, true_labels, with_errors, write_run
from valence.errors import DataError
from valence.reports.difference import difference_rows, report_difference
from valence.reports.files import write_tables
from valence.runs.store import RunStore

LABELS = true_labels(300)


def report(folder: Path, errors: dict[str, float], *, rows: int = 300) -> Path:
    store = RunStore(folder / "runs")
    labels = LABELS[:rows]
    results = [
        write_run(store, spec_of(method, seed), labels, with_errors(labels, share, seed))
        for method, share in errors.items() for seed in (1, 2)
    ]  # fmt: skip
    write_tables(store, results, folder)
    return folder


def test_what_got_better_worse_new_and_gone(tmp_path: Path) -> None:
    old = report(tmp_path / "old", {"lora": 0.6, "focal": 0.1, "majority": 1.0})
    new = report(tmp_path / "new", {"lora": 0.1, "focal": 0.6, "ldam": 0.5})
    records = {own["name"]: own for own in report_difference(old, new)}
    assert list(records) == ["lora", "focal", "majority", "ldam"]
    lora = records["lora"]
    assert lora["low"] < lora["change"] < lora["high"]
    assert lora["change"] == pytest.approx(lora["after"] - lora["before"])
    cells = {row[0]: row[6] for row in difference_rows(list(records.values()))}
    assert cells == {"lora": "▲ better", "focal": "▼ worse", "majority": "gone", "ldam": "new"}


def test_nothing_changed(tmp_path: Path) -> None:
    old = report(tmp_path / "old", {"lora": 0.4})
    (record,) = report_difference(old, old)
    assert (record["change"], record["low"], record["high"], record["seeds"]) == (0, 0, 0, 2)
    assert difference_rows([record])[0][6] == "≈"


def test_other_test_rows_have_no_interval(tmp_path: Path) -> None:
    old = report(tmp_path / "old", {"lora": 0.4})
    new = report(tmp_path / "new", {"lora": 0.2}, rows=200)
    (record,) = report_difference(old, new)
    assert record["low"] is None
    assert difference_rows([record])[0][6] == "different test rows"


def test_a_folder_that_is_no_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a report folder"):
        report_difference(tmp_path, tmp_path)
