"""``valence calibrate``: probabilities that mean what they say, and abstaining."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from valence.cli import console
from valence.cli.evaluate import print_notes
from valence.cli.options import (
    ModelFolder,
    ModelHardware,
    OptionGroup,
    OtherDataOptions,
    OutputOptions,
    SplitName,
    with_groups,
)
from valence.cli.tables import print_table
from valence.errors import SpecError

if TYPE_CHECKING:
    from valence.data.dataset import Split
    from valence.inference.calibrate import Adjust, CalibrationFit

LOWER = ("ece", "classwise_ece", "log_loss", "brier")


@dataclass(frozen=True, kw_only=True)
class FittingOptions(OptionGroup):
    """What is fitted."""

    adjust: Annotated[
        str, typer.Option(help="Shift decisions to raise macro-F1: none, prior or classes.")
    ] = "none"
    abstain: Annotated[
        float | None,
        typer.Option(
            help="Abstain when unsure: at most this fraction of each class gets a wrong label."
        ),
    ] = None
    target_prior: Annotated[
        str | None,
        typer.Option(help="Class frequencies where you use the model: good=0.7,bad=0.3."),
    ] = None
    min_rows: Annotated[
        int, typer.Option(min=1, help="Minimum rows of a class to fit a bias or threshold for it.")
    ] = 20


@with_groups
def calibrate(
    model: ModelFolder,
    data: OtherDataOptions,
    fitting: FittingOptions,
    hardware: ModelHardware,
    output: OutputOptions,
    split: SplitName = "validation",
    off: Annotated[bool, typer.Option("--off", help="Remove the calibration.")] = False,
) -> None:
    """Calibrate probabilities; the model folder gets a calibration.json.

    Uses the rows of --data, which the model must not have seen, or the validation rows of its
    training.
    """
    from valence.inference.calibrate import fit
    from valence.inference.calibration import (
        parse_prior,
        remove_calibration,
        write_calibration,
    )
    from valence.inference.model_rows import OWN_ROWS, validation_rows
    from valence.inference.predictor import Predictor
    from valence.models.held_out import read_held_out

    if off:
        remove_calibration(model)
        console.info(f"Removed the calibration of {model}")
        return
    target = parse_prior(fitting.target_prior) if fitting.target_prior else None
    predictor = Predictor(model, hardware=hardware.requested())
    if not predictor.classes:
        raise SpecError(f"{model} predicts a number; there are no probabilities to calibrate")
    spec = data.other_rows(target=predictor.target)
    loaded = validation_rows(predictor.config, spec, split=split, data_dir=data.data_dir)
    if not output.quiet:
        print_notes(loaded)
        console.info(str(loaded))
    known = None
    if loaded.source == OWN_ROWS:
        known = read_held_out(model, loaded.rows.ids, len(predictor.classes))
    if known is not None and not output.quiet:
        console.info(
            "The model was also fitted on these rows, so their out-of-fold scores are used"
        )
    logits = predictor.model.predict(loaded.rows.examples()).logits if known is None else known
    fitted = fit(
        logits, loaded.rows.labels, predictor.config,
        adjust=cast("Adjust", fitting.adjust), abstain=fitting.abstain, min_rows=fitting.min_rows,
    )  # fmt: skip
    result = fitted.calibration if target is None else fitted.calibration.with_target_prior(target)
    path = write_calibration(result, model)
    _draw(fitted, loaded.rows, model / "report" / "reliability.png")
    _print(fitted, path, output)
    if predictor.config.holds_encoder and not output.quiet:
        console.info(
            "Other tools ignore the calibration of this folder; valence export builds it into the "
            "model"
        )


def _draw(fitted: CalibrationFit, rows: Split, path: Path) -> None:
    from valence.reports.diagnostic_plots import reliability_figure
    from valence.storage import atomic

    curves = {"before": fitted.probs_before, "after": fitted.probs_after}
    with atomic.new_file(path) as scratch:
        reliability_figure(rows.labels, curves).savefig(scratch, dpi=150)


def _print(fitted: CalibrationFit, path: Path, output: OutputOptions) -> None:
    from valence.evaluation.calibration import CALIBRATION_METRICS
    from valence.evaluation.classification import METRICS

    calibration = fitted.calibration
    if output.json:
        console.print_json(
            {"before": fitted.before, "after": fitted.after, "answered": fitted.answered,
             "answered_error": fitted.answered_error,
             "calibration": calibration.model_dump(mode="json")}
        )  # fmt: skip
    else:
        titles = METRICS | CALIBRATION_METRICS
        lines = [
            [titles[n].title, console.number(fitted.before[n]), console.number(fitted.after[n])]
            for n in (*LOWER, *(name for name in fitted.before if name not in LOWER))
        ]
        print_table(["score (first four: lower is better)", "before", "after"], lines)
        if fitted.answered is not None:
            console.out().print(
                f"With --abstain {calibration.level:g}, {fitted.answered:.0%} of texts get a "
                f"label; of these {fitted.answered_error:.0%} are wrong"
            )
    if output.quiet:
        return
    for note in calibration.notes:
        console.info(f"Note: {note}")
    console.info(
        f"{calibration.rows} rows, temperature {calibration.temperature:.3f}; the scores after "
        f"calibration are cross-fitted (fit on one half, measured on the other). "
        f"Written: {path}"
    )
