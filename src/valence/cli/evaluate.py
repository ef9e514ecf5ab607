"""``valence evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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


def evaluate(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    data: Annotated[str, typer.Argument(help="A file, folder, card or hub id with labels.")],
    split: Annotated[str, typer.Option(help="Which split, where there are several.")] = "test",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the record; MODEL/report when none.")
    ] = None,
    data_dir: DataDir = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    query: Query = None,
    table: TableName = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a saved model on labelled rows."""
    import pandas as pd

    from valence.config.data import DataSpec
    from valence.data.sources import load_split
    from valence.inference.predictor import Predictor
    from valence.reports.records import record_scores

    predictor = Predictor(model)
    spec = DataSpec(
        name=data, text_column=text_column, label_column=label_column, query=query, table=table,
        target=predictor.target,
    )  # fmt: skip
    rows, notes = load_split(spec, predictor.classes, split=split, data_dir=data_dir)
    if not quiet:
        for note in notes:
            console.say(f"Note: {note}")
        console.say(f"{len(rows)} rows")
    logits, scores = predictor.scored(rows)
    entry = {
        "model": predictor.config.method, "mode": "evaluate", "data": data, "rows": len(rows),
        "metrics": scores, "parameters": predictor.config.spec,
    }  # fmt: skip
    shown = pd.DataFrame({"text": rows.texts, "label": rows.labels})
    record_scores(out or model / "report", entry, shown, logits, predictor.classes)
    print_scores(scores, as_json=json)


def print_scores(scores: dict[str, Any], *, as_json: bool) -> None:
    """Test scores as a table or as JSON."""
    from valence.evaluation.classification import METRICS
    from valence.evaluation.regression import INTENSITY_METRICS

    titles = {n: m.title for n, m in METRICS.items()}
    titles |= {n: m.title for n, m in INTENSITY_METRICS.items()}
    if as_json:
        console.print_json(scores)
        return
    rows = [
        [titles.get(name, name.replace("f1/", "F1 of ")),
         "–" if value is None else f"{value:.3f}"]
        for name, value in scores.items()
    ]  # fmt: skip
    console.print_table(["test score", "value"], rows)
