"""Tuning: trials see no test rows, studies survive kills and are shared, spaces are checked."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests import postgres
from valence.config.data import DataSpec
from valence.config.ranges import Range
from valence.data.dataset import Dataset
from valence.data.sources import load_dataset
from valence.errors import RunError, SpecError, UnknownNameError
from valence.methods.registry import METHODS, make_spec
from valence.tuning import trials
from valence.tuning.study import Heartbeat, close_stale, count, heartbeat, open_study, sqlite_url
from valence.tuning.tune import (
    TuningConfig,
    TuningPlan,
    TuningResult,
    ranges_of,
    read_tuning_plan,
    sample_rows,
    tune,
)

pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def data(reviews: Path) -> Dataset:
    return load_dataset(DataSpec(name=str(reviews)), seed=45)


@pytest.fixture
def config(tmp_path: Path) -> TuningConfig:
    return TuningConfig(runs=tmp_path / "runs", folder=tmp_path / "tuning")


@pytest.fixture
def rows(reviews: Path) -> DataSpec:
    return DataSpec(name=str(reviews))


SHORT = TuningPlan(n_trials=3, epochs=1)


def test_the_best_settings_are_trained_on_everything(
    rows: DataSpec, config: TuningConfig, tiny_settings: dict[str, object]
) -> None:
    seen: list[TuningResult] = []
    standings: list[trials.StudyProgress] = []
    plan = TuningPlan(n_trials=3, sample=0.5, epochs=1)
    for _ in range(2):
        seen.append(
            tune("lora", rows, plan=plan, settings=tiny_settings, config=config,
                 observer=standings.append)
        )  # fmt: skip
    first, again = seen
    assert first.result is not None
    assert len(first.trials) == len(again.trials) == 3
    assert "train.learning_rate" not in first.params, "the user's value is no choice"
    assert set(first.params) == {"train.weight_decay", "head.dropout", "loss.smoothing"}
    assert first.best.config.train.epochs == 2, "a trial's epochs are not the final run's"
    assert first.result.key == again.result.key  # type: ignore[union-attr]
    assert first.value == first.trials["value"].max()
    assert standings[-1].count.finished == 3
    assert (config.runs / first.result.key / "model" / "config.json").exists()


def test_a_study_taken_up_again_draws_what_one_at_a_go_draws(
    rows: DataSpec, config: TuningConfig, tiny_settings: dict[str, object]
) -> None:
    config = replace(config, final=False)
    for n in (1, 2, 4):
        plan = TuningPlan(n_trials=n, epochs=1)
        parts = tune("lora", rows, plan=plan, settings=tiny_settings, config=config)
    whole = tune("lora", rows, plan=TuningPlan(n_trials=4, epochs=1), settings=tiny_settings,
                 config=replace(config, study="whole"))  # fmt: skip
    columns = ["value", *whole.params]
    assert parts.trials[columns].equals(whole.trials[columns])
    with pytest.raises(SpecError, match="started with different sample"):
        tune(
            "lora",
            rows,
            plan=TuningPlan(4, sample=0.5, epochs=1),
            settings=tiny_settings,
            config=config,
        )


def test_a_trial_cannot_reach_test_rows(
    rows: DataSpec,
    config: TuningConfig,
    data: Dataset,
    tiny_settings: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a trial is handed, down to the last byte, holds no test text."""
    jobs: list[trials.Job] = []

    def look(job: trials.Job, *_: object, **__: object) -> None:
        jobs.append(job)
        raise KeyboardInterrupt

    monkeypatch.setattr("valence.tuning.tune.all_trials", look)
    with pytest.raises(KeyboardInterrupt):
        tune("lora", rows, plan=SHORT, settings=tiny_settings, config=config)
    handed = pickle.dumps(jobs[0])
    own = {*data.train.texts, *data.validation.texts}
    assert all(text.encode() in handed for text in data.train.texts)
    unseen = [text for text in data.test.texts if text not in own]
    assert len(unseen) > 10
    assert not any(text.encode() in handed for text in unseen)


def test_a_trial_behind_the_others_is_stopped(
    rows: DataSpec,
    config: TuningConfig,
    tiny_settings: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trial 5 learns nothing: the median of five others stops it before its last epoch."""
    drawn = trials.suggest

    def suggest(trial: object, path: str, found: Range) -> object:
        value = drawn(trial, path, found)  # type: ignore[arg-type]
        return 1e-9 if trial.number == 5 else value  # type: ignore[attr-defined]

    monkeypatch.setattr("valence.tuning.trials.suggest", suggest)
    given = {n: v for n, v in tiny_settings.items() if n != "train.learning_rate"}
    ranges = {"lora": {"train.learning_rate": Range(9e-3, 1e-2), "head.dropout": None,
                       "train.weight_decay": None, "loss.smoothing": None}}  # fmt: skip
    result = tune(
        "lora", rows, plan=TuningPlan(n_trials=6, epochs=5, ranges=ranges),
        settings={**given, "train.metric": "accuracy", "loss.class_weights": "none"},
        config=replace(config, final=False),
    )  # fmt: skip
    last = result.trials.iloc[5]
    assert list(result.trials["state"][:5]) == ["complete"] * 5
    assert last["state"] == "pruned", result.trials
    assert last["evaluations"] < 5
    assert last["seconds"] < result.trials["seconds"][:5].max()


def test_stop_keeps_finished_trials(
    rows: DataSpec, config: TuningConfig, tiny_settings: dict[str, object]
) -> None:
    def stop(now: trials.StudyProgress) -> None:
        if now.count.finished == 2 and now.fraction > 0:
            raise KeyboardInterrupt

    result = tune("lora", rows, plan=SHORT, settings=tiny_settings, config=config, observer=stop)
    assert result.interrupted
    assert result.result is None
    assert len(result.trials) == 2
    study = open_study(sqlite_url(config.folder / "reviews-lora.db"), "reviews-lora")
    assert count(study).running == 0
    whole = tune("lora", rows, plan=SHORT, settings=tiny_settings, config=config)
    assert len(whole.trials) == 3
    assert len(study.trials) == 4, "the stopped one is kept as failed"


def test_a_study_whose_trials_all_fail_says_why(
    rows: DataSpec, config: TuningConfig, tiny_settings: dict[str, object]
) -> None:
    wrong = {**tiny_settings, "encoder.lora_targets": ["nothing"]}
    with pytest.raises(RunError, match=r"All 3 trials .* has no layers named nothing"):
        tune("lora", rows, plan=TuningPlan(n_trials=20), settings=wrong, config=config)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_tuned_or_says_it_cannot(
    name: str, reviews: Path, tiny_settings: dict[str, object]
) -> None:
    spec = make_spec(name, DataSpec(name=str(reviews)), settings=tiny_settings)
    if name in ("majority", "auto") or name.startswith(("llm-", "kernel-ridge")):
        with pytest.raises(SpecError, match="nothing to tune"):
            ranges_of(spec, TuningPlan(), {})
        return
    space = ranges_of(spec, TuningPlan(), {})
    assert space
    for path, found in space.items():
        assert spec.override({path: found.ends[0]}) != spec.override({path: found.ends[-1]})


@pytest.mark.parametrize("name", ["tfidf-lr", "linear-probe", "lora-posthoc", "han-roberta"])
def test_kinds_of_methods_are_tuned(
    name: str, rows: DataSpec, config: TuningConfig, tiny_settings: dict[str, object]
) -> None:
    plan = TuningPlan(n_trials=2, epochs=1)
    result = tune(name, rows, plan=plan, settings=tiny_settings, config=config)
    assert set(result.trials["state"]) == {"complete"}
    assert result.result is not None
    assert result.result.spec.method == name
    if name == "tfidf-lr":
        assert set(result.trials["loss.class_weights"]) == {"none", "balanced"}


def test_space_file(tmp_path: Path, reviews: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "n_trials: 7\nsample: 0.5\nepochs: 2\nfocal:\n"
        "  train.learning_rate: {low: 1e-5, high: 1e-3, log: true}\n"
        "  loss.gamma: [1, 2, 5]\n  head.dropout: null\n"
    )
    plan = read_tuning_plan(path)
    assert (plan.n_trials, plan.sample, plan.epochs) == (7, 0.5, 2)
    spec = make_spec("focal", DataSpec(name=str(reviews)))
    space = ranges_of(spec, plan, {"train.weight_decay": 0.0})
    assert space["train.learning_rate"] == Range(1e-5, 1e-3, log=True)
    assert space["loss.gamma"] == Range(choices=(1, 2, 5))
    assert set(space) == {"train.learning_rate", "loss.gamma"}


WRONG = {
    "lora: {train.learning_rat: [1]}": "did you mean 'train.learning_rate'",
    "lorra: {train.learning_rate: [1]}": "did you mean 'lora'",
    "n_trial: 3": "did you mean 'n_trials'",
    "n_trials: many": "n_trials = 'many'",
    "sample: 2": "at most 1",
    "lora: [1]": "must be a mapping",
    "lora: {head.dropout: {low: 0.5, high: 0.1}}": "low first",
    "lora: {head.dropout: {low: 0.5}}": "must have low and high",
    "lora: {head.dropout: {low: a, high: b}}": "is not a number",
    "lora: {head.dropout: []}": "empty list",
    "lora: {train.learning_rate: {low: 0, high: 1, log: true}}": "low above 0",
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_space_file_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(SpecError, match=WRONG[text]) as found:
        read_tuning_plan(tmp_path / "space.yaml")
    assert len(str(found.value).splitlines()) == 1


def test_values_that_do_not_fit_are_refused(reviews: Path) -> None:
    spec = make_spec("lora", DataSpec(name=str(reviews)))
    with pytest.raises(SpecError, match=r"head\.dropout = 2"):
        ranges_of(spec, TuningPlan(ranges={"lora": {"head.dropout": Range(0.1, 2)}}), {})
    with pytest.raises(UnknownNameError):
        tune("lorra", DataSpec())
    spec = make_spec("tfidf-lr", DataSpec(name=str(reviews)))
    with pytest.raises(SpecError, match=r"does not use train\.epochs"):
        ranges_of(spec, TuningPlan(ranges={"tfidf-lr": {"train.epochs": Range(1, 2)}}), {})


def test_sample_keeps_every_class(data: Dataset) -> None:
    sealed = data.without_test()
    part = sample_rows(sealed, 0.2, seed=1)
    assert len(part.train) == pytest.approx(0.2 * len(sealed.train), abs=3)
    assert part.train_counts.min() >= 1
    assert part.validation is sealed.validation


def test_a_journal_is_shared_and_shows_who_is_gone(
    rows: DataSpec, config: TuningConfig, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    url = f"journal://{tmp_path}/shared/study.log"
    config = replace(config, storage=url, study="ours", final=False)
    study = open_study(url, "ours")
    left = study.ask()  # by a machine that was switched off in a trial
    left.set_user_attr("worker", "elsewhere|1")
    pulse = Heartbeat(grace_seconds=0.05)
    close_stale(study, pulse)
    left.set_user_attr("beat", 1)
    time.sleep(0.1)
    close_stale(study, pulse)
    assert count(study).running == 1, "it was at work a moment ago"
    time.sleep(0.1)
    close_stale(study, pulse)
    assert count(study).running == 0
    found = tune(
        "lora", rows, plan=replace(SHORT, n_trials=2), settings=tiny_settings, config=config
    )
    assert len(found.trials) == 2
    again = open_study(url, "ours").get_trials()
    assert [t.state.name for t in again] == ["FAIL", "COMPLETE", "COMPLETE"]


def test_a_trial_beats_in_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valence.tuning.study.HEARTBEAT_SECONDS", 0.02)
    study = open_study(f"journal://{tmp_path}/study.log", "ours")
    trial = study.ask()
    with heartbeat(trial):
        time.sleep(0.3)
    beats = study.get_trials()[0].user_attrs["beat"]
    assert beats > 1
    time.sleep(0.1)
    assert study.get_trials()[0].user_attrs["beat"] == beats


AT_WORK = """
import sys, time
from valence.tuning.study import WORKER, identity, open_study

def objective(trial):
    trial.set_user_attr(WORKER, identity())
    print("at work", flush=True)
    time.sleep(100)

open_study(sys.argv[1], "ours").optimize(objective, n_trials=1)
"""


@pytest.mark.slow
def test_a_killed_trial_in_a_file_is_failed_within_seconds_and_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("valence.tuning.study.FILE_GRACE_SECONDS", 4)
    url = sqlite_url(tmp_path / "study.db")
    study = open_study(url, "ours")
    words = [sys.executable, "-c", AT_WORK, url]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "at work\n"
        time.sleep(5)
        close_stale(study)
        assert count(study).running == 1, "its heart beats"
        other.kill()
    end = time.monotonic() + 15
    while count(study).running:
        assert time.monotonic() < end
        close_stale(study)
        time.sleep(0.2)
    assert [t.state.name for t in study.get_trials()] == ["FAIL"]
    assert count(study).finished == 0, "a killed trial is made again"


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_trial_that_died_before_its_first_beat_is_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_study(sqlite_url(tmp_path / "study.db"), "ours")
    study.ask()
    close_stale(study)
    assert count(study).running == 1
    monkeypatch.setattr("valence.tuning.study.UNSIGNED_SECONDS", 0.0)
    close_stale(study)
    assert count(study).running == 0


@pytest.mark.slow
def test_a_study_lives_in_postgres(
    rows: DataSpec,
    config: TuningConfig,
    tiny_settings: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.server() as (url, password):
        monkeypatch.setenv("VALENCE_TEST_PG", password)
        shared = replace(config, storage=f"{url}/postgres", study="ours", final=False)
        plan = replace(SHORT, n_trials=2)
        for _ in range(2):
            found = tune("lora", rows, plan=plan, settings=tiny_settings, config=shared)
        assert len(found.trials) == 2
