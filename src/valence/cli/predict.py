"""``valence predict``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from valence.cli import console
from valence.cli.compare import (
    Json,
    Query,
    Quiet,
    RayAddress,
    TableName,
    TextColumn,
    Workers,
)
from valence.errors import DataError, SpecError

if TYPE_CHECKING:
    from valence.inference.bulk.folder import FolderJob, FolderProgress
    from valence.inference.bulk.stream import StreamOptions
    from valence.inference.predictor import Predictor

CLIP_SUFFIXES = (
    ".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4a", ".mp3", ".wav", ".flac", ".ogg", ".aac",
)  # fmt: skip
Long = Annotated[
    Literal["cut", "windows"],
    typer.Option(help="Texts over the limit: cut, or read in windows whose shares are averaged."),
]
Precision = Annotated[
    Literal["fp32", "bf16", "auto"],
    typer.Option(help="Of torch models; auto: bfloat16 on a GPU that has it."),
]


def predict(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders or a database URL, or texts; else lines of stdin."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="File, folder or database URL for the scored rows.")
    ] = None,
    text_column: TextColumn = None,
    query: Query = None,
    table: TableName = None,
    to_table: Annotated[
        str | None, typer.Option(help="The new table, where --out is a database; scored.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="A text; beside a clip, what is said in it.")
    ] = None,
    target_prior: Annotated[
        str | None, typer.Option(help="Class shares of these texts: good=0.7,bad=0.3.")
    ] = None,
    long: Long = "cut",
    resume: Annotated[
        bool | None, typer.Option(help="Go on after a kill, or begin anew; parts are kept.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads; all usable.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Precision = "fp32",
    batch_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of a batch; suits the device.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="For files into a folder: local, or ray, a cluster.")
    ] = "local",
    workers: Workers = None,
    ray_address: RayAddress = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Label texts, a clip, or every row of a CSV, TSV, JSONL or Parquet file or of a database.

    All columns are kept; label and one probability per class are added. Several files, or a
    folder of them, go into a folder, each under its own name.
    """
    from valence.distributed.device import Hardware
    from valence.inference.bulk.stream import StreamOptions
    from valence.inference.predictor import Predictor

    given = list(inputs or [])
    hardware = Hardware(threads, device, precision, batch_tokens)
    files = _files(given, out, engine)
    if files is not None and out is not None:
        from valence.inference.bulk.folder import FolderJob

        job = FolderJob(model, Path(out), hardware, long, text_column, target_prior)
        asked = {"query": query, "table": table, "to_table": to_table, "text": text}
        _folder(job, files, asked, (engine, workers, ray_address), resume, quiet=quiet)
        return
    source = _source(given, out)
    predictor = _towards(Predictor(model, long=long, hardware=hardware), target_prior)
    if source is not None and out is not None:
        options = StreamOptions(text_column, query, table, to_table, resume)
        _stream(predictor, source, out, options, quiet=quiet)
        return
    _label(predictor, given, text, as_json=json, quiet=quiet)


def _towards(predictor: Predictor, prior: str | None) -> Predictor:
    """The same for texts with other shares of the classes."""
    if prior is not None:
        from valence.inference.calibration import parse_shares

        predictor.calibration = predictor.calibration.towards(parse_shares(prior))
    return predictor


def _label(
    predictor: Predictor, given: list[str], text: str | None, *, as_json: bool, quiet: bool
) -> None:
    """Print what is said of single texts or of a clip."""
    clip = given[0] if len(given) == 1 and is_clip(given[0]) else None
    texts = [text or ""] if clip else texts_of([*given, *([text] if text else [])])
    with console.Meter(quiet=quiet) as meter:
        if clip is not None:
            found = predictor.clip_columns(clip, texts[0])
        else:
            found = predictor.columns(texts, _told(meter))
    _tell_cut(predictor, predictor.truncated, quiet=quiet)
    _print(texts, found, as_json=as_json)


def _print(texts: list[str], found: Mapping[str, list[Any]], *, as_json: bool) -> None:
    records = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
    if as_json:
        console.print_json([{"text": t, **r} for t, r in zip(texts, records, strict=True)])
        return
    cells = [
        [value if isinstance(value, str) else f"{value:.3f}" for value in record.values()]
        for record in records
    ]
    console.print_table([*found, "text"], [[*c, t] for c, t in zip(cells, texts, strict=True)])


def is_clip(name: str) -> bool:
    """Whether it is a sound or video file."""
    return Path(name).suffix.lower() in CLIP_SUFFIXES and Path(name).is_file()


def texts_of(given: list[str]) -> list[str]:
    """The texts given, or the lines of stdin."""
    texts = given or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not texts:
        raise DataError("There is no text; give some, or a file, or lines on stdin")
    return texts


def _source(given: list[str], out: str | None) -> str | None:
    """The table to be scored, if it is one and no text."""
    from valence.config.database_url import is_sql_url
    from valence.data.files import SUFFIXES

    if len(given) != 1:
        return None
    url = is_sql_url(given[0])
    if not url and Path(given[0]).suffix.lower() not in SUFFIXES:
        return None
    if out is None:
        raise DataError(f"Say where the scored rows of {given[0]} go: --out scored.csv")
    if not url and not Path(given[0]).exists():
        raise DataError(f"No file {given[0]}; check the path")
    return given[0]


def _files(given: list[str], out: str | None, engine: str) -> list[Path] | None:
    """The tables that go into a folder, or None where it is one file, or texts."""
    from valence.config.database_url import is_sql_url
    from valence.data.files import SUFFIXES
    from valence.inference.bulk.folder import find_tables

    tables = [
        name for name in given
        if not is_sql_url(name) and (Path(name).suffix.lower() in SUFFIXES or Path(name).is_dir())
    ]  # fmt: skip
    folder = out is not None and not is_sql_url(out) and not Path(out).suffix
    many = len(tables) > 1 or any(Path(name).is_dir() or "*" in name for name in tables)
    if tables and len(tables) == len(given) and (folder or many):
        if not folder:
            raise DataError("Several files go into a folder: --out scored/")
        return find_tables(given)
    if engine != "local":
        raise SpecError(f"--engine {engine} scores files into a folder: parts/*.csv --out scored/")
    return None


def _folder(
    job: FolderJob, files: list[Path], asked: Mapping[str, str | None],
    by: tuple[str, int | None, str | None], resume: bool | None, *, quiet: bool,
) -> None:  # fmt: skip
    from valence.distributed.ray_cluster import Cluster
    from valence.inference.bulk.engines import make_engine
    from valence.inference.bulk.folder import predict_folder

    for name, value in asked.items():
        if value is not None:
            raise SpecError(f"--{name.replace('_', '-')} does not go with files into a folder")
    name, workers, address = by
    threads = job.hardware.threads
    gpus = 1.0 if job.hardware.device == "cuda" else 0.0
    engine = make_engine(name, Cluster(address, workers, threads or 1, gpus))
    if name != "local":  # each takes what it asks the cluster for, and no more
        job = replace(job, hardware=replace(job.hardware, threads=threads or 1))
    job = replace(job, model=job.model.absolute(), out=job.out.absolute())
    with console.Meter(quiet=quiet) as meter:
        told = _told_files(meter)
        report = predict_folder(job, files, engine=engine, resume=resume, observer=told)
    before = sum(file.before for file in report.files)
    empty = sum(not file.rows and not file.error for file in report.files)
    if not quiet:
        _note(before, "rows were done before")
        _note(sum(file.truncated for file in report.files), "texts were cut at the length limit")
        _note(empty, "files have no rows and were left out")
    for file in report.failures:
        console.say(f"Failed: {file.error}")
    done = len(files) - empty - len(report.failures)
    console.say(
        f"{report.rows} rows of {done} files in {console.duration(report.seconds)}: {job.out}"
    )
    if report.failures:
        raise DataError(
            f"{len(report.failures)} of {len(files)} files failed (reasons above); mend them and "
            "go on with --resume, finished files are kept"
        )


def _note(count: int, words: str) -> None:
    if count:
        console.say(f"Note: {count} {words}")


def _told_files(meter: console.Meter) -> Callable[[FolderProgress], None]:
    """Progress with the time left, by the bytes since the first news."""
    start = time.monotonic()
    first: list[float] = []

    def told(now: FolderProgress) -> None:
        first.append(now.share) if not first else None
        words = f"{now.done} of {now.files} files, {now.rows} rows"
        done = now.share - first[0] if len(first) else 0.0
        if done > 0 and now.share < 1:
            left = (time.monotonic() - start) / done * (1 - now.share)
            words += f", {console.duration(left)} left"
        meter.show("predict", now.share, words)

    return told


def _stream(
    predictor: Predictor, source: str, out: str, options: StreamOptions, *, quiet: bool
) -> None:
    from valence.inference.bulk.stream import predict_stream

    with console.Meter(quiet=quiet) as meter:
        report = predict_stream(predictor, source, out, options=options, progress=_told(meter))
    if report.resumed and not quiet:
        console.say(f"Note: {report.resumed} rows were done before")
    _tell_cut(predictor, report.truncated, quiet=quiet)
    if not quiet:
        console.say(f"{report.rows} rows in {console.duration(report.seconds)}: {out}")


def _told(meter: console.Meter) -> Callable[[int, int], None]:
    """Progress with the time left, by the speed since the first news."""
    begun: list[tuple[float, int]] = []

    def told(done: int, total: int) -> None:
        now = time.monotonic()
        begun.append((now, done)) if not begun else None
        start, before = begun[0]
        words = f"{done} of {total} rows"
        if done > before and done < total:
            left = (now - start) / (done - before) * (total - done)
            words += f", {console.duration(left)} left"
        meter.show("predict", done / max(1, total), words)

    return told


def _tell_cut(predictor: Predictor, truncated: int, *, quiet: bool) -> None:
    if truncated and not quiet:
        limit = predictor.model.max_tokens
        more = "" if predictor.long == "windows" else "; --long windows reads them whole"
        console.say(f"Note: {truncated} texts were cut at {limit} tokens{more}")
