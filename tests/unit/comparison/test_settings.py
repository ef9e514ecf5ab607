"""Runs that differ in a setting are never taken for seeds of one method."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import spec_of, true_labels, write_run
from valence.comparison.settings import by_setting, setting_names
from valence.config.spec import RunSpec
from valence.errors import DataError
from valence.runs.store import RunResult, RunStore

LABELS = true_labels()
OTHER = {"train.device": "cpu", "train.cache": "off"}


def run_of(tmp_path: Path, spec: RunSpec, fingerprint: str = "rows") -> RunResult:
    return write_run(RunStore(tmp_path), spec, LABELS, LABELS, fingerprint=fingerprint)


def test_seeds_of_one_setting_stand_together(tmp_path: Path) -> None:
    runs = [run_of(tmp_path, spec_of("lora", seed)) for seed in (1, 2)]
    (setting,) = by_setting([*runs, runs[0]])
    assert setting.name == setting.method == "lora"
    assert setting.runs == {1: runs[0], 2: runs[1]}
    assert setting.first is runs[0]


def test_settings_are_named_by_what_differs(tmp_path: Path) -> None:
    specs = [
        spec_of("hy-mora", 1), spec_of("hy-mora", 1, loss__temperature=0.5),
        spec_of("hy-mora", 2, loss__temperature=0.5, train__epochs=7), spec_of("majority", 1),
    ]  # fmt: skip
    names = [setting.name for setting in by_setting([run_of(tmp_path, s) for s in specs])]
    epochs = specs[0].get("train.epochs")
    first = specs[0].get("loss.temperature")
    assert names == [
        f"hy-mora (loss.temperature={first}, train.epochs={epochs})",
        f"hy-mora (loss.temperature=0.5, train.epochs={epochs})",
        "hy-mora (loss.temperature=0.5, train.epochs=7)",
        "majority",
    ]


def test_an_ignored_setting_does_not_part_runs(tmp_path: Path) -> None:
    runs = [run_of(tmp_path, spec_of("hy-mora", 1, loss__temperature=t)) for t in (0.1, 0.5)]
    assert set(setting_names(runs, ignored=("loss.temperature",)).values()) == {"hy-mora"}


def test_what_changes_the_speed_alone_is_no_setting(tmp_path: Path) -> None:
    for path, value in OTHER.items():
        plain = spec_of("lora", 1)
        moved = plain.override({path: value, "seed": 2})
        other_seed = plain.override({"seed": 2})
        assert other_seed.digest() == moved.digest(), "as the run folder's name has it"
        runs = [run_of(tmp_path, spec) for spec in (plain, moved)]
        assert len(by_setting(runs)) == 1


def test_other_rows_under_one_seed_are_not_mixed(tmp_path: Path) -> None:
    runs = [run_of(tmp_path, spec_of("lora", 1), fingerprint) for fingerprint in ("a", "b")]
    with pytest.raises(DataError, match="same settings and seed but different rows"):
        by_setting(runs)


def test_settings_of_prompting_that_change_the_speed_alone(tmp_path: Path) -> None:
    plain = spec_of("llm-zero-shot@http://localhost:1/v1#m", 1)
    moved = plain.override({"llm.concurrency": 9, "llm.per_minute": 9, "seed": 2})
    assert len(by_setting([run_of(tmp_path, spec) for spec in (plain, moved)])) == 1
