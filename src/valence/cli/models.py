"""``valence evaluate`` and ``valence predict``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from valence.inference.calibration import Calibration
    from valence.inference.predictor import Predictor

CLIP_SUFFIXES = (
    ".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4a", ".mp3", ".wav", ".flac", ".ogg", ".aac",
)  # fmt: skip


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

    from valence.data.sources import load_split
    from valence.inference.predictor import Predictor
    from valence.reports.records import record_scores
    from valence.spec import DataSpec

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
        "model": predictor.config.spec.method, "mode": "evaluate", "data": data, "rows": len(rows),
        "metrics": scores, "parameters": predictor.config.spec.model_dump(mode="json"),
    }  # fmt: skip
    shown = pd.DataFrame({"text": rows.texts, "label": rows.labels})
    record_scores(out or model / "report", entry, shown, logits, predictor.classes)
    print_scores(scores, as_json=json)


def predict(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    inputs: Annotated[
        list[str] | None, typer.Argument(help="A file, or texts; lines of stdin when none.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the scored rows.")] = None,
    target_prior: Annotated[
        str | None, typer.Option(help="Class shares of these texts: good=0.7,bad=0.3.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="A text; beside a clip, what is said in it.")
    ] = None,
    text_column: TextColumn = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Label texts, a clip, or every row of a CSV, TSV, JSONL or Parquet file."""
    from valence.data.tables import SUFFIXES
    from valence.inference.predictor import Predictor, predict_file

    given = list(inputs or [])
    is_file = len(given) == 1 and Path(given[0]).suffix.lower() in SUFFIXES
    if is_file and out is None:
        raise DataError(f"Say where the scored rows of {given[0]} go: --out scored.csv")
    if is_file and not Path(given[0]).exists():
        raise DataError(f"No file {given[0]}; check the path")
    predictor = Predictor(model)
    predictor.calibration = _towards(predictor, target_prior)
    with console.Meter(quiet=quiet) as meter:

        def told(done: int, total: int) -> None:
            meter.show("predict", done / max(1, total), f"{done} of {total} rows")

        clip = given[0] if len(given) == 1 and _is_clip(given[0]) else None
        if clip is not None:
            texts = [text or ""]
            table: Any = predictor.clip_table(clip, texts[0])
        elif is_file and out is not None:
            count = predict_file(
                predictor, Path(given[0]), out, text_column=text_column, progress=told
            )
            table = None
        else:
            texts = [*given, *([text] if text else [])] or [
                line.rstrip("\n") for line in sys.stdin if line.strip()
            ]
            if not texts:
                raise DataError("There is no text; give some, or a file, or lines on stdin")
            table = predictor.table(texts, told)
    if predictor.truncated and not quiet:
        limit = predictor.config.spec.encoder.max_length
        console.say(f"Note: {predictor.truncated} texts were cut at {limit} tokens")
    if table is None:
        console.say(f"{count} rows: {out}")
        return
    records = table.to_dict(orient="records")
    if json:
        console.print_json([{"text": t, **r} for t, r in zip(texts, records, strict=True)])
        return
    heads = [*table.columns, "text"]
    cells = [
        [row[c] if isinstance(row[c], str) else f"{row[c]:.3f}" for c in table.columns]
        for row in records
    ]
    console.print_table(heads, [[*c, t] for c, t in zip(cells, texts, strict=True)])


def _towards(predictor: Predictor, target_prior: str | None) -> Calibration:
    """The predictor's calibration, for the class shares that are given."""
    from valence.inference.calibration import parse_shares

    found = predictor.calibration
    return found if target_prior is None else found.towards(parse_shares(target_prior))


def _is_clip(name: str) -> bool:
    return Path(name).suffix.lower() in CLIP_SUFFIXES and Path(name).is_file()


def print_scores(scores: dict[str, Any], *, as_json: bool) -> None:
    """Test scores as a table or as JSON."""
    from valence.metrics import METRICS
    from valence.metrics_regression import INTENSITY_METRICS

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
