"""``valence predict`` of many files into a folder, and how any prediction shows its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from valence.cli import console
from valence.cli.options import ClusterOptions
from valence.errors import DataError

if TYPE_CHECKING:
    from valence.inference.bulk.folder import FolderJob, FolderProgress, FolderReport
    from valence.inference.predictor import Predictor


def score_folder(
    job: FolderJob, files: list[Path], engine: str, machines: ClusterOptions, *,
    resume: bool | None, quiet: bool,
) -> None:  # fmt: skip
    """Score files into a folder, by this process or a cluster, and print the outcome.

    Raises:
        DataError: if some could not be scored.
    """
    from valence.inference.bulk.engines import make_engine
    from valence.inference.bulk.folder import predict_folder

    threads = job.hardware.threads or 1
    gpus = 1.0 if job.hardware.device == "cuda" else 0.0
    chosen = make_engine(engine, machines.cluster(cpus=threads, gpus=gpus))
    if engine != "local":  # each takes what it requests of the cluster, and no more
        job = replace(job, hardware=replace(job.hardware, threads=threads))
    job = replace(job, model=job.model.absolute(), out=job.out.absolute())
    with console.Meter(quiet=quiet) as meter:
        report = predict_folder(
            job, files, engine=chosen, resume=resume, observer=_progress_of_files(meter)
        )
    _print_report(report, job.out, quiet=quiet)


def _print_report(report: FolderReport, out: Path, *, quiet: bool) -> None:
    empty = sum(not file.rows and not file.error for file in report.files)
    if not quiet:
        _note(sum(file.before for file in report.files), "rows were already done")
        _note(
            sum(file.truncated for file in report.files), "texts were truncated at the length limit"
        )
        _note(empty, "files have no rows and were skipped")
    for file in report.failures:
        console.info(f"Failed: {file.error}")
    done = len(report.files) - empty - len(report.failures)
    console.info(f"{report.rows} rows of {done} files in {console.duration(report.seconds)}: {out}")
    if report.failures:
        raise DataError(
            f"{len(report.failures)} of {len(report.files)} files failed (reasons above); fix "
            f"them and continue with --resume; finished files are "
            "saved"
        )


def _note(count: int, words: str) -> None:
    if count:
        console.info(f"Note: {count} {words}")


def _progress_of_files(meter: console.Meter) -> Callable[[FolderProgress], None]:
    """Progress by bytes."""

    def show(now: FolderProgress) -> None:
        words = f"{now.done} of {now.files} files, {now.rows} rows"
        meter.show_timed("predict", now.fraction, words)

    return show


def progress_of_rows(meter: console.Meter) -> Callable[[int, int], None]:
    """Progress by rows."""
    return lambda done, total: meter.show_timed(
        "predict", done / max(1, total), f"{done} of {total} rows"
    )


def print_truncated(predictor: Predictor, truncated: int, *, quiet: bool) -> None:
    """Say how many texts were truncated, and what reads them whole."""
    if truncated and not quiet:
        limit = predictor.model.max_tokens
        more = "" if predictor.long == "windows" else "; use --long windows to read them whole"
        console.info(f"Note: {truncated} texts were truncated at {limit} tokens{more}")
