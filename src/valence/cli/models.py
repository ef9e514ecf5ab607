"""``valence train``, ``valence evaluate`` and ``valence predict``."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from valence.cli import console
from valence.cli.compare import (
    DataDir,
    Device,
    Encoder,
    Json,
    LabelColumn,
    Query,
    Quiet,
    Runs,
    Settings,
    TableName,
    TextColumn,
    settings,
)
from valence.errors import DataError, RunError

CLIP_SUFFIXES = (
    ".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4a", ".mp3", ".wav", ".flac", ".ogg", ".aac",
)  # fmt: skip


def train(
    data: Annotated[str, typer.Argument(help="A file, folder, card or hub id.")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    method: Annotated[str, typer.Option(help="A method; see valence methods.")] = "hy-mora",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 45,
    set_: Settings = None,
    data_dir: DataDir = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    query: Query = None,
    table: TableName = None,
    encoder: Encoder = None,
    device: Device = None,
    runs: Runs = Path("runs"),
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model, choose its weights on validation, report on test, and save it."""
    from valence.methods import make_spec
    from valence.run import run
    from valence.runs import RunStore
    from valence.spec import DataSpec

    rows = DataSpec(
        name=data, text_column=text_column, label_column=label_column, query=query, table=table
    )
    spec = make_spec(
        method, rows, seed=seed, settings=settings(set_, encoder=encoder, device=device)
    )
    store = RunStore(runs)
    with console.Meter(quiet=quiet) as meter:
        result = run(
            spec, store=store, data_dir=data_dir, keep_model=True,
            report=lambda share, words: meter.show(method, share, words),
        )  # fmt: skip
    _copy_model(store.path(result.key) / "model", out)
    if not quiet:
        for note in result.notes:
            console.say(f"Note: {note}")
        console.say(f"Model: {out}   Run: {store.path(result.key)}")
    _print_scores(result.test, as_json=json)


def evaluate(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    data: Annotated[str, typer.Argument(help="A file, folder, card or hub id with labels.")],
    split: Annotated[str, typer.Option(help="Which split, where there are several.")] = "test",
    data_dir: DataDir = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    query: Query = None,
    table: TableName = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a saved model on labelled rows."""
    from valence.data.sources import load_split
    from valence.inference.predictor import Predictor
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
    _print_scores(predictor.evaluate(rows), as_json=json)


def predict(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    inputs: Annotated[
        list[str] | None, typer.Argument(help="A file, or texts; lines of stdin when none.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the scored rows.")] = None,
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


def _is_clip(name: str) -> bool:
    return Path(name).suffix.lower() in CLIP_SUFFIXES and Path(name).is_file()


def _copy_model(source: Path, target: Path) -> None:
    """Put the model at ``target`` whole; what was there is replaced only at the end."""
    scratch = target.with_name(f".{target.name}.writing")
    if target.exists() and not (target / "config.json").exists() and any(target.iterdir()):
        raise RunError(f"{target} is no model folder and not empty; give another --out")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, scratch)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(scratch, target)
    except OSError as error:
        raise RunError(f"Cannot write {target}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _print_scores(scores: dict[str, Any], *, as_json: bool) -> None:
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
