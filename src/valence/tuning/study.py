"""Optuna studies that several processes share: opened, counted, rid of dead trials.

A study is an SQLite file, a journal file (``journal://folder/study.log``, which machines that
share a folder may all write to), or a database (``postgresql://user:${PGPASSWORD}@host/name``).
Trials of a process that was killed stay "running" in it. They are recognized by their heartbeat,
which databases get from Optuna and journals from here, and are marked failed.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from valence.data.database import driver_url
from valence.errors import RunError, SpecError
from valence.tuning.journal import open_journal

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

LOCK_WAIT_SECONDS = 120.0  # for another process's write; SQLite's own 5 are soon over
HEARTBEAT_SECONDS = 10  # of journals and servers, which many machines may share
GRACE_SECONDS = 60
FILE_HEARTBEAT_SECONDS = 2  # of an SQLite file: the processes of one machine
FILE_GRACE_SECONDS = 10
POLL_SECONDS = 0.5
OPENING_TRIES = 20
UNSIGNED_SECONDS = 10.0  # a trial is signed right after it is begun
WORKER, ERROR, SURPLUS, BEAT = "worker", "error", "surplus", "beat"
JOURNAL = "journal://"


@dataclass(frozen=True)
class Count:
    """How far a study is.

    Attributes:
        finished: Trials that are complete, pruned, or failed by themselves.
        running: Trials at work.
        best: The best validation score, or None.
    """

    finished: int
    running: int
    best: float | None


def need_optuna() -> None:
    """Make sure that Optuna is there, and quiet.

    Raises:
        RunError: if it is not installed.
    """
    try:
        import optuna
        import tenacity  # noqa: F401 - comes with the same extra
    except ImportError:
        raise RunError(
            "Tuning needs Optuna, which is not installed: pip install 'valence[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)


def sqlite_url(path: Path) -> str:
    """The storage URL of an SQLite file."""
    return f"sqlite:///{path}"


def open_study(url: str, name: str) -> Study:
    """The study ``name`` in the storage at ``url``, made where there is none.

    Raises:
        RunError: if Optuna is not installed, or the storage cannot be opened.
    """
    need_optuna()
    from optuna import create_study
    from optuna.pruners import MedianPruner
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_incrementing

    # Two processes that make the tables at once meet each other; the second try finds them.
    opening = Retrying(
        retry=retry_if_exception(_is_of_tables), stop=stop_after_attempt(OPENING_TRIES),
        wait=wait_incrementing(0.1, 0.1), reraise=True,
    )  # fmt: skip
    try:
        return opening(
            lambda: create_study(
                study_name=name, storage=_storage(url), direction="maximize",
                pruner=MedianPruner(), load_if_exists=True,
            )
        )  # fmt: skip
    except Exception as error:  # SQLAlchemy, drivers and Optuna raise errors of their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(
            f"Cannot open study {name!r} in {_without_password(url)} ({reason}); check --storage"
        ) from None


def _storage(url: str) -> Any:
    from optuna.storages import RDBStorage
    from sqlalchemy.pool import NullPool

    if url.startswith(JOURNAL):
        return open_journal(Path(url.removeprefix(JOURNAL)))
    # No connection waits idle in each of many workers: a server has few of them.
    arguments: dict[str, Any] = {"poolclass": NullPool}
    beat, grace = HEARTBEAT_SECONDS, GRACE_SECONDS
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///").partition("?")[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=LOCK_WAIT_SECONDS)
        try:
            # A write-ahead log lets readers read while one process writes; the file remembers it.
            connection.execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()
        arguments = {"connect_args": {"timeout": LOCK_WAIT_SECONDS}}
        beat, grace = FILE_HEARTBEAT_SECONDS, FILE_GRACE_SECONDS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # heartbeats are marked experimental
        return RDBStorage(
            driver_url(url), engine_kwargs=arguments, heartbeat_interval=beat, grace_period=grace,
        )  # fmt: skip


@contextmanager
def heartbeat(trial: Trial) -> Iterator[None]:
    """Let other processes see in a journal that this one is at a trial.

    Optuna does the same in databases.
    """
    from optuna.storages import JournalStorage

    if not isinstance(trial.study._storage, JournalStorage):
        yield
        return
    ended = threading.Event()

    def beat() -> None:
        number = 0
        while not ended.wait(HEARTBEAT_SECONDS):
            number += 1
            with suppress(Exception):  # a trial that was closed meanwhile has no more beats
                trial.set_user_attr(BEAT, number)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Heartbeat:
    """Which trials of a journal went on while this process looked; clocks may differ.

    Args:
        grace_seconds: A trial without a beat for so long is of a dead process.
    """

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self.grace_seconds = grace_seconds
        self.seen: dict[int, tuple[int, float]] = {}

    def is_gone(self, trial: FrozenTrial) -> bool:
        """Whether the process that began a trial has stopped."""
        beat, now = int(trial.user_attrs.get(BEAT, 0)), time.monotonic()
        known, since = self.seen.setdefault(trial.number, (beat, now))
        if known != beat:
            self.seen[trial.number] = (beat, now)
            return False
        return now - since > self.grace_seconds


def _is_of_tables(error: BaseException) -> bool:
    return type(error).__name__ in ("OperationalError", "IntegrityError", "ProgrammingError") and (
        "exist" in str(error) or "UNIQUE" in str(error) or "locked" in str(error)
    )


def _without_password(url: str) -> str:
    scheme, sign, rest = url.partition("://")
    return f"{scheme}{sign}{rest.rpartition('@')[2]}"


def bind(study: Study, task: dict[str, Any]) -> None:
    """Make sure that a study found in the storage is of the same task.

    Args:
        study: The study.
        task: What its trials have in common: data, settings, ranges.

    Raises:
        SpecError: if it was begun with another task.
    """
    known = study.user_attrs.get("task")
    if known is None:
        study.set_user_attr("task", task)
        return
    other = [name for name, value in task.items() if known.get(name) != value]
    if other:
        raise SpecError(
            f"Study {study.study_name!r} was started with different {' and '.join(other)}; use the "
            "same command, or another --study"
        )


def identity() -> str:
    """Host and process id, by which a trial is signed."""
    return f"{socket.gethostname()}|{os.getpid()}"


def close_stale(study: Study, heartbeats: Heartbeat | None = None) -> None:
    """Mark trials failed whose process is gone.

    Args:
        study: The study.
        heartbeats: What this process has seen of the trials, where they are in a journal.
    """
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.storages import JournalStorage, fail_stale_trials
    from optuna.trial import TrialState

    watched = heartbeats if isinstance(study._storage, JournalStorage) else None
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        # Another process may close it at the same moment.
        with suppress(UpdateFinishedTrialError, ValueError):
            if _is_stale(trial, watched):
                study.tell(trial.number, state=TrialState.FAIL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # marked experimental
        fail_stale_trials(study)


def _is_stale(trial: FrozenTrial, heartbeats: Heartbeat | None) -> bool:
    """Whether a trial was never signed, or has no heartbeat in a journal any more.

    Optuna knows a trial in a database by its heartbeat, and it beats before it is signed.
    """
    if WORKER in trial.user_attrs:
        return heartbeats is not None and heartbeats.is_gone(trial)
    begun = trial.datetime_start
    return begun is not None and (datetime.now() - begun).total_seconds() > UNSIGNED_SECONDS


def is_used(trial: FrozenTrial) -> bool:
    """Whether a trial counts: complete, pruned or broken, but not killed, stopped or surplus."""
    from optuna.trial import TrialState

    if trial.state == TrialState.FAIL:
        return ERROR in trial.user_attrs
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def count(study: Study) -> Count:
    """How far a study is."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    values = [t.value for t in trials if t.state == TrialState.COMPLETE and t.value is not None]
    return Count(
        sum(is_used(t) for t in trials),
        sum(t.state == TrialState.RUNNING for t in trials),
        max(values, default=None),
    )


def trials_table(study: Study) -> pd.DataFrame:
    """One row per trial: number, state, value, seconds, its settings, error.

    Trials that were killed, stopped or begun beyond the number requested are left out.
    """
    rows = []
    for trial in study.get_trials(deepcopy=False):
        if not is_used(trial):
            continue
        took = trial.duration.total_seconds() if trial.duration else None
        # What a pruned trial had reached is no result; its last evaluation is shown beside.
        last = trial.intermediate_values[max(trial.intermediate_values)] if (
            trial.intermediate_values
        ) else None  # fmt: skip
        complete = trial.state.name == "COMPLETE"
        rows.append(
            {
                "trial": trial.number, "state": trial.state.name.lower(),
                "value": trial.value if complete else None, "last": last,
                "evaluations": len(trial.intermediate_values), "seconds": took,
                **trial.params, "error": trial.user_attrs.get(ERROR, ""),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def importances(study: Study, *, seed: int = 0) -> dict[str, float]:
    """Fraction of the score's variance each setting explains (fANOVA); empty where undefined."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < 4 or len({t.value for t in done}) < 2:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed))
    except (RuntimeError, ValueError):  # no setting varies among the complete trials
        return {}


def enqueue(study: Study, points: list[dict[str, Any]]) -> None:
    """Let the trials to come be those of ``points`` that no trial has tried or waits to try."""
    from optuna.trial import TrialState

    taken = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.WAITING:
            taken.append(trial.system_attrs.get("fixed_params"))
        elif trial.state == TrialState.RUNNING or is_used(trial):
            taken.append(trial.params)
    for point in points:
        if point not in taken:
            study.enqueue_trial(point)
