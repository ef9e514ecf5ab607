"""The tables of a comparison as files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from valence.comparison.sweep import Sweep
from valence.reports.leaderboard import leaderboard
from valence.reports.tables import (
    cases,
    own_best_table,
    representations_table,
    runs_table,
    sensitivity_table,
    summary_markdown,
)
from valence.runs.store import RunResult, RunStore
from valence.storage import atomic


def write_tables(
    store: RunStore,
    results: Sequence[RunResult],
    out: Path,
    *,
    baseline: str | None = None,
    sweep: Sweep | None = None,
) -> None:
    """Write results, leaderboard, sensitivity and representations as CSV, summary.md and folders.

    The folders are features/ and cases/, with a file for each run.

    Args:
        store: Where the run folders are.
        results: Runs of the methods as they are.
        out: Folder; made if it is not there.
        baseline: Method to test the others against.
        sweep: Runs at the points of a sweep.

    Raises:
        RunError: if the folder cannot be written.
    """
    every = {run.key: run for run in (*results, *(sweep.results if sweep else ()))}
    with atomic.new_file(out / "results.csv") as path:
        runs_table(list(every.values())).to_csv(path, index=False)
    with atomic.new_file(out / "leaderboard.csv") as path:
        leaderboard(store, results, baseline).to_csv(path, index=False)
    atomic.write_text(out / "summary.md", summary_markdown(results))
    if sweep is not None:
        with atomic.new_file(out / "sensitivity.csv") as path:
            sensitivity_table(sweep).to_csv(path, index=False)
    own = own_best_table(results)
    if len(own):
        with atomic.new_file(out / "own_best_epochs.csv") as path:
            own.to_csv(path, index=False)
    features = representations_table(store, results)
    if len(features):
        with atomic.new_file(out / "representations.csv") as path:
            features.to_csv(path, index=False)
    for result in results:
        with atomic.new_file(out / "cases" / f"{result.key}.csv", durable=False) as path:
            cases(store, result).to_csv(path, index=False)
        with atomic.new_file(out / "features" / f"{result.key}.npz", durable=False) as path:
            shutil.copyfile(store.path(result.key) / "features.npz", path)
