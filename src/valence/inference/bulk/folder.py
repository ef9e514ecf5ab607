"""Scoring many files into a folder: one scored file per given one, under the same name.

Every engine does a file as :func:`valence.inference.bulk.stream.predict_stream` does it, parts and
all. What a finished file was made from, and what it holds, is recorded in ``.done`` in the folder;
a file counts as finished when its record is there and both hashes are right.
"""

from __future__ import annotations

import glob
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from valence.errors import DataError, RunError, ValenceError
from valence.inference.bulk.checkpoint import PartRecord, Parts, file_digest
from valence.inference.bulk.parts import ADVICE, writing
from valence.inference.bulk.readers import open_source
from valence.inference.bulk.stream import PART_ROWS, StreamOptions, model_digest, predict_stream
from valence.inference.bulk.writers import SUFFIXES, open_sink
from valence.models.base import Progress
from valence.models.config_file import read_config
from valence.storage import atomic

if TYPE_CHECKING:
    from valence.distributed.device import Hardware
from valence.inference.predictor import Predictor

DONE = ".done"


@dataclass(frozen=True)
class FolderJob:
    """How every file is scored; goes to other processes, so its paths are absolute.

    Attributes:
        model: The model folder.
        out: The folder for scored files.
        hardware: How the model is run.
        long: What is done with long texts.
        text_column: Column with the texts.
        target_prior: Class priors of the texts, as ``valence predict`` takes them.
        part_rows: Rows held at once.
        encoding: Of text files; UTF-8 when None.
        safe_csv: As for :class:`StreamOptions`.
    """

    model: Path
    out: Path
    hardware: Hardware
    long: str = "cut"
    text_column: str | None = None
    target_prior: str | None = None
    part_rows: int = PART_ROWS
    encoding: str | None = None
    safe_csv: bool = False


@dataclass(frozen=True)
class FileDone:
    """The outcome of a file.

    Attributes:
        name: The file given.
        rows: Rows in it, and in the scored one.
        before: Rows that had been scored by an earlier call or a lost worker.
        truncated: Texts that were truncated.
        error: Why it could not be scored; empty where it was.
    """

    name: str
    rows: int = 0
    before: int = 0
    truncated: int = 0
    error: str = ""


@dataclass(frozen=True)
class FolderProgress:
    """How far it is.

    Attributes:
        done: Files that are finished.
        files: All files.
        fraction: Part of the bytes of the given files that is done.
        rows: Rows of the finished files.
    """

    done: int
    files: int
    fraction: float
    rows: int


@dataclass
class FolderReport:
    """What was done.

    Attributes:
        files: One entry per file given.
        seconds: Time taken.
    """

    files: list[FileDone] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """Rows of all scored files."""
        return sum(file.rows for file in self.files)

    @property
    def failures(self) -> list[FileDone]:
        """Files that could not be scored."""
        return [file for file in self.files if file.error]


Done = Callable[[FileDone], None]


class Engine(Protocol):
    """Scores files."""

    def score(self, job: FolderJob, files: Sequence[Path], done: Done, progress: Progress) -> None:
        """Score all; ``done`` is called at the end of each, ``progress`` within one if possible."""
        ...


def find_tables(given: Sequence[str]) -> list[Path]:
    """The tables of files, patterns and folders, sorted within each.

    Raises:
        DataError: if there is none, or two would be written under one name.
    """
    paths: list[Path] = []
    for name in given:
        path = Path(name)
        if path.is_dir():
            paths += sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        elif path.exists():
            paths.append(path)
        else:
            matches = sorted(glob.glob(name))
            if not matches:
                raise DataError(f"File {name} does not exist; check the path")
            paths += [Path(match) for match in matches]
    files = [path for path in dict.fromkeys(paths) if not path.name.startswith(".")]
    names: dict[str, Path] = {}
    for path in files:
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(f"{path}: cannot read {path.suffix or 'no suffix'}; remove it")
        other = names.setdefault(path.name, path)
        if other != path:
            raise DataError(f"{other} and {path} have the same name; use different output folders")
    if not files:
        raise DataError(f"No tables found in {', '.join(given)}; check the path")
    return files


def predict_folder(
    job: FolderJob,
    files: Sequence[Path],
    *,
    engine: Engine,
    resume: bool | None = None,
    observer: Callable[[FolderProgress], None] | None = None,
) -> FolderReport:
    """Score every file into the folder of the job; a broken file does not stop the others.

    Rows are counted in each file before and in its scored one after; none is lost or doubled.

    Args:
        job: What is done.
        files: Tables, as :func:`find_tables` gives them.
        engine: Who does it.
        resume: Whether to go on after a kill; None refuses to choose where something is done.
        observer: Called with the progress.

    Raises:
        DataError: if the folder cannot be used, or holds what another job did.
        RunError: if the engine cannot begin, or leaves files out.
    """
    clock = time.monotonic()
    files = [path.absolute() for path in files]
    if any(path.resolve().parent == job.out.resolve() for path in files):
        raise DataError(f"The output folder {job.out} contains the input files; use another")
    _open(job, files, resume)
    sizes = {str(path): max(1, path.stat().st_size) for path in files}
    report = FolderReport()
    whole = sum(sizes.values())

    def notify(begun: float) -> None:
        if observer is not None:
            ready = sum(sizes[file.name] for file in report.files) + begun
            done = len(report.files)
            observer(FolderProgress(done, len(files), min(1.0, ready / whole), report.rows))

    def done(file: FileDone) -> None:
        report.files.append(file)
        notify(0.0)

    def progress(rows: int, total: int) -> None:
        place = min(len(report.files), len(files) - 1)
        notify(sizes[str(files[place])] * rows / max(1, total))

    engine.score(job, files, done, progress)
    if sorted(file.name for file in report.files) != sorted(sizes):
        raise RunError(
            f"{len(report.files)} of {len(files)} files were returned; continue with --resume"
        )
    report.seconds = time.monotonic() - clock
    return report


class Finished(Parts):
    """Records of the finished files of a folder; parts of unfinished ones count as done too.

    Args:
        out: The folder.
        names: Names of the files of this job.
    """

    def __init__(self, out: Path, names: Sequence[str]) -> None:
        super().__init__(out / DONE, "")
        self.out = out
        self.names = names

    def records(self) -> list[PartRecord]:
        """Records in no order; whether a file is whole is checked file by file."""
        records = [record for name in self.names if (record := self.find(name)) is not None]
        for parts in self.unfinished():
            records += parts.records()
        return records

    def unfinished(self) -> list[Parts]:
        """The parts of files that a kill left."""
        sinks = [open_sink(str(self.out / name)) for name in self.names]
        return [Parts(s.parts_folder(), s.suffix) for s in sinks if s.parts_folder().is_dir()]

    def find(self, name: str) -> PartRecord | None:
        """The record of a file, or None."""
        try:
            return PartRecord(**json.loads((self.folder / f"{name}.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def save(self, name: str, record: PartRecord) -> None:
        """Record that a file is finished."""
        path = self.folder / f"{name}.json"
        atomic.write_text(path, json.dumps(asdict(record)), advice=ADVICE)


def _open(job: FolderJob, files: Sequence[Path], resume: bool | None) -> None:
    """Make the folder, and clear away what another job left where this one begins anew."""
    read_config(job.model)  # a wrong model is said once, not for every file
    with writing(job.out):
        job.out.mkdir(parents=True, exist_ok=True)
    finished = Finished(job.out, [path.name for path in files])
    settings = {
        "model": model_digest(job.model),
        "long": job.long,
        "text column": job.text_column,
        "target prior": job.target_prior,
        "precision": job.hardware.precision,
        "encoding": job.encoding,
        "part size": job.part_rows,
        **({"safe csv": True} if job.safe_csv else {}),
    }
    if not finished.open(settings, resume=resume):
        for parts in finished.unfinished():
            shutil.rmtree(parts.folder, ignore_errors=True)


class FileScorer:
    """Scores one file after another; the model is loaded for the first that needs it."""

    def __init__(self, job: FolderJob) -> None:
        self.job = job
        self._predictor: Predictor | None = None

    def score(self, path: Path, progress: Progress | None = None) -> FileDone:
        """Score a file unless it is finished; what breaks it is returned and not raised."""
        try:
            return self._score(path, progress)
        except ValenceError as error:
            return FileDone(str(path), error=str(error))

    def _score(self, path: Path, progress: Progress | None) -> FileDone:
        target = self.job.out / path.name
        finished = Finished(self.job.out, [path.name])
        source = file_digest(path)
        known = finished.find(path.name)
        if known is not None and known.source == source and _is_whole(target, known):
            return FileDone(str(path), known.rows, known.rows, known.truncated)
        rows = count_rows(path, self.job.encoding)
        if not rows:  # there is nothing to add columns to
            finished.save(path.name, PartRecord(0, [], 0, source, ""))
            return FileDone(str(path))
        options = StreamOptions(
            text_column=self.job.text_column, resume=True, part_rows=self.job.part_rows,
            encoding=self.job.encoding, safe_csv=self.job.safe_csv,
        )  # fmt: skip
        begun = bool(finished.unfinished())
        try:
            report = predict_stream(self.predictor, path, target, options=options,
                                    progress=progress)  # fmt: skip
        except DataError:
            if not begun:
                raise
            for parts in finished.unfinished():  # of rows that have changed since
                parts.remove()
            report = predict_stream(self.predictor, path, target, options=options,
                                    progress=progress)  # fmt: skip
        scored = count_rows(target)
        if not rows == report.rows == scored:
            target.unlink()
            raise DataError(
                f"{path} has {rows} rows but {target} has {scored}; did the file change?"
            )
        record = PartRecord(rows, [], report.truncated, source, file_digest(target))
        finished.save(path.name, record)
        return FileDone(str(path), rows, report.resumed, report.truncated)

    @property
    def predictor(self) -> Predictor:
        """The model."""
        if self._predictor is None:
            from valence.inference.calibration import parse_prior
            from valence.inference.predictor import Predictor

            job = self.job
            self._predictor = Predictor(job.model, long=job.long, hardware=job.hardware)
            if job.target_prior is not None:
                fitted = self._predictor.calibration
                self._predictor.calibration = fitted.with_target_prior(
                    parse_prior(job.target_prior)
                )
        return self._predictor


def count_rows(path: Path, encoding: str | None = None) -> int:
    """Rows of a table, counted by reading it."""
    source = open_source(str(path), encoding=encoding)
    return sum(len(part) for part in source.parts(PART_ROWS))


def _is_whole(target: Path, record: PartRecord) -> bool:
    if not record.rows:
        return True
    try:
        return file_digest(target) == record.digest
    except OSError:
        return False
