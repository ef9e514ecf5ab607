"""Tuning: Optuna chooses settings on validation rows, then :func:`run` trains with the best.

What is tuned is a :class:`TuningPlan`: how many trials, on which fraction of the rows, over which
ranges. The ranges are the method's own, changed by a space file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from valence.config.callbacks import ProgressCallback
from valence.config.data import DataSpec
from valence.config.ranges import Range, every_point, parse_range
from valence.config.spec import RunSpec, parse_yaml, setting_paths
from valence.config.yaml_text import read_settings_file
from valence.data.dataset import Dataset, TrainingData
from valence.data.sampling import stratified_split
from valence.data.sources import load_dataset
from valence.distributed import process_group
from valence.errors import RunError, SpecError, UnknownNameError
from valence.evaluation.task import Task
from valence.methods.fit import with_encoder
from valence.methods.registry import METHODS, find_method, make_spec, trained_part
from valence.runs.runner import check_rows, run
from valence.runs.store import RunResult, RunStore
from valence.runs.tracking import check_tracker
from valence.storage.file_lock import locked
from valence.tuning.study import (
    bind,
    close_stale,
    count,
    enqueue,
    importances,
    open_study,
    sqlite_url,
    trials_table,
)
from valence.tuning.trials import Job, Observer, StudyProgress, all_trials

if TYPE_CHECKING:
    from optuna.study import Study

__all__ = [
    "Observer",
    "StudyProgress",
    "TuningConfig",
    "TuningPlan",
    "TuningResult",
    "read_tuning_plan",
    "study_name",
    "tune",
]

DEFAULT_TRIALS = 20
ALONE = "use --workers, or start several that share --storage and --study"


@dataclass(frozen=True)
class TuningPlan:
    """How a method is tuned; the contents of a space file, changed by options.

    Attributes:
        n_trials: Trials in all, those of earlier calls counted.
        sample: Fraction of the training rows that trials are fitted on.
        epochs: Epochs of a trial; those of the method when not given.
        ranges: By method, ranges in place of its own; None leaves a setting alone.
    """

    n_trials: int = DEFAULT_TRIALS
    sample: float = 1.0
    epochs: int | None = None
    ranges: Mapping[str, Mapping[str, Range | None]] | None = None

    def __post_init__(self) -> None:
        if self.n_trials < 1 or (self.epochs is not None and self.epochs < 1):
            raise SpecError("n_trials and epochs must be at least 1")
        if not 0 < self.sample <= 1:
            raise SpecError(f"sample = {self.sample}: the fraction must be above 0 and at most 1")


@dataclass(frozen=True)
class TuningConfig:
    """Where tuning reads and writes, and with how many processes.

    Attributes:
        runs: Folder of run folders, for the final run.
        data_dir: Folder of corpora.
        storage: URL of the study's storage; an SQLite file in ``folder`` when not given.
        study: Name of the study; made of data and method when not given.
        folder: Where SQLite files are.
        workers: Processes of this call.
        seed: Seed of everything random.
        final: Whether to train with the best settings on everything.
        track: A tool that the final run is logged to: a name of ``TRACKERS``.
    """

    runs: Path = Path("runs")
    data_dir: Path | None = None
    storage: str | None = None
    study: str | None = None
    folder: Path = Path("tuning")
    workers: int = 1
    seed: int = 45
    final: bool = True
    track: str | None = None


@dataclass(frozen=True)
class TuningResult:
    """The result of tuning a method.

    Attributes:
        name: Name of the study.
        best: The spec with the best settings, to be trained on everything.
        space: What was chosen from.
        params: The best settings.
        value: Their validation score in the trial.
        trials: One row per trial.
        importance: Fraction of the score's variance by setting.
        task: What is predicted.
        result: The run of ``best`` on everything; None where it was not made.
        interrupted: Whether the user stopped it.
    """

    name: str
    best: RunSpec
    space: Mapping[str, Range]
    params: Mapping[str, Any]
    value: float
    trials: pd.DataFrame
    importance: Mapping[str, float]
    task: Task
    result: RunResult | None
    interrupted: bool

    @property
    def metric(self) -> str:
        """The validation score that chose."""
        return str(self.best.get("train.metric"))


def read_tuning_plan(path: str | Path) -> TuningPlan:
    """Read a space file: ``n_trials``, ``sample``, ``epochs``, and a section per method.

    Raises:
        SpecError: if it cannot be read or a value does not fit.
        UnknownNameError: if a method or setting is unknown.
    """
    try:
        text = read_settings_file(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"Space file {path} cannot be read: {error}") from None
    values = parse_yaml(text, where=str(path)) or {}
    if not isinstance(values, dict):
        raise SpecError(f"Space file {path} must be a mapping of methods to ranges")
    kinds = {"n_trials": (int,), "sample": (int, float), "epochs": (int,)}
    plain: dict[str, Any] = {}
    ranges: dict[str, dict[str, Range | None]] = {}
    for name, value in values.items():
        if name in kinds:
            if isinstance(value, bool) or not isinstance(value, kinds[name]):
                raise SpecError(f"{path}: {name} = {value!r} is not a number of that kind")
            plain[name] = value
            continue
        if name not in METHODS:
            raise UnknownNameError("method or setting of a space file", str(name),
                                   [*METHODS, *kinds])  # fmt: skip
        if not isinstance(value, dict):
            raise SpecError(f"{path}: section {name} must be a mapping of settings to ranges")
        ranges[name] = {
            _setting(str(setting)): parse_range(str(setting), given)
            for setting, given in value.items()
        }
    return TuningPlan(ranges=ranges, **plain)


def _setting(path: str) -> str:
    known = [name for name in setting_paths() if "." in name]
    if path not in known:
        raise UnknownNameError("setting", path, known)
    return path


def ranges_of(spec: RunSpec, plan: TuningPlan, fixed: Mapping[str, Any]) -> dict[str, Range]:
    """What is chosen for a spec: its method's ranges, those of the plan, less what is fixed.

    Args:
        spec: What is tuned.
        plan: Its ranges replace the method's; None takes one out.
        fixed: Settings the user gave a value.

    Raises:
        SpecError: if nothing is left, a range holds a value that does not fit, or the method
            does not read a setting.
    """
    method = find_method(spec.method)
    own = (plan.ranges or {}).get(spec.method, {})
    for path in own:
        if path not in type(spec.config).paths():
            raise SpecError(f"Method {spec.method!r} does not use {path}; remove it")
    merged = {**method.search_space(spec.config), **own}
    if not merged:
        raise SpecError(f"Method {spec.method!r} has nothing to tune; use valence train")
    space = {p: r for p, r in merged.items() if r is not None and p not in fixed}
    if not space:
        raise SpecError(f"Nothing is left to tune for {spec.method!r}; add a range in --space")
    for path, one in space.items():
        for value in one.ends:
            spec.override({path: value})
    return space


def tune(
    method: str,
    data: DataSpec,
    *,
    plan: TuningPlan | None = None,
    settings: Mapping[str, Any] | None = None,
    config: TuningConfig | None = None,
    observer: Observer | None = None,
    progress: ProgressCallback | None = None,
) -> TuningResult:
    """Choose the settings of a method on validation rows, and train with the best.

    The same call goes on with a study that was stopped or killed, until it has
    ``plan.n_trials``; several processes may call it at once.

    Args:
        method: A name of ``METHODS``; a ``posthoc`` method's base is tuned.
        data: Which rows.
        plan: How many trials, on which fraction of the rows, over which ranges.
        settings: Dotted settings of all trials and of the final run.
        config: Where to read and write.
        observer: Called with the progress of the trials.
        progress: Called with the part of the final training that is done.

    Raises:
        UnknownNameError, SpecError: if a name or range is wrong, or there is nothing to tune.
        DataError, ModelError: if the data or encoder cannot be used.
        RunError: if Optuna is missing, the storage cannot be used, or every trial fails.
    """
    process_group.require_single_process("Tuning", ALONE)
    plan, config = plan or TuningPlan(), config or TuningConfig()
    find_method(method)
    check_tracker(config.track)
    spec = make_spec(method, data, seed=config.seed, settings=settings)
    dataset = load_dataset(spec.data, seed=spec.seed, data_dir=config.data_dir)
    spec, _ = with_encoder(spec, dataset.train.texts)
    space = ranges_of(spec, plan, settings or {})
    check_rows(dataset.without_test(), spec)
    job, task = _job(spec, space, plan, dataset, config)
    study = open_study(job.url, job.name)
    bind(study, task)
    lock = config.runs / ".unfinished" / f"{job.name}.lock"
    points = every_point(space, plan.n_trials)
    if points is not None:  # few enough to try each once
        job = replace(job, trials=len(points))
        close_stale(study)
        with locked(lock):
            enqueue(study, points)
    interrupted = _run_trials(job, study, config.workers, observer)
    if count(study).best is None:
        return _none_done(study, interrupted)
    tuned = _best(spec, space, study, dataset.task, interrupted=interrupted)
    if interrupted or not config.final:
        return tuned
    with locked(lock):
        result = run(
            tuned.best, store=RunStore(config.runs), dataset=dataset, keep_model=True,
            progress=progress, track=config.track,
        )  # fmt: skip
    return replace(tuned, result=result)


def _best(
    spec: RunSpec, space: Mapping[str, Range], study: Study, task: Task, *, interrupted: bool
) -> TuningResult:
    """What the trials chose; nothing is trained with it yet."""
    params, metric = study.best_trial.params, str(spec.get("train.metric"))
    return TuningResult(
        study.study_name, spec.override(params), space, params,
        task.signed(metric, study.best_value),
        _as_shown(trials_table(study), task.signed(metric, 1.0)),
        importances(study), task, None, interrupted,
    )  # fmt: skip


def _run_trials(job: Job, study: Study, workers: int, observer: Observer | None) -> bool:
    """Run the trials that are missing; whether the user stopped them."""
    try:
        all_trials(job, study, workers=workers, observer=observer)
    except KeyboardInterrupt:
        return True
    return False


def study_name(method: str, data: DataSpec) -> str:
    """The name of a study where none is given: data and method."""
    return f"{Path(data.name).stem or 'data'}-{method}"


def _job(
    spec: RunSpec, space: dict[str, Range], plan: TuningPlan, dataset: Dataset, config: TuningConfig
) -> tuple[Job, dict[str, str]]:
    base = trained_part(spec)
    if plan.epochs is not None and find_method(base.method).capabilities.streams_epochs:
        base = base.override({"train.epochs": plan.epochs})
    name = config.study or study_name(spec.method, spec.data)
    digest = hashlib.sha256(repr(sorted(space.items())).encode()).hexdigest()[:10]
    content = ",".join(find_method(base.method).content(base.config))
    task = {"data": dataset.fingerprint, "settings": base.digest(), "encoder": content,
            "ranges": digest, "sample": f"{plan.sample:g}"}  # fmt: skip
    url = config.storage or sqlite_url(config.folder / f"{name}.db")
    data = sample_rows(dataset.without_test(), plan.sample, seed=spec.seed)
    return Job(base, space, plan.n_trials, data, url, name), task


def sample_rows(data: TrainingData, fraction: float, *, seed: int) -> TrainingData:
    """A stratified sample of the training rows, one of a class at least; all validation rows."""
    if fraction >= 1:
        return data
    labels = data.train.labels
    if not data.classes:  # intensities: there is nothing to stratify by
        _, taken = stratified_split(np.zeros(len(labels), np.int64), fraction, seed=seed)
        return replace(data, train=data.train.take(taken))
    _, taken = stratified_split(labels, fraction, seed=seed)
    lone = np.flatnonzero(data.train_counts[labels] == 1)  # the split leaves these out
    return replace(data, train=data.train.take(np.union1d(taken, lone)))


def _as_shown(trials: pd.DataFrame, sign: float) -> pd.DataFrame:
    """Optuna's largest is best; scores that are best when low get their own sign back."""
    return trials.assign(**{name: trials[name] * sign for name in ("value", "last")})


def _none_done(study: Study, interrupted: bool) -> TuningResult:
    """No trial is complete: say why.

    Raises:
        KeyboardInterrupt: if the user stopped before the first was.
        RunError: if all failed.
    """
    if interrupted:
        raise KeyboardInterrupt
    table = trials_table(study)
    failed = table.loc[table["error"] != "", "error"]
    raise RunError(
        f"All {len(failed)} trials of study {study.study_name!r} failed; the last error: "
        f"{failed.iloc[-1] if len(failed) else 'no reason'}; fix the cause and use another "
        "--study"
    )
