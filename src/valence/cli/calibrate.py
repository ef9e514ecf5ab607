"""``valence calibrate``: probabilities that mean what they say, and labels held back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valence.cli import console
from valence.cli.compare import (
    DataDir,
    Json,
    LabelColumn,
    Query,
    Quiet,
    TableName,
    TextColumn,
)
from valence.errors import DataError

if TYPE_CHECKING:
    from valence.config.data import DataSpec
    from valence.data.dataset import Split
    from valence.inference.calibrate import Fitted
    from valence.inference.predictor import Predictor

LOWER = ("ece", "classwise_ece", "log_loss", "brier")


def calibrate(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    data: Annotated[
        str | None,
        typer.Option(help="Labelled rows the model has not seen; its validation rows when none."),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Which split, where there are several.")
    ] = "validation",
    adjust: Annotated[
        str, typer.Option(help="Move decisions for macro-F1: none, prior, or classes.")
    ] = "none",
    abstain: Annotated[
        float | None,
        typer.Option(
            help="Give no label rather than a wrong one to more than this share of a class."
        ),
    ] = None,
    target_prior: Annotated[
        str | None, typer.Option(help="Class shares where it is used: good=0.7,bad=0.3.")
    ] = None,
    min_rows: Annotated[
        int, typer.Option(min=1, help="Rows of a class below which nothing is fitted for it.")
    ] = 20,
    off: Annotated[bool, typer.Option("--off", help="Take the calibration away again.")] = False,
    data_dir: DataDir = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    query: Query = None,
    table: TableName = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit temperature, class biases and limits; write calibration.json into the model's folder."""
    from valence.config.data import DataSpec
    from valence.inference.calibrate import fit
    from valence.inference.calibration import FILE, parse_shares, write_calibration
    from valence.inference.predictor import Predictor
    from valence.reports.diagnostic_plots import reliability_figure
    from valence.storage import atomic

    if off:
        atomic.remove_file(model / FILE)
        console.say(f"{model} gives its probabilities as they are")
        return
    shares = parse_shares(target_prior) if target_prior else None
    predictor = Predictor(model)
    spec = None if data is None else DataSpec(
        name=data, text_column=text_column, label_column=label_column, query=query, table=table
    )  # fmt: skip
    rows = _rows(predictor, spec, split, data_dir)
    raw = predictor.model.predict(rows.examples()).logits
    found = fit(raw, rows.labels, predictor.config, adjust=adjust, abstain=abstain,  # type: ignore[arg-type]
                min_rows=min_rows)  # fmt: skip
    done = found.calibration if shares is None else found.calibration.towards(shares)
    path = write_calibration(done, model)
    curves = {"before": found.shares_before, "after": found.shares_after}
    picture = model / "report" / "reliability.png"
    with atomic.new_file(picture) as scratch:
        reliability_figure(rows.labels, curves).savefig(scratch, dpi=150)
    _tell(found, path, as_json=json, quiet=quiet)


def _rows(predictor: Predictor, spec: DataSpec | None, split: str, data_dir: Path | None) -> Split:
    """The rows that are given, or the validation rows of the model's own training."""
    from valence.data.sources import load_dataset, load_split

    if spec is not None:
        return load_split(spec, predictor.classes, split=split, data_dir=data_dir)[0]
    own = predictor.config
    if own.data is None:
        raise DataError(
            f"{predictor.folder} was trained on rows in memory; give labeled rows with --data"
        )
    return load_dataset(own.data, seed=own.seed, data_dir=data_dir).validation


def _tell(found: Fitted, path: Path, *, as_json: bool, quiet: bool) -> None:
    from valence.evaluation.calibration import CALIBRATION_METRICS
    from valence.evaluation.classification import METRICS
    from valence.reports.tables import mean_sd

    done = found.calibration
    if as_json:
        console.print_json(
            {"before": found.before, "after": found.after, "answered": found.answered,
             "calibration": done.model_dump(mode="json")}
        )  # fmt: skip
    else:
        titles = METRICS | CALIBRATION_METRICS
        lines = [
            [titles[name].title, mean_sd(found.before[name]), mean_sd(found.after[name])]
            for name in (*LOWER, *(n for n in found.before if n not in LOWER))
        ]
        if found.answered is not None:
            lines.append(["texts that get a label", "1.000", f"{found.answered:.3f}"])
        console.print_table(["score (the first four: lower is better)", "before", "after"], lines)
    if quiet:
        return
    for note in done.notes:
        console.say(f"Note: {note}")
    console.say(
        f"{done.rows} rows, temperature {done.temperature:.3f}; scores after: fitted on one half, "
        f"measured on the other. Written: {path}"
    )
