"""The trials of a study: each fitted as a run is, on data that holds no test rows.

The score of a trial is the validation score ``train.metric``. A trial that falls behind the
median of the others is stopped early. Trials are made in this process or in several.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from typing import TYPE_CHECKING, Any

import numpy as np

from valence.config.ranges import Range
from valence.config.spec import RunSpec
from valence.data.dataset import TrainingData
from valence.errors import RunError
from valence.methods.fit import fit_spec
from valence.models.base import Model
from valence.tuning.study import (
    ERROR,
    POLL_SECONDS,
    SURPLUS,
    WORKER,
    Count,
    Heartbeat,
    close_stale,
    count,
    heartbeat,
    identity,
    is_used,
    open_study,
)

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

FAILURES_BEFORE_STOP = 3
WORKER_END_SECONDS = 20.0  # a fit that is made in one go cannot be stopped
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """All that a process needs to make trials; there are no test rows in it.

    Attributes:
        spec: What is trained, with the settings that all trials share.
        space: What is chosen.
        trials: How many, those of earlier calls counted.
        data: Training rows (the sample of them) and validation rows.
        url, name: Storage and name of the study.
    """

    spec: RunSpec
    space: Mapping[str, Range]
    trials: int
    data: TrainingData
    url: str
    name: str

    @property
    def metric(self) -> str:
        """The validation score that chooses."""
        return str(self.spec.get("train.metric"))


@dataclass(frozen=True)
class StudyProgress:
    """How far a study is; handed to the observer.

    Attributes:
        count: Trials finished and at work.
        best: The best score, as it is shown; None before there is one.
        trials: Trials requested.
        fraction: Part of the trial at work that is done, where it is known.
        seconds_left: Estimate for the rest, or None before the first trial is done.
    """

    count: Count
    best: float | None
    trials: int
    fraction: float
    seconds_left: float | None


Observer = Callable[[StudyProgress], None]


def all_trials(
    job: Job, study: Study, *, workers: int = 1, observer: Observer | None = None
) -> None:
    """Make what trials are missing, in this process or in ``workers`` others.

    Args:
        job: What is tuned.
        study: Its study.
        workers: Processes.
        observer: Called with the progress.

    Raises:
        KeyboardInterrupt: if the user says so; finished trials are kept.
        RunError: if a worker process breaks.
    """
    notifier = _ProgressNotifier(job, study, workers, observer)
    if workers == 1:
        make_trials(job, study, callback=notifier.update, stop=lambda: False)
    else:
        _with_workers(job, workers, notifier)
    notifier.update(0.0)


class _ProgressNotifier:
    """Calls the observer, with the time left by what trials took so far."""

    def __init__(self, job: Job, study: Study, workers: int, observer: Observer | None) -> None:
        self.job, self.study, self.observer = job, study, observer
        self.workers = workers
        self.begun = time.monotonic()
        self.at_first = count(study).finished
        self.now, self.counted = count(study), self.begun

    def update(self, fraction: float) -> None:
        if self.observer is None:
            return
        seconds = time.monotonic()
        if fraction == 0 or seconds - self.counted > POLL_SECONDS:  # not at every step
            self.now, self.counted = count(self.study), seconds
        done = self.now.finished - self.at_first + fraction
        rest = max(0.0, self.job.trials - self.now.finished - fraction)
        left = (seconds - self.begun) / done * rest if done > 0 else None
        best = self.now.best
        shown = None if best is None else self.job.data.task.signed(self.job.metric, best)
        self.observer(StudyProgress(self.now, shown, self.job.trials, fraction, left))


def _with_workers(job: Job, workers: int, notifier: _ProgressNotifier) -> None:
    context = multiprocessing.get_context("spawn")  # a fork would share torch's threads
    stop = context.Event()
    threads = max(1, _threads() // workers)
    # A daemon: one that is left ends with this process.
    processes = [
        context.Process(target=_work, args=(job, stop, threads), daemon=True)
        for _ in range(workers)
    ]
    before = {name: os.environ.get(name) for name in THREAD_SETTINGS}
    os.environ.update(dict.fromkeys(THREAD_SETTINGS, str(threads)))
    try:
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes):
            notifier.update(0.0)
            time.sleep(POLL_SECONDS)
    finally:
        stop.set()
        end = time.monotonic() + WORKER_END_SECONDS
        for process in processes:
            if process.pid is not None:
                process.join(max(0.0, end - time.monotonic()))
                process.kill()
                process.join()
        _restore(before)
    broken = [p.exitcode for p in processes if p.exitcode]
    if broken:
        raise RunError(
            f"{len(broken)} of {workers} workers ended with exit code {broken[0]}; finished trials "
            "are saved, run the same command again to resume"
        )


def _work(job: Job, stop: Event, threads: int) -> None:
    """What a worker process does."""
    import signal
    import warnings

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it, and sets the event
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()

    def ended() -> bool:
        return stop.is_set() or (parent is not None and not parent.is_alive())

    try:
        make_trials(job, open_study(job.url, job.name), callback=lambda _: None, stop=ended)
    except KeyboardInterrupt:
        return


def _threads() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() else os.cpu_count() or 1


def _restore(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


class SurplusTrial(Exception):
    """A trial is not needed: there are enough."""


def make_trials(
    job: Job, study: Study, *, callback: Callable[[float], None], stop: Callable[[], bool]
) -> None:
    """Make trials until the study has as many as the job requests; wait for those of others.

    Args:
        job: What is tuned.
        study: Its study.
        callback: Called with the fraction done of the trial at work.
        stop: Whether to end as Ctrl-C does.

    Raises:
        KeyboardInterrupt: if the user, or ``stop``, says so.
    """
    from optuna.exceptions import UpdateFinishedTrialError

    seen = Heartbeat()
    while True:
        if stop():
            raise KeyboardInterrupt
        close_stale(study, seen)
        now = count(study)
        hopeless = now.best is None and now.finished >= FAILURES_BEFORE_STOP and not now.running
        if now.finished >= job.trials or (hopeless and _all_failed(study)):
            return
        if now.finished + now.running >= job.trials:
            time.sleep(POLL_SECONDS)
            continue
        try:
            study.optimize(
                lambda trial: objective(trial, job, callback=callback, stop=stop), n_trials=1,
                catch=(Exception,),
            )  # fmt: skip
        except UpdateFinishedTrialError:  # this process slept, and was taken for dead
            continue


def _all_failed(study: Study) -> bool:
    return all(ERROR in t.user_attrs for t in study.get_trials(deepcopy=False) if is_used(t))


def objective(
    trial: Trial, job: Job, *, callback: Callable[[float], None], stop: Callable[[], bool]
) -> float:
    """The validation score of one trial.

    Raises:
        optuna.TrialPruned: if it falls behind the others.
        SurplusTrial: if other processes began enough trials at the same moment.
        KeyboardInterrupt: if ``stop`` says so.
    """
    from optuna import TrialPruned
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    trial.set_user_attr(WORKER, identity())
    before = [t for t in trial.study.get_trials(deepcopy=False) if t.number < trial.number]
    counted = [t for t in before if t.state != TrialState.FAIL or ERROR in t.user_attrs]
    if len(counted) >= job.trials:
        trial.set_user_attr(SURPLUS, True)
        raise SurplusTrial
    # By the trial's number, so that a study stopped and taken up again draws as one that was not.
    seed = int(np.random.SeedSequence([job.spec.seed, trial.number]).generate_state(1)[0])
    trial.study.sampler = TPESampler(seed=seed)
    scores: list[float] = []

    def on_evaluate(value: float) -> None:
        scores.append(value)
        trial.report(value, len(scores))
        if trial.should_prune():
            raise TrialPruned(f"behind the median after {len(scores)} evaluations")

    def progress(done: float, _: str) -> None:
        if stop():
            raise KeyboardInterrupt
        callback(done)

    try:
        spec = job.spec.override({p: suggest(trial, p, r) for p, r in job.space.items()})
        with heartbeat(trial):
            fitted = fit_spec(spec, job.data, progress=progress, on_evaluate=on_evaluate)
    except TrialPruned:
        raise
    except Exception as error:  # whatever breaks one trial, the others still run
        lines = str(error).strip().splitlines() or [type(error).__name__]
        trial.set_user_attr(ERROR, lines[0][:300])
        raise
    return max(scores) if scores else _score(fitted.model, job)


def suggest(trial: Trial, path: str, values: Range) -> Any:
    """Draw a setting from its range."""
    if values.choices:
        return trial.suggest_categorical(path, values.choices)
    assert values.low is not None
    assert values.high is not None
    if isinstance(values.low, int) and isinstance(values.high, int):
        step = 1 if values.step is None else int(values.step)
        return trial.suggest_int(path, values.low, values.high, log=values.log, step=step)
    return trial.suggest_float(path, values.low, values.high, log=values.log, step=values.step)


def _score(model: Model, job: Job) -> float:
    """The validation score of a model that was fitted in one go."""
    data = job.data
    logits = model.predict(data.validation.examples(data.group)).logits
    return data.task.chosen_score(data.task.scores(logits, data.validation.labels), job.metric)
