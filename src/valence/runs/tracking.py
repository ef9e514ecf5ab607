"""Runs in tracking tools: curves, settings, scores and files of a run, on this machine by default.

A training by the Trainer reports its curves live, by the Trainer's own ``report_to``; all else is
logged here when the run is there. A tool has nothing to do with a result: it is in no key.
"""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valence.errors import RunError, UnknownNameError, ValenceError
from valence.runs.trackers import PROJECT, TRACKERS, Tracker
from valence.storage import atomic
from valence.storage.file_lock import locked
from valence.training.reporting import Reporting, reporting_to

if TYPE_CHECKING:
    from valence.runs.store import RunResult, RunStore

FOLDER = "tracking"
FILES = ("result.json", "spec.yaml")
"""What is attached to a run; predictions hold texts and stay where they are."""


def check_tracker(name: str | None) -> None:
    """Refuse a tool that cannot be used; to be called before any work.

    Raises:
        UnknownNameError: if there is none of that name.
        RunError: if it is not installed.
    """
    if name is None:
        return
    if name not in TRACKERS:
        raise UnknownNameError("tracker", name, TRACKERS)
    tracker = TRACKERS[name]
    if importlib.util.find_spec(tracker.module) is None:
        raise RunError(f"--track {name} needs {tracker.module}: {tracker.install}")


def tracking_place(tool: str, root: Path) -> str:
    """Where a tool keeps the runs of a folder of runs: a folder or an address."""
    return TRACKERS[tool](root / FOLDER / tool, "").place


class RunLog:
    """What a run leaves in a tracking tool; nothing where no tool is named.

    Args:
        tool: A name of :data:`TRACKERS`, or None.
        store: Where the run is.
        key: Its key.
    """

    def __init__(self, tool: str | None, store: RunStore, key: str) -> None:
        self.tool, self.store, self.key = tool, store, key
        self.tracker: Tracker | None = None
        if tool is not None:
            self.tracker = TRACKERS[tool](store.root / FOLDER / tool, key)
        self.live = False

    @contextmanager
    def training(self, *, live: bool) -> Iterator[None]:
        """While the run is carried out: one by the Trainer is begun in the tool at once.

        Args:
            live: Whether the Trainer trains it.
        """
        self.live = live and self.tracker is not None
        if self.tracker is None or not self.live:
            yield
            return
        with _quiet():
            self._call_start(self.tracker)
            try:
                assert self.tool is not None
                with reporting_to(Reporting(self.tool, self.key, PROJECT)):
                    yield
            except BaseException:
                self._finish(failed=True)
                raise

    def log(self, result: RunResult) -> None:
        """Log a run that is there, once for each place.

        Raises:
            RunError: if the tool fails; the run itself is kept.
        """
        if self.tracker is None or (not self.live and self._is_logged()):
            return
        with _quiet(), self._explained():
            if not self.live:
                self._call_start(self.tracker)
            failed = True
            try:
                self._log_all(self.tracker, result)
                failed = False
            finally:
                self.tracker.finish(failed=failed)
        atomic.write_text(self._mark, self.tracker.place)

    def _log_all(self, tracker: Tracker, result: RunResult) -> None:
        tracker.log_params(flat_params(result))
        if not self.live:
            for record in self.store.history(self.key):
                log_record(tracker, record)
        tracker.log_metrics(final_scores(result))
        for name in FILES:
            tracker.log_file(self.store.path(self.key) / name)

    def _call_start(self, tracker: Tracker) -> None:
        with self._explained(), locked(tracker.folder.parent / f"{self.tool}.lock"):
            tracker.start()

    def _finish(self, *, failed: bool) -> None:
        assert self.tracker is not None
        with self._explained():
            self.tracker.finish(failed=failed)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ValenceError:
            raise
        except Exception as error:  # whatever a tool or its server raises
            assert self.tracker is not None
            raise RunError(
                f"--track {self.tool}: {self.tracker.place} cannot be written ({_first(error)}); "
                f"finished runs are saved, run the same command again to log "
                "them"
            ) from None

    @property
    def _mark(self) -> Path:
        assert self.tracker is not None
        return self.tracker.folder / "logged" / f"{self.key}.txt"

    def _is_logged(self) -> bool:
        assert self.tracker is not None
        mark = self._mark
        return mark.exists() and mark.read_text(encoding="utf-8") == self.tracker.place


def log_files(tool: str | None, store: RunStore, name: str, files: Sequence[Path]) -> None:
    """Log the report of several runs, as one more run with files and no curves.

    Args:
        tool: A name of :data:`TRACKERS`, or None.
        store: Where the runs are.
        name: What the files are of; the time is added.
        files: The files; those that are not there are left out.

    Raises:
        RunError: if the tool fails.
    """
    if tool is None:
        return
    log = RunLog(tool, store, f"{name}-{datetime.now():%Y%m%d-%H%M%S}")
    assert log.tracker is not None
    with _quiet(), log._explained():
        log._call_start(log.tracker)
        for path in files:
            if path.exists():
                log.tracker.log_file(path)
        log.tracker.finish(failed=False)


def flat_params(result: RunResult) -> dict[str, str]:
    """The settings of a run by dotted name, as text."""
    return dict(_flat(result.spec.model_dump(mode="json"), ""))


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)


def final_scores(result: RunResult) -> dict[str, float]:
    """Scores of the chosen weights on both splits, and what the run took."""
    scores = {f"{split}/{name}": value for split in ("validation", "test")
              for name, value in getattr(result, split).items()}  # fmt: skip
    taken = {"train_seconds": result.train_seconds, "inference_seconds": result.inference_seconds,
             "trainable_parameters": float(result.trainable_parameters)}  # fmt: skip
    return {name: value for name, value in {**scores, **taken}.items() if value is not None}


def log_record(tracker: Tracker, record: Mapping[str, Any]) -> None:
    """Log a record of a training history under the names that the Trainer reports."""
    numbers = {
        name.replace("validation/", "eval_", 1): float(value)
        for name, value in record.items()
        if name != "step" and isinstance(value, int | float)
    }
    if numbers:
        tracker.log_metrics(numbers, step=int(record.get("step", 0)))


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what tools print on stdout, which is for results, and warnings about themselves."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        # MLflow's store still uses what SQLAlchemy 2.1 deprecates.
        warnings.filterwarnings("ignore", message=".*``noload`` loader.*")
        yield
