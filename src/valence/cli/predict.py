"""``valence predict``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from valence.cli import console
from valence.cli.options import (
    ClusterOptions,
    ModelFolder,
    ModelHardware,
    OptionGroup,
    TableOptions,
    TextOptions,
    with_groups,
)
from valence.cli.predict_folder import print_truncated, progress_of_rows, score_folder
from valence.cli.tables import print_table, shorten
from valence.cli.texts import is_clip, is_path, refuse_files, texts_of
from valence.errors import DataError, SpecError

if TYPE_CHECKING:
    from valence.distributed.device import Hardware
    from valence.inference.bulk.stream import StreamOptions
    from valence.inference.predictor import Predictor

PROBABILITY = "prob_"
MOST_PROBABLE = 3  # classes of a text that are shown in a terminal
NOT_OF_A_FOLDER = ("query", "query_timeout", "table", "to_table", "text", "no_header")


@dataclass(frozen=True, kw_only=True)
class ScoringOptions(OptionGroup):
    """What is scored, how, and where the scored rows go."""

    out: Annotated[
        str | None, typer.Option(help="File, folder or database URL for the predictions.")
    ] = None
    safe_csv: Annotated[
        bool,
        typer.Option(
            "--safe-csv", help="Escape cells that a spreadsheet would run as formulas (=, +, -, @)."
        ),
    ] = False
    to_table: Annotated[
        str | None, typer.Option(help="New table, if --out is a database; default: scored.")
    ] = None
    text: Annotated[str | None, typer.Option(help="A text, or the transcript of a clip.")] = None
    target_prior: Annotated[
        str | None, typer.Option(help="Class frequencies of these texts: good=0.7,bad=0.3.")
    ] = None
    long: Annotated[
        Literal["cut", "windows"],
        typer.Option(help="Long texts: cut (truncate), or windows (average over parts)."),
    ] = "cut"
    resume: Annotated[
        bool | None, typer.Option(help="Resume an interrupted run, or start over.")
    ] = None


@with_groups
def predict(
    model: ModelFolder,
    scoring: ScoringOptions,
    source: TextOptions,
    hardware: ModelHardware,
    machines: ClusterOptions,
    output: TableOptions,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders, a database URL or texts; default: the lines of stdin."
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="How to predict files into a folder: local or ray.")
    ] = "local",
) -> None:
    """Predict labels for texts, a clip, files or a database.

    Reads CSV, TSV, JSONL, Parquet, Excel and ODS. Keeps all columns and adds the label and one
    probability per class. Several files go into a folder, under their own names.
    """
    given = list(inputs or [])
    requested = hardware.requested(elsewhere=engine != "local")
    files = _files(given, scoring.out, engine)
    if files is None:
        _predict_here(model, given, scoring, source, requested, output)
        return
    for name in NOT_OF_A_FOLDER:
        if any(getattr(part, name, None) not in (None, False) for part in (scoring, source)):
            raise SpecError(f"--{name.replace('_', '-')} cannot be used with files into a folder")
    from valence.inference.bulk.folder import FolderJob

    job = FolderJob(
        model, Path(str(scoring.out)), requested, scoring.long, source.text_column,
        scoring.target_prior, encoding=source.encoding, safe_csv=scoring.safe_csv,
    )  # fmt: skip
    score_folder(job, files, engine, machines, resume=scoring.resume, quiet=output.quiet)


def _predict_here(
    model: Path, given: list[str], scoring: ScoringOptions, source: TextOptions, hardware: Hardware,
    output: TableOptions,
) -> None:  # fmt: skip
    from valence.inference.bulk.stream import StreamOptions
    from valence.inference.predictor import Predictor

    table = _table(given, scoring.out)
    predictor = Predictor(model, long=scoring.long, hardware=hardware)
    if scoring.target_prior is not None:
        from valence.inference.calibration import parse_prior

        priors = parse_prior(scoring.target_prior)
        predictor.calibration = predictor.calibration.with_target_prior(priors)
    if table is None or scoring.out is None:
        _label(predictor, given, scoring.text, output)
        return
    options = StreamOptions(
        source.text_column, source.query, source.table, scoring.to_table, scoring.resume,
        encoding=source.encoding, query_timeout=source.query_timeout,
        safe_csv=scoring.safe_csv, has_header=not source.no_header,
    )  # fmt: skip
    if scoring.safe_csv and Path(scoring.out).suffix.lower() not in (".csv", ".tsv"):
        raise SpecError(f"--safe-csv works with CSV and TSV files only, not {scoring.out}")
    _stream(predictor, table, scoring.out, options, quiet=output.quiet)


def _label(predictor: Predictor, given: list[str], text: str | None, output: TableOptions) -> None:
    """Print predictions for single texts or a clip."""
    clip = given[0] if len(given) == 1 and is_clip(given[0]) else None
    if clip is None:
        refuse_files(given)
    texts = [text or ""] if clip else texts_of([*given, *([text] if text else [])])
    with console.Meter(quiet=output.quiet) as meter:
        if clip is not None:
            columns = predictor.clip_columns(clip, texts[0])
        else:
            columns = predictor.columns(texts, progress_of_rows(meter))
    print_truncated(predictor, predictor.truncated, quiet=output.quiet)
    _print(texts, columns, output)


def _print(texts: list[str], columns: Mapping[str, list[Any]], output: TableOptions) -> None:
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if output.json:
        console.print_json([{"text": t, **r} for t, r in zip(texts, records, strict=True)])
        return
    if sys.stdout.isatty() and not output.wide:
        _print_best(records, [shorten(text) for text in texts])
        return
    cells = [[_cell(value) for value in record.values()] for record in records]
    rows = [[*own, text] for own, text in zip(cells, texts, strict=True)]
    print_table([*columns, "text"], rows, wide=output.wide)


def _print_best(records: list[dict[str, Any]], texts: list[str]) -> None:
    """The label and the most probable classes of each text, however many classes there are."""
    probabilities = [name for name in records[0] if name.startswith(PROBABILITY)]
    names = [name for name in records[0] if name not in probabilities]
    rows = []
    for record, text in zip(records, texts, strict=True):
        best = sorted(probabilities, key=lambda name: -record[name])[:MOST_PROBABLE]
        shown = [f"{name.removeprefix(PROBABILITY)} {record[name]:.3f}" for name in best]
        most = ["\n".join(shown)] if shown else []
        rows.append([*(_cell(record[name]) for name in names), *most, text])
    heads = [*names, *(["most probable"] if probabilities else []), "text"]
    print_table(heads, rows, keep=heads, wide=False)
    if (hidden := len(probabilities) - MOST_PROBABLE) > 0:
        console.info(f"{hidden} less probable labels are hidden; show all with --wide or --json")


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.3f}"


def _table(given: list[str], out: str | None) -> str | None:
    """The table to be scored, if it is one and no text."""
    from valence.config.database_url import is_sql_url
    from valence.data.formats import is_table, table_file

    if len(given) != 1 or not is_path(given[0]):
        return None
    url = is_sql_url(given[0])
    file = table_file(Path(given[0]))
    if not url and not is_table(file):
        return None
    if not url and not file.exists():
        raise DataError(f"File {file} does not exist; check the path")
    if out is None:
        raise DataError(f"Where should the predictions for {given[0]} go? Add --out scored.csv")
    return given[0]


def _files(given: list[str], out: str | None, engine: str) -> list[Path] | None:
    """The tables that go into a folder, or None where it is one file, or texts."""
    from valence.config.database_url import is_sql_url
    from valence.data.formats import SUFFIXES
    from valence.inference.bulk.folder import find_tables

    names = [name for name in given if not is_sql_url(name) and is_path(name)]
    tables = [n for n in names if Path(n).suffix.lower() in SUFFIXES or Path(n).is_dir()]
    folder = out is not None and not is_sql_url(out) and not Path(out).suffix
    many = len(tables) > 1 or any(
        (name in tables and Path(name).is_dir()) or "*" in name for name in tables
    )
    if tables and len(tables) == len(given) and (folder or many):
        if not folder:
            raise DataError("Several files need a folder: --out scored/")
        return find_tables(given)
    if engine != "local":
        raise SpecError(f"--engine {engine} scores files into a folder: parts/*.csv --out scored/")
    return None


def _stream(
    predictor: Predictor, source: str, out: str, options: StreamOptions, *, quiet: bool
) -> None:
    from valence.inference.bulk.stream import predict_stream

    with console.Meter(quiet=quiet) as meter:
        report = predict_stream(
            predictor, source, out, options=options, progress=progress_of_rows(meter)
        )
    for note in report.notes if not quiet else ():
        console.info(f"Note: {note}")
    if report.resumed and not quiet:
        console.info(f"Note: {report.resumed} rows were already done")
    print_truncated(predictor, report.truncated, quiet=quiet)
    if not quiet:
        console.info(f"{report.rows} rows in {console.duration(report.seconds)}: {out}")
