"""The tables of a comparison as files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from valence.comparison.sweep import Sweep
from valence.errors import RunError
from valence.reports.leaderboard import leaderboard
from valence.reports.tables import (
    cases,
    own_best_table,
    runs_table,
    sensitivity_table,
    summary_markdown,
)
from valence.runs.store import RunResult, RunStore


def write_tables(
    store: RunStore,
    results: Sequence[RunResult],
    out: Path,
    *,
    baseline: str | None = None,
    sweep: Sweep | None = None,
) -> None:
    """Write results.csv, leaderboard.csv, summary.md, sensitivity.csv, features/ and cases/.

    Args:
        store: Where the run folders are.
        results: Runs of the methods as they are.
        out: Folder; made if it is not there.
        baseline: Method the others are tested against.
        sweep: Runs at the points of a sweep.

    Raises:
        RunError: if the folder cannot be written.
    """
    every = {run.key: run for run in (*results, *(sweep.results if sweep else ()))}
    try:
        for name in ("features", "cases"):
            (out / name).mkdir(parents=True, exist_ok=True)
        runs_table(list(every.values())).to_csv(out / "results.csv", index=False)
        leaderboard(store, results, baseline).to_csv(out / "leaderboard.csv", index=False)
        (out / "summary.md").write_text(summary_markdown(results), encoding="utf-8")
        if sweep is not None:
            sensitivity_table(sweep).to_csv(out / "sensitivity.csv", index=False)
        own = own_best_table(results)
        if len(own):
            own.to_csv(out / "own_best_epochs.csv", index=False)
        for result in results:
            cases(store, result).to_csv(out / "cases" / f"{result.key}.csv", index=False)
            shutil.copyfile(
                store.path(result.key) / "features.npz", out / "features" / f"{result.key}.npz"
            )
    except OSError as error:
        raise RunError(f"Cannot write tables to {out}: {error.strerror or error}") from None
