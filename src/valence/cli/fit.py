"""``valence fit``: the best model for a file."""

from __future__ import annotations

import re
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
from valence.errors import SpecError

if TYPE_CHECKING:
    from valence.comparison.best_model import BestModel
    from valence.comparison.bootstrap import Difference

UNITS = {"s": 1, "m": 60, "h": 3600}
DEFAULT_BUDGET = "5m"


@with_groups
def fit(
    data: DataOptions,
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    hardware: TrainingHardware,
    output: TrackedRunsOptions,
    encoder: Encoder = None,
    budget: Annotated[
        str, typer.Option(help="Time for models that train the encoder: 90s, 5m, 2h.")
    ] = DEFAULT_BUDGET,
    seed: Annotated[int, typer.Option(help="Seed of splits and everything random.")] = 45,
) -> None:
    """Fit the best model for your rows, and say how good it is.

    Tries several models, chooses on validation rows, and scores the chosen one once on test rows.
    The same command goes on where an earlier one was stopped.
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
    with console.Meter(quiet=output.quiet) as meter:
        best = fit_best(
            data.spec(data.data), store=store, settings=settings, seed=seed,
            data_dir=data.data_dir, track=output.track,
            progress=lambda fraction, words: meter.show("fit", fraction, words),
        )  # fmt: skip
    copy_model(store.path(best.result.key) / "model", out)
    if output.json:
        console.print_json(_as_json(best, out))
        return
    if not output.quiet:
        _print(best, out)


def parse_duration(text: str) -> float:
    """``"90s"``, ``"5m"``, ``"2h"`` or a number of seconds → seconds.

    Raises:
        SpecError: if it is none.
    """
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text.lower())
    if parts is None or not float(parts[1]):
        raise SpecError(f"--budget {text!r} is no duration; write 90s, 5m or 2h")
    return float(parts[1]) * UNITS[parts[2] or "s"]


def _print(best: BestModel, out: Path) -> None:
    for note in best.result.notes:
        console.info(f"Note: {note}")
    for line in best.check.lines():
        console.info(f"Rows: {line}")
    rows = [
        [str(row["model"]), console.number(row["expected_macro_f1"]),
         "yes" if row["member"] else "", console.duration(row["seconds"])]
        for row in best.portfolio.to_dict("records")
    ]  # fmt: skip
    console.print_table(["model", "macro-F1 (validation)", "in the mean", "time"], rows)
    result = best.result
    tested = result.sizes["test"]
    console.info(f"Macro-F1 {_interval(best.score)} on {tested} test rows")
    sure = f"Against always the largest class: {_interval(best.over_floor, signed=True)}"
    if best.over_next is not None:
        sure += f"; against {best.next_name}: {_interval(best.over_next, signed=True)}"
    console.info(sure)
    console.info(f"What would help most: {best.advice}")
    console.info(f"Model: {out}")
    console.info(f"Next: valence predict {out} NEW.csv --out predictions.csv")


def _interval(difference: Difference, *, signed: bool = False) -> str:
    if difference.value is None or difference.low is None or difference.high is None:
        return "unknown (a class is missing in the test rows)"
    form = "{:+.3f}" if signed else "{:.3f}"
    value, low, high = map(form.format, (difference.value, difference.low, difference.high))
    return f"{value} (95% interval {low} to {high})"


def _as_json(best: BestModel, out: Path) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "model": str(out), "run": best.result.key, "test": best.result.test,
        "validation": best.result.validation, "macro_f1": asdict(best.score),
        "over_largest_class": asdict(best.over_floor),
        "over_next": None if best.over_next is None else asdict(best.over_next),
        "next": best.next_name, "portfolio": best.portfolio.to_dict("records"),
        "rows": asdict(best.check), "advice": best.advice, "notes": list(best.result.notes),
    }  # fmt: skip
