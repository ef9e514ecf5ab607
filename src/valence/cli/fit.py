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
        str, typer.Option(help="Time for models with an encoder: 90s, 5m, 2h.")
    ] = DEFAULT_BUDGET,
    seed: Annotated[int, typer.Option(help="Seed of splits and everything random.")] = 45,
) -> None:
    """Fit the best model for your rows, and say how good it is.

    Tries several models, chooses on validation rows, and scores the chosen one once on test rows.
    The same command goes on where an earlier one was stopped; Ctrl-C keeps the best so far.
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
        console.info("Stopped. What is finished is kept; the same command goes on from here.")
        raise typer.Exit(INTERRUPTED) from None
    copy_model(best.model, out)
    if output.json:
        console.print_json(_as_json(best, out))
    elif not output.quiet:
        _print(best, out)
    if not best.is_complete:
        raise typer.Exit(INTERRUPTED)


def _print(best: BestModel, out: Path) -> None:
    for line in fit_report.row_lines(best):
        console.info(line)
    console.print_table(fit_report.COLUMNS, fit_report.portfolio_cells(best))
    for line in fit_report.score_lines(best):
        console.info(line)
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
