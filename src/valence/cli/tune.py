"""``valence tune``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valence.cli import console
from valence.cli.options import (
    DataOptions,
    Encoder,
    OptionGroup,
    Seed,
    TrackedRunsOptions,
    TrainingHardware,
    encoder_settings,
    with_groups,
)
from valence.cli.tables import print_table

if TYPE_CHECKING:
    from valence.tuning.tune import Observer, TuningConfig, TuningPlan, TuningResult


@dataclass(frozen=True, kw_only=True)
class StudyOptions(OptionGroup):
    """How a study is made, and where it is stored."""

    trials: Annotated[
        int | None, typer.Option(min=1, help="Total trials, including earlier calls.")
    ] = None
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs per trial.")] = None
    sample: Annotated[
        float | None, typer.Option(help="Fraction of the training rows to use in trials.")
    ] = None
    space: Annotated[
        Path | None, typer.Option(help="Search space in YAML, one section per method.")
    ] = None
    storage: Annotated[
        str | None,
        typer.Option(help="postgresql://… or journal://FILE; default: an SQLite file."),
    ] = None
    study: Annotated[
        str | None, typer.Option(help="Name of the study; default: data and method.")
    ] = None
    workers: Annotated[int, typer.Option(min=1, help="Parallel processes.")] = 1
    seed: Seed = 45
    final: Annotated[
        bool, typer.Option("--final/--no-final", help="Train a final model with the best settings.")
    ] = True

    def plan(self) -> TuningPlan:
        """The space file's plan, changed by options.

        Raises:
            SpecError: if the file cannot be read.
        """
        from valence.tuning.tune import TuningPlan, read_tuning_plan

        plan = read_tuning_plan(self.space) if self.space is not None else TuningPlan()
        given = {"n_trials": self.trials, "epochs": self.epochs, "sample": self.sample}
        changes: dict[str, Any] = {name: v for name, v in given.items() if v is not None}
        return replace(plan, **changes)

    def config(
        self, study: str, *, data_dir: Path | None, output: TrackedRunsOptions
    ) -> TuningConfig:
        """Where the study of this name reads and writes."""
        from valence.tuning.tune import TuningConfig

        return TuningConfig(
            runs=output.runs, data_dir=data_dir, storage=self.storage, study=study,
            workers=self.workers, seed=self.seed, final=self.final, track=output.track,
        )  # fmt: skip


@with_groups
def tune(
    data: DataOptions,
    method: Annotated[list[str], typer.Option(help="Method; see valence methods. Repeatable.")],
    study: StudyOptions,
    hardware: TrainingHardware,
    output: TrackedRunsOptions,
    encoder: Encoder = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; default: tuning/STUDY.")
    ] = None,
) -> None:
    """Tune a method's settings with Optuna, then train with the best.

    Selects on validation rows; test rows are used once, at the end. Run the same command again to
    resume, or in parallel to share a study.
    """
    from valence.reports.tuning_plots import write_study
    from valence.runs.store import RunStore
    from valence.runs.tracking import log_files
    from valence.tuning import tune as tuning

    output.check()
    settings = {**encoder_settings(encoder), **hardware.settings(), **data.settings()}
    rows, plan = data.spec(data.data), study.plan()
    results: list[TuningResult] = []
    for name in method:
        title = _study_name(study.study, name, several=len(method) > 1)
        title = title or tuning.study_name(name, rows)
        with console.Meter(quiet=output.quiet) as meter:
            result = tuning.tune(
                name, rows, plan=plan, settings=settings,
                config=study.config(title, data_dir=data.data_dir, output=output),
                observer=_observer(meter, name, final=study.final), progress=_final(meter, name),
            )  # fmt: skip
        folder = _folder(out, name, title, several=len(method) > 1)
        store = RunStore(output.runs)
        write_study(store, result, folder)
        log_files(output.track, store, f"tune-{result.name}", sorted(folder.glob("*.*")))
        results.append(result)
        if not output.quiet:
            console.info(f"{name}: {folder}/best.yaml, trials.csv, pictures")
        if result.interrupted:
            console.info("Stopped. Finished work is saved; run the same command again to resume.")
            break
    output.print_place()
    _print(results, output)
    if results[-1].interrupted:
        raise typer.Exit(130)


def _study_name(given: str | None, method: str, *, several: bool) -> str | None:
    """The name of a method's study where one is given."""
    return f"{given}-{method}" if given and several else given


def _folder(out: Path | None, method: str, study: str, *, several: bool) -> Path:
    """The folder of the results."""
    if out is None:
        return Path("tuning") / study
    return out / method if several else out


def _observer(meter: console.Meter, method: str, *, final: bool) -> Observer:
    from valence.tuning.tune import StudyProgress

    finished = -1

    def observe(now: StudyProgress) -> None:
        nonlocal finished
        done = now.count.finished
        words = f"trial {min(done + 1, now.trials)} of {now.trials}"
        if now.best is not None:
            words += f", best {now.best:.3f}"
        words += ", then the final training" if final else ""
        fraction = min(1.0, (done + now.fraction) / now.trials)
        meter.show(
            f"tune {method}", fraction, words, important=done != finished,
            seconds_left=now.seconds_left if done < now.trials else None,
        )  # fmt: skip
        finished = done

    return observe


def _final(meter: console.Meter, method: str) -> Callable[[float, str], None]:
    return lambda fraction, words: meter.show_timed(f"final training {method}", fraction, words)


def _print(results: list[TuningResult], output: TrackedRunsOptions) -> None:
    if output.json:
        console.print_json([_record(result) for result in results])
        return
    columns = ["method", "trials", "pruned", "failed", "validation", "test", "settings"]
    rows = []
    for result in results:
        metric = result.metric
        states = result.trials["state"]
        test = None if result.result is None else result.result.test[metric]
        chosen = ", ".join(f"{p}={_short(v)}" for p, v in result.params.items())
        rows.append(
            [result.best.method, str(len(states)), str((states == "pruned").sum()),
             str((states == "fail").sum()), f"{result.value:.3f}", console.number(test), chosen]
        )  # fmt: skip
    print_table(columns, rows, wide=output.wide)


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
