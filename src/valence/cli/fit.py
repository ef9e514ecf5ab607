"""``valence fit``: the best model for a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valence.cli import console
from valence.cli.options import (
    DataOptions,
    Encoder,
    TrackedRunsOptions,
    TrainingHardware,
    encoder_settings,
    with_groups,
)
from valence.cli.streams import visible
from valence.cli.tables import print_table
from valence.cli.train import check_target_folder, copy_model
from valence.comparison import fit_report
from valence.config.duration import parse_duration

if TYPE_CHECKING:
    from valence.comparison.best_model import BestModel

INTERRUPTED = 130
"""Exit code after Ctrl-C."""
DEFAULT_BUDGET = "5m"


@with_groups
def fit(
    data: DataOptions,
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    hardware: TrainingHardware,
    output: TrackedRunsOptions,
    encoder: Encoder = None,
    budget: Annotated[
        str, typer.Option(help="Time budget for models with an encoder: 90s, 5m, 2h.")
    ] = DEFAULT_BUDGET,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 45,
) -> None:
    """Fit the best model for your data and estimate its score.

    Tries several models, selects on validation rows and scores the best one once on test rows.
    Ctrl-C keeps the best so far; the same command resumes.
    """
    from valence.comparison.best_model import fit_best
    from valence.runs.store import RunStore

    check_target_folder(out)
    output.check()
    settings = {
        "portfolio.budget_seconds": parse_duration(budget), **encoder_settings(encoder),
        **hardware.settings(), **data.settings(),
    }  # fmt: skip
    store = RunStore(output.runs)
    try:
        with console.Meter(quiet=output.quiet) as meter:
            best = fit_best(
                data.spec(data.data), store=store, settings=settings, seed=seed,
                data_dir=data.data_dir, track=output.track,
                progress=lambda fraction, words: meter.show("fit", fraction, words),
            )  # fmt: skip
    except KeyboardInterrupt:
        console.info("Stopped. Finished work is saved; run the same command again to resume.")
        raise typer.Exit(INTERRUPTED) from None
    copy_model(best.model, out)
    if output.json:
        console.print_json(_as_json(best, out))
    else:
        _print(best, out, output)
    if not best.is_complete:
        raise typer.Exit(INTERRUPTED)


def _print(best: BestModel, out: Path, output: TrackedRunsOptions) -> None:
    if not output.quiet:
        for line in fit_report.row_lines(best):
            console.info(line)
    print_table(fit_report.COLUMNS, fit_report.portfolio_cells(best), wide=output.wide)
    for line in fit_report.score_lines(best):
        console.out().print(visible(line), markup=False)
    if not output.quiet:
        console.info(f"Model: {out}")
        console.info(f"Next: valence predict {out} NEW.csv --out predictions.csv")


def _as_json(best: BestModel, out: Path) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "model": str(out), "complete": best.is_complete, "run": best.result.key,
        "test": best.result.test, "validation": best.result.validation,
        "macro_f1": asdict(best.score),
        "over_largest_class": asdict(best.over_floor),
        "over_next": None if best.over_next is None else asdict(best.over_next),
        "next": best.next_name, "portfolio": best.portfolio.to_dict("records"),
        "rows": asdict(best.check), "advice": best.advice, "notes": list(best.result.notes),
    }  # fmt: skip
