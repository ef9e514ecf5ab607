"""Scoring a whole table as a stream: :func:`predict_stream`.

Memory does not grow with the table. Finished parts are written beside the target (see
``valence.inference.bulk.checkpoint``), and the target appears when all are there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valence.config.database_url import is_sql_url
from valence.data.blank import is_blank
from valence.data.columns import guess_text_column, is_row
from valence.data.files import TEXT_COLUMNS, find_column, usual_column
from valence.data.formats import reading_note, table_file
from valence.data.plain_values import is_nested, text_of_bytes, unwrapped
from valence.errors import DataError
from valence.inference.bulk.checkpoint import (
    PartRecord,
    Parts,
    exclusive_writer,
    file_digest,
    texts_digest,
)
from valence.inference.bulk.readers import Part, RowReader, open_source
from valence.inference.bulk.writers import Sink, open_sink
from valence.models.base import Progress

if TYPE_CHECKING:
    from valence.inference.predictor import Predictor

PART_ROWS = 4096  # enough to sort texts by length, few enough to lose little by a kill
GIVEN = "_given"
REPORTS = "report"
"""Folder in a model folder that does not belong to the model."""


@dataclass(frozen=True)
class StreamOptions:
    """How a table is read and written.

    Attributes:
        text_column: Column with the texts.
        query: A SELECT whose rows are read, of a database.
        table: The table that is read, of a database with several.
        to_table: The table that is written, where the target is a database.
        resume: Whether to go on from the parts of a killed job; None refuses where there are some.
        part_rows: Rows held at once.
        encoding: Of a text file; UTF-8 when None.
        has_header: Whether the first line of a CSV names the columns.
        query_timeout: Seconds that a database may work on the rows; 300 when None.
        safe_csv: Whether cells of a CSV or TSV target that a spreadsheet would carry out are
            marked as text.
    """

    text_column: str | None = None
    query: str | None = None
    table: str | None = None
    to_table: str | None = None
    resume: bool | None = None
    part_rows: int = PART_ROWS
    encoding: str | None = None
    has_header: bool = True
    query_timeout: float | None = None
    safe_csv: bool = False


@dataclass(frozen=True)
class StreamReport:
    """What was done.

    Attributes:
        rows: Rows of the target.
        resumed: Rows that an earlier call had done.
        truncated: Texts truncated at the length limit.
        seconds: Time taken.
        notes: What was found out to read the source: its column of texts, separator, sheet.
    """

    rows: int
    resumed: int
    truncated: int
    seconds: float
    notes: tuple[str, ...] = ()


def predict_file(
    predictor: Predictor,
    source: str | Path,
    target: str | Path,
    *,
    text_column: str | None = None,
    progress: Progress | None = None,
) -> int:
    """As :func:`predict_stream` from the beginning; gives the number of rows."""
    options = StreamOptions(text_column=text_column, resume=False)
    report = predict_stream(predictor, source, target, options=options, progress=progress)
    predictor.truncated = report.truncated
    return report.rows


def predict_stream(
    predictor: Predictor,
    source: str | Path,
    target: str | Path,
    *,
    options: StreamOptions | None = None,
    progress: Progress | None = None,
) -> StreamReport:
    """Score every row of a table; all columns are kept, in their order and as they are.

    Columns ``label`` and ``prob_<class>`` are added; columns of the source with such a name
    get ``_given`` behind it. Rows without a text get no label.

    Args:
        predictor: The model.
        source: CSV, TSV, JSONL or Parquet file, or the URL of a database.
        target: The same; need not be of the source's kind.
        options: How.
        progress: Called with (done, total) rows; how many there are is an estimate until the end.

    Raises:
        DataError: if the source cannot be read or the target cannot be written.
        SpecError: if a URL is wrong.
    """
    options = options or StreamOptions()
    rows = open_source(
        str(source),
        query=options.query,
        table=options.table,
        query_timeout=options.query_timeout,
        encoding=options.encoding,
        has_header=options.has_header,
    )
    sink = open_sink(str(target), table=options.to_table, safe_csv=options.safe_csv)
    _refuse_own_source(str(source), str(target))
    sink.check()
    with exclusive_writer(sink.parts_folder()):
        return _streamed(predictor, rows, sink, options, progress)


def _refuse_own_source(source: str, target: str) -> None:
    file = table_file(Path(source))
    if file.is_file() and Path(target).exists() and file.samefile(target):
        raise DataError(f"{target} is the input file; use another --out")


def _streamed(
    predictor: Predictor, rows: RowReader, sink: Sink, options: StreamOptions,
    progress: Progress | None,
) -> StreamReport:  # fmt: skip
    clock = time.monotonic()
    note = "" if is_sql_url(rows.name) else reading_note(Path(rows.name), options.encoding)
    parts = Parts(sink.parts_folder(), sink.suffix)
    records = parts.open(_job(predictor, rows, sink, options), resume=options.resume)
    resumed = sum(record.rows for record in records)
    stream = _StreamScorer(predictor, parts, sink, options, progress)
    stream.notes += filter(None, [note])
    try:
        records = stream.run(rows, records)
        if not records:
            raise DataError(f"{rows.name} has no rows; there is nothing to score")
        files = [parts.file(number) for number in range(len(records))]
        sink.join(files, [record.names for record in records])
    except Exception:
        if not stream.written and not resumed:
            parts.remove()
        raise
    parts.remove()
    return StreamReport(
        sum(record.rows for record in records),
        resumed,
        sum(record.truncated for record in records),
        time.monotonic() - clock,
        tuple(stream.notes),
    )


class _StreamScorer:
    """Scores the parts of a source that are not done yet."""

    def __init__(
        self, predictor: Predictor, parts: Parts, sink: Sink, options: StreamOptions,
        progress: Progress | None,
    ) -> None:  # fmt: skip
        self.predictor = predictor
        self.parts = parts
        self.sink = sink
        self.options = options
        self.progress = progress
        self.written = 0
        self.column = options.text_column
        self.notes: list[str] = []

    def run(self, source: RowReader, known: list[PartRecord]) -> list[PartRecord]:
        """Records of all parts; those of ``known`` are only checked against their texts."""
        records: list[PartRecord] = []
        done = 0
        for number, part in enumerate(source.parts(self.options.part_rows)):
            texts = self._texts(part, source.name, done)
            digest = texts_digest(texts)
            total = max(done + len(part), round((done + len(part)) / part.fraction_read))
            if number < len(known):
                if known[number].source != digest or known[number].rows != len(part):
                    raise DataError(
                        f"{source.name} has changed since the {sum(r.rows for r in known)} rows "
                        "that are done; start over with --no-resume"
                    )
                records.append(known[number])
            else:
                records.append(
                    self._score(
                        number, part, texts, digest, self._progress_from(done, len(part), total)
                    )
                )
            done += len(part)
            if self.progress is not None:
                self.progress(done, total)
        if len(records) < len(known):
            raise DataError(
                f"{source.name} has fewer rows than are done; start over with --no-resume"
            )
        return records

    def _score(
        self, number: int, part: Part, texts: list[str], digest: str, progress: Progress
    ) -> PartRecord:
        filled = [i for i, text in enumerate(texts) if not is_blank(text)]
        columns = self.predictor.columns([texts[i] for i in filled], progress)
        truncated = self.predictor.truncated
        added = {name: _spread(values, filled, len(texts)) for name, values in columns.items()}
        scored = _with_columns(part, added)
        record = PartRecord(len(part), scored.names, truncated, digest, "")
        written = self.parts.add(number, record, lambda file: self.sink.write(scored, file))
        self.written += 1
        return written

    def _texts(self, part: Part, where: str, before: int) -> list[str]:
        if self.column is None:
            self.column = self._choose(part, where)
        if self.column not in part.names and where.endswith(".jsonl"):
            return [""] * len(part)  # no row of this part has the column
        name = find_column(part.names, self.column, TEXT_COLUMNS, what="text", where=where)
        if part.names.count(name) > 1:
            raise DataError(f"{where}: several columns are named {name!r}; rename all but one")
        values = part.values(part.names.index(name))
        if any(map(is_nested, values)):
            note = f"{where}: every text is read from a list of one value"
            self.notes += [note] * (note not in self.notes)
            values = [unwrapped(v, before + i, where, "text") for i, v in enumerate(values, 1)]
        return ["" if value is None else str(text_of_bytes(value, where)) for value in values]

    def _choose(self, part: Part, where: str) -> str:
        """That of the training if it is there, else a usual one, else the longest texts."""
        trained_on = self.predictor.config.data
        name = trained_on.text_column if trained_on is not None else None
        if name is not None and name in part.names:
            self.notes.append(f"texts from column {name!r}, as in training")
            return name
        usual = usual_column(part.names, TEXT_COLUMNS)
        if usual is not None:
            return usual
        columns = {name: part.values(place) for place, name in enumerate(part.names)}
        choice = guess_text_column(columns, where=where)
        if is_row(columns, text=choice.name):
            raise DataError(
                f"{where}: the first line looks like data, not column names; use --no-header, or "
                "set the column with --text-column"
            )
        self.notes.append(
            f"texts from column {choice.name!r} ({choice.reason}); choose another with "
            "--text-column"
        )
        return choice.name

    def _progress_from(self, before: int, rows: int, total: int) -> Progress:
        """Progress of a part of ``rows`` rows, some of which are blank, as that of all."""

        def progress(done: int, of: int) -> None:
            if self.progress is not None:
                self.progress(before + rows * done // max(1, of), total)

        return progress


def _spread(values: list[Any], places: list[int], size: int) -> list[Any]:
    spread: list[Any] = [None] * size
    for place, value in zip(places, values, strict=True):
        spread[place] = value
    return spread


def _with_columns(part: Part, added: dict[str, list[Any]]) -> Part:
    """The part with columns behind its own; those of the same name are renamed."""
    names = []
    for name in part.names:
        given = name
        while given in added or (given != name and given in part.names):
            given += GIVEN
        names.append(given)
    new = [*names, *added]
    if part.arrow is None:
        return Part(new, [*part.columns, *added.values()], part.fraction_read)
    import pyarrow as pa

    arrow = part.arrow.rename_columns(names)
    for name, values in added.items():
        kind = pa.string() if name == "label" else pa.float64()
        arrow = arrow.append_column(name, pa.array(values, type=kind))
    return Part(new, [], part.fraction_read, arrow)


def _job(
    predictor: Predictor, source: RowReader, sink: Sink, options: StreamOptions
) -> dict[str, Any]:
    """What decides the scored rows; parts made under another of these are not gone on from."""
    fitted = predictor.calibration
    return {
        "source": {"name": source.name, **source.identity()},
        "target prior": fitted.target,
        "calibration": texts_digest([fitted.model_dump_json()]),
        "model": model_digest(predictor.folder),
        "target": sink.name,
        "long": predictor.long,
        "precision": predictor.precision,
        "text column": options.text_column,
        "encoding": options.encoding,
        "part size": options.part_rows,
        **({"safe csv": True} if options.safe_csv else {}),
        **({} if options.has_header else {"header": False}),
    }


def model_digest(folder: Path) -> str:
    """Thirty-two hex digits of all files that belong to a model."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return file_digest(*(p for p in files if p.relative_to(folder).parts[0] != REPORTS))
