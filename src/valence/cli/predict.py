"""``valence predict``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from valence.cli import console
from valence.cli.compare import Json, Query, Quiet, TableName, TextColumn
from valence.errors import DataError

if TYPE_CHECKING:
    from valence.inference.predictor import Predictor
    from valence.inference.stream import StreamOptions

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
        typer.Argument(help="A file or database URL, or texts; lines of stdin when none."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="File or database URL for the scored rows.")
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
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Label texts, a clip, or every row of a CSV, TSV, JSONL or Parquet file or of a database.

    All columns are kept; label and one probability per class are added.
    """
    from valence.inference.predictor import Predictor, Speed
    from valence.inference.stream import StreamOptions

    given = list(inputs or [])
    source = _source(given, out)
    speed = Speed(threads, device, precision, batch_tokens)
    predictor = Predictor(model, long=long, speed=speed)
    if target_prior is not None:
        from valence.inference.calibration import parse_shares

        predictor.calibration = predictor.calibration.towards(parse_shares(target_prior))
    if source is not None and out is not None:
        options = StreamOptions(text_column, query, table, to_table, resume)
        _stream(predictor, source, out, options, quiet=quiet)
        return
    clip = given[0] if len(given) == 1 and _is_clip(given[0]) else None
    texts = [text or ""] if clip else _texts([*given, *([text] if text else [])])
    with console.Meter(quiet=quiet) as meter:
        if clip is not None:
            found = predictor.clip_columns(clip, texts[0])
        else:
            found = predictor.columns(texts, _told(meter))
    _tell_cut(predictor, predictor.truncated, quiet=quiet)
    _print(texts, found, as_json=json)


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


def _is_clip(name: str) -> bool:
    return Path(name).suffix.lower() in CLIP_SUFFIXES and Path(name).is_file()


def _texts(given: list[str]) -> list[str]:
    """The texts given, or the lines of stdin."""
    texts = given or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not texts:
        raise DataError("There is no text; give some, or a file, or lines on stdin")
    return texts


def _source(given: list[str], out: str | None) -> str | None:
    """The table to be scored, if it is one and no text."""
    from valence.data.files import SUFFIXES
    from valence.sqlurl import is_sql_url

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


def _stream(
    predictor: Predictor, source: str, out: str, options: StreamOptions, *, quiet: bool
) -> None:
    from valence.inference.stream import predict_stream

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
        limit = predictor.config.spec.encoder.max_length
        more = "" if predictor.long == "windows" else "; --long windows reads them whole"
        console.say(f"Note: {truncated} texts were cut at {limit} tokens{more}")
