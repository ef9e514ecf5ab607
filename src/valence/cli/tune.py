"""``valence tune``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from valence.config.data import DataSpec
    from valence.tuning.tune import Observer, TuningPlan, TuningResult


def tune(
    data: Annotated[str, typer.Argument(help="A file, folder, card or hub id.")],
    method: Annotated[list[str], typer.Option(help="A method; see valence methods. Repeatable.")],
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials in all, earlier calls counted.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of a trial.")] = None,
    sample: Annotated[
        float | None, typer.Option(help="Share of the training rows that trials are fitted on.")
    ] = None,
    space: Annotated[Path | None, typer.Option(help="Ranges in YAML, a section a method.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="postgresql://… or journal://FILE; else an SQLite file."),
    ] = None,
    study: Annotated[str | None, typer.Option(help="Name; data and method when none.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that make trials.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 45,
    set_: Settings = None,
    final: Annotated[
        bool, typer.Option("--final/--no-final", help="Train with the best on everything.")
    ] = True,
    data_dir: DataDir = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    query: Query = None,
    table: TableName = None,
    encoder: Encoder = None,
    device: Device = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for what is found; tuning/STUDY when none.")
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Choose settings on validation rows with Optuna; train with the best, test once.

    The same command goes on with a study that was stopped; given twice at once, both share it.
    """
    from valence.config.data import DataSpec
    from valence.reports.tuning_plots import write_study
    from valence.runs.store import RunStore
    from valence.tuning import tune as tuning

    rows = DataSpec(
        name=data, text_column=text_column, label_column=label_column, query=query, table=table
    )
    plan = _plan(space, trials=trials, epochs=epochs, sample=sample)
    given = settings(set_, encoder=encoder, device=device)
    found: list[TuningResult] = []
    for name in method:
        called = _called(name, rows, study, several=len(method) > 1)
        config = tuning.TuningConfig(
            runs=runs, data_dir=data_dir, storage=storage, study=called, workers=workers,
            seed=seed, final=final,
        )  # fmt: skip
        with console.Meter(quiet=quiet) as meter:
            result = tuning.tune(
                name, rows, plan=plan, settings=given, config=config,
                observer=_observer(meter, name), progress=_final(meter, name),
            )  # fmt: skip
        folder = _folder(out, name, called, several=len(method) > 1)
        write_study(RunStore(runs), result, folder)
        found.append(result)
        if not quiet:
            console.say(f"{name}: {folder}/best.yaml, trials.csv, pictures")
        if result.interrupted:
            console.say("Stopped. What is finished is kept; the same command goes on from here.")
            break
    _print(found, as_json=json)
    if found[-1].interrupted:
        raise typer.Exit(130)


def _called(method: str, rows: DataSpec, study: str | None, *, several: bool) -> str:
    """The name of a method's study."""
    from valence.tuning.tune import study_name

    if study is None:
        return study_name(method, rows)
    return f"{study}-{method}" if several else study


def _folder(out: Path | None, method: str, study: str, *, several: bool) -> Path:
    """Where what is found goes."""
    if out is None:
        return Path("tuning") / study
    return out / method if several else out


def _plan(
    space: Path | None, *, trials: int | None, epochs: int | None, sample: float | None
) -> TuningPlan:
    """The space file's plan, changed by options."""
    from valence.tuning.tune import TuningPlan, read_tuning_plan

    plan = read_tuning_plan(space) if space is not None else TuningPlan()
    given = {"n_trials": trials, "epochs": epochs, "sample": sample}
    changes: dict[str, Any] = {name: v for name, v in given.items() if v is not None}
    return replace(plan, **changes)


def _observer(meter: console.Meter, method: str) -> Observer:
    from valence.tuning.tune import StudyProgress

    seen = -1

    def observe(now: StudyProgress) -> None:
        nonlocal seen
        done = now.count.finished
        words = f"trial {min(done + 1, now.trials)} of {now.trials}"
        if now.best is not None:
            words += f", best {now.best:.3f}"
        if now.seconds_left is not None and done < now.trials:
            words += f", about {console.duration(now.seconds_left)} left"
        share = min(1.0, (done + now.share) / now.trials)
        meter.show(f"tune {method}", share, words, important=done != seen)
        seen = done

    return observe


def _final(meter: console.Meter, method: str) -> Callable[[float, str], None]:
    return lambda share, words: meter.show(f"train {method} with the best", share, words)


def _print(found: list[TuningResult], *, as_json: bool) -> None:
    if as_json:
        console.print_json([_record(result) for result in found])
        return
    columns = ["method", "trials", "pruned", "failed", "validation", "test", "settings"]
    rows = []
    for result in found:
        metric = result.metric
        states = result.trials["state"]
        test = None if result.result is None else result.result.test[metric]
        chosen = ", ".join(f"{p}={_short(v)}" for p, v in result.params.items())
        rows.append(
            [result.best.method, str(len(states)), str((states == "pruned").sum()),
             str((states == "fail").sum()), f"{result.value:.3f}",
             "–" if test is None else f"{test:.3f}", chosen]
        )  # fmt: skip
    console.print_table(columns, rows)


def _record(result: TuningResult) -> dict[str, Any]:
    return {
        "method": result.best.method, "study": result.name, "trials": len(result.trials),
        "metric": result.metric, "value": result.value, "params": dict(result.params),
        "importance": dict(result.importance), "interrupted": result.interrupted,
        "run": None if result.result is None else result.result.key,
        "test": None if result.result is None else result.result.test,
    }  # fmt: skip


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
