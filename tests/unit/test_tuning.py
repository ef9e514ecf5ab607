"""Tuning: trials see no test rows, studies survive kills and are shared, spaces are checked."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from valence import trials, tuning
from valence.data.dataset import Dataset
from valence.data.sources import load_dataset
from valence.errors import SpecError, UnknownNameError
from valence.methods import METHODS, make_spec, search_space
from valence.space import Range
from valence.spec import DataSpec
from valence.study import count, open_study, sqlite_url, trials_table
from valence.tuning import Desk, Plan, ranges_of, read_plan, tune

pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def data(reviews: Path) -> Dataset:
    return load_dataset(DataSpec(name=str(reviews)), seed=45)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(runs=tmp_path / "runs", folder=tmp_path / "tuning")


@pytest.fixture
def rows(reviews: Path) -> DataSpec:
    return DataSpec(name=str(reviews))


SHORT = Plan(n_trials=3, epochs=1)


def test_the_best_settings_are_trained_on_everything(
    rows: DataSpec, desk: Desk, tiny_settings: dict[str, object]
) -> None:
    seen: list[tuning.Tuned] = []
    standings: list[trials.Standing] = []
    plan = Plan(n_trials=3, sample=0.5, epochs=1)
    for _ in range(2):
        seen.append(
            tune("lora", rows, plan=plan, settings=tiny_settings, desk=desk,
                 observer=standings.append)
        )  # fmt: skip
    first, again = seen
    assert first.result is not None
    assert len(first.trials) == len(again.trials) == 3
    assert "train.learning_rate" not in first.params, "the user's value is no choice"
    assert set(first.params) == {"train.weight_decay", "head.dropout", "loss.smoothing"}
    assert first.best.train.epochs == 2, "a trial's epochs are not the final run's"
    assert first.result.key == again.result.key  # type: ignore[union-attr]
    assert first.value == first.trials["value"].max()
    assert standings[-1].count.finished == 3
    assert (desk.runs / first.result.key / "model" / "config.json").exists()


def test_a_study_taken_up_again_draws_what_one_at_a_go_draws(
    rows: DataSpec, desk: Desk, tiny_settings: dict[str, object]
) -> None:
    desk = replace(desk, final=False)
    for n in (1, 2, 4):
        plan = Plan(n_trials=n, epochs=1)
        parts = tune("lora", rows, plan=plan, settings=tiny_settings, desk=desk)
    whole = tune("lora", rows, plan=Plan(n_trials=4, epochs=1), settings=tiny_settings,
                 desk=replace(desk, study="whole"))  # fmt: skip
    columns = ["value", *whole.params]
    assert parts.trials[columns].equals(whole.trials[columns])
    with pytest.raises(SpecError, match="begun with other sample"):
        tune("lora", rows, plan=Plan(4, sample=0.5, epochs=1), settings=tiny_settings, desk=desk)
