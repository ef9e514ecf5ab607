"""``valence compare``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from valence.cli import console
from valence.cli.compare_report import cell_name, print_difference, report_comparison
from valence.cli.options import (
    ClusterOptions,
    Encoder,
    OptionGroup,
    RowOptions,
    TrackedRunsOptions,
    TrainingHardware,
    check_device,
    comma_separated,
    encoder_settings,
    print_unread,
    with_groups,
)
from valence.cli.tables import print_table
from valence.errors import RunError, SpecError

if TYPE_CHECKING:
    from valence.comparison.executors.base import Executor
    from valence.comparison.grid import Comparison, GridCallback, Outcome
    from valence.config.spec import RunSpec

OWN_DATA_METHODS = "majority,tfidf-lr,linear-probe,lora-balanced,logit-adjust,hy-mora"
OWN_DATA_SEEDS = "3"
TRANSFER_METHOD = "kernel-ridge-encoder"
TRANSFERS = ("matrix", "leave-one-out")
MOST_SEEDS = 30  # one number above it is a seed, not how many
HERE = "local"


class CompareCommand(TyperCommand):
    """``valence compare``, whose option ``--transfer`` may stand without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read ``--transfer`` before anything but its values as ``--transfer matrix``."""
        words: list[str] = []
        for place, word in enumerate(args, start=1):
            words.append(word)
            if word == "--transfer" and (place == len(args) or args[place] not in TRANSFERS):
                words.append(TRANSFERS[0])
        return super().parse_args(ctx, words)


@dataclass(frozen=True, kw_only=True)
class ComparedData(RowOptions):
    """The corpora that are compared on."""

    data: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders, corpus names or hub ids; default: the built-in corpus."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions(OptionGroup):
    """What is compared."""

    config: Annotated[Path | None, typer.Option(help="Comparison in YAML; see configs/.")] = None
    methods: Annotated[
        str | None, typer.Option(help="Methods, comma-separated; see valence methods.")
    ] = None
    seeds: Annotated[
        str | None, typer.Option(help="Number of seeds (up to 30), or a list: 45,123,789.")
    ] = None
    baseline: Annotated[str | None, typer.Option(help="Method to test the others against.")] = None
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="Try several values of a setting: train.epochs=3,6"),
    ] = None
    train_groups: Annotated[
        str | None, typer.Option(help="Groups to train on, if not those to test on.")
    ] = None
    transfer: Annotated[
        str | None,
        typer.Option(
            metavar="[KIND]",
            help="Train on each group alone (matrix), or on all but each (leave-one-out), and test "
            "on every group.",
        ),
    ] = None
    target_rows: Annotated[
        str | None,
        typer.Option(help="With leave-one-out: also train with this many of its rows: 20,100."),
    ] = None
    diff: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="BEFORE AFTER", help="Compare two report folders and exit."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ExecutorOptions(ClusterOptions):
    """Who makes the runs."""

    executor: Annotated[
        str, typer.Option(help="local, or ray (a cluster that shares the --runs folder).")
    ] = HERE
    cpus_per_run: Annotated[float, typer.Option(help="CPU cores per run on Ray.")] = 1.0
    gpus_per_run: Annotated[float, typer.Option(help="GPUs per run on Ray.")] = 0.0

    def made(self) -> Executor:
        """The executor.

        Raises:
            UnknownNameError: if there is none of the name.
            RunError: if a number is not possible.
        """
        from valence.comparison.executors.table import make_executor

        return make_executor(
            self.executor, self.cluster(cpus=self.cpus_per_run, gpus=self.gpus_per_run)
        )


@with_groups
def compare(
    data: ComparedData,
    what: ComparisonOptions,
    hardware: TrainingHardware,
    machines: ExecutorOptions,
    output: TrackedRunsOptions,
    encoder: Encoder = None,
    out: Annotated[Path, typer.Option(help="Folder for the report and tables.")] = Path("report"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and exit.")] = False,
) -> None:
    """Compare methods: same rows and seeds, model selection on validation, one test.

    Reuses finished runs in --runs, prints a leaderboard and writes report.html.
    """
    from valence.comparison import grid
    from valence.comparison.sweep import separate_sweep
    from valence.runs.store import RunStore
    from valence.runs.tracking import log_files

    if what.diff is not None:
        print_difference(*what.diff, output)
        return
    output.check()
    executor = machines.made()
    elsewhere = machines.executor != HERE
    settings = _settings(data, what, encoder, hardware.settings(elsewhere=elsewhere))
    comparison = _transferred(_changed(_comparison(what, data), what), what)
    planned = grid.with_transfer(comparison, settings, data.data_dir)
    specs = grid.plan(planned, settings)
    for device in {spec.get("train.device") for spec in specs} if not elsewhere else ():
        check_device(device)
    if dry_run:
        _print_plan(specs, as_json=output.json)
        return
    store = RunStore(output.runs)
    if not output.quiet:
        console.info(_size(planned, specs))
        print_unread(comparison.methods, settings)
        if comparison.scaled_down:
            names = ", ".join(comparison.scaled_down)
            console.info(
                f"Note: scaled down from a published set-up: {names}; see {what.config} for the "
                f"reasons"
            )
    with console.Meter(quiet=output.quiet) as meter:
        outcome = grid.execute(
            specs, store=store, data_dir=data.data_dir, callback=grid_callback(meter),
            executor=executor, track=output.track,
        )  # fmt: skip
    if not output.quiet:
        print_guessed_columns(outcome)
    plain, swept = separate_sweep(outcome, planned, settings)
    report_comparison(comparison, plain, store, out, output, sweep=swept, failures=outcome.failures)
    if plain:
        name = f"compare-{Path(planned.title or 'demo').stem}"
        log_files(output.track, store, name, [out / "report.html", out / "leaderboard.csv"])
        output.print_place()
    end_grid(outcome, output.runs)


def _size(planned: Comparison, specs: list[RunSpec]) -> str:
    """How many runs there are in all, and of what: ``12 runs: 6 methods × 2 seeds``."""
    counts = {
        "data sets": len(planned.data), "methods": len(set(planned.methods)),
        "seeds": len(set(planned.seeds)),
    }  # fmt: skip
    shown = [f"{n} {what if n != 1 else what[:-1]}" for what, n in counts.items()
             if n != 1 or what != "data sets"]  # fmt: skip
    swept = len(specs) - math.prod(counts.values())
    points = f", and {swept} more at the points of the sweep" if swept > 0 else ""
    return f"{len(specs)} runs: {' × '.join(shown)}{points}"


def _settings(
    data: ComparedData, what: ComparisonOptions, encoder: str | None, hardware: Mapping[str, Any]
) -> dict[str, Any]:
    """The dotted settings of all runs."""
    settings = {**encoder_settings(encoder), **hardware, **data.settings()}
    if what.train_groups:
        settings["data.train_groups"] = comma_separated(what.train_groups)
    return settings


def _transferred(comparison: Comparison, what: ComparisonOptions) -> Comparison:
    """The comparison as a transfer, of frozen features alone where no method was named."""
    from valence.config.spec import build

    if what.transfer is None and what.target_rows is None:
        return comparison
    named = what.methods or comparison.methods != tuple(OWN_DATA_METHODS.split(","))
    changes: dict[str, Any] = {"transfer": what.transfer or comparison.transfer}
    if what.target_rows is not None:
        changes["target_rows"] = _row_counts(what.target_rows)
        if changes["transfer"] != TRANSFERS[1]:
            raise SpecError("--target-rows goes with --transfer leave-one-out; add it")
    if not named:
        changes |= {"methods": (TRANSFER_METHOD,), "baseline": TRANSFER_METHOD}
    return build(type(comparison), {**comparison.model_dump(), **changes})


def _row_counts(text: str) -> tuple[int, ...]:
    """``"20,100"`` → (20, 100).

    Raises:
        SpecError: if it is not a list of whole numbers above 0.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise SpecError(f"--target-rows {text!r}: write numbers of rows, such as 20,100")
    return tuple(dict.fromkeys(int(part) for part in parts))


def parse_seeds(text: str, known: tuple[int, ...]) -> tuple[int, ...]:
    """``"2"`` → the first two known seeds (then counting on); ``"45"``, ``"45,123"`` → these.

    Raises:
        SpecError: if it is not a list of whole numbers.
    """
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise SpecError(f"Seeds {text!r} are not whole numbers; write 3, or 45,123,789") from None
    if len(numbers) > 1 or numbers[0] > MOST_SEEDS:
        return numbers
    if numbers[0] < 1:
        raise SpecError(f"Seeds {text!r}: give at least one")
    more = range(1, 1 + max(0, numbers[0] - len(known)))
    return (*known[: numbers[0]], *more)


def _comparison(what: ComparisonOptions, data: ComparedData) -> Comparison:
    """The file's comparison or the usual one, on the data that is named."""
    from valence.comparison import grid

    if what.config is None and not data.data:
        return grid.read_comparison(Path(__file__).parents[1] / "demo.yaml")
    sets = tuple(data.spec(name) for name in data.data or [])
    if what.config is not None:
        comparison = grid.read_comparison(what.config)
        return comparison.model_copy(update={"data": sets}) if sets else comparison
    from valence.config.sections import AUTO_ENCODER

    comparison = grid.Comparison(
        data=sets, methods=tuple(OWN_DATA_METHODS.split(",")),
        settings={"encoder.name": AUTO_ENCODER},
    )  # fmt: skip
    return comparison.model_copy(
        update={
            "seeds": parse_seeds(OWN_DATA_SEEDS, comparison.seeds),
            "title": ", ".join(data.data or []),
        }
    )


def _changed(comparison: Comparison, what: ComparisonOptions) -> Comparison:
    """The comparison with the methods, seeds, baseline and sweep of the options."""
    from valence.config.overrides import parse_axis
    from valence.methods.registry import find_method

    changes: dict[str, Any] = {}
    if what.methods:
        changes["methods"] = comma_separated(what.methods)
    if what.seeds:
        changes["seeds"] = parse_seeds(what.seeds, comparison.seeds)
    if what.baseline:
        find_method(what.baseline)
        changes["baseline"] = what.baseline
    if what.sweep:
        changes["sweep"] = dict(parse_axis(text) for text in what.sweep)
    changed = comparison.model_copy(update=changes)
    chosen = changed.baseline
    if what.baseline and what.baseline not in changed.methods:
        raise SpecError(
            f"Baseline {what.baseline!r} is not among the compared methods; add it to --methods"
        )
    if chosen not in changed.methods and changed.methods:
        if chosen is not None:
            console.info(f"Note: {chosen} is not compared; the baseline is {changed.methods[0]}")
        chosen = changed.methods[0]
    return changed.model_copy(update={"baseline": chosen})


def _print_plan(specs: list[RunSpec], *, as_json: bool) -> None:
    """The runs that would be made, a line each."""
    if as_json:
        console.print_json([spec.model_dump(mode="json") for spec in specs])
        return
    rows = [
        [
            spec.data.name,
            spec.method,
            str(spec.seed),
            str(spec.get("train.epochs", "–")),
            spec.digest(),
        ]
        for spec in specs
    ]
    print_table(["data", "method", "seed", "epochs", "spec"], rows)


def grid_callback(meter: console.Meter) -> GridCallback:
    """Shows how far a grid is."""
    from valence.comparison.grid import GridProgress

    started: set[int] = set()

    def observe(now: GridProgress) -> None:
        spec = now.cell.spec
        ended = now.done + (now.cell.status != "waiting")
        data = Path(spec.data.name).name
        what = f"[{ended} of {now.cells} done] {data} {spec.method} seed {spec.seed}"
        running = "" if now.at_work < 2 else f"{now.at_work} running"
        meter.show(
            what, now.total, ", ".join(filter(None, (now.message, running))),
            seconds_left=now.seconds_left,
            important=id(now.cell) not in started or now.cell.status != "waiting",
        )  # fmt: skip
        started.add(id(now.cell))

    return observe


def print_guessed_columns(outcome: Outcome) -> None:
    """Say once for each source which columns were guessed."""
    lines: dict[str, None] = {}
    for cell in outcome.cells:
        used = cell.spec.data if cell.result is None else cell.result.spec.data
        if (used.text_column, used.label_column) != (
            cell.spec.data.text_column, cell.spec.data.label_column,
        ):  # fmt: skip
            named = (("texts", used.text_column), ("labels", used.label_column))
            words = [f"{what} from column {name!r}" for what, name in named if name]
            lines[f"Note: {used.name}: {', '.join(words)} (guessed)"] = None
    for line in lines:
        console.info(line)


def end_grid(outcome: Outcome, runs: Path) -> None:
    """Say what failed or was stopped; the exit code follows from it.

    Raises:
        RunError: if runs failed.
    """
    for cell in outcome.cells:
        if cell.repeats:
            times = f"{cell.repeats} time{'s' * (cell.repeats > 1)}"
            console.info(f"Note: {cell_name(cell)} lost its worker {times} and was restarted")
    for cell in outcome.failures:
        console.info(f"Failed: {cell_name(cell)}: {cell.error}")
    if outcome.interrupted:
        waiting = sum(cell.status == "waiting" for cell in outcome.cells)
        console.info(f"Stopped with {waiting} runs left; run the same command again to resume.")
        raise typer.Exit(130)
    if outcome.failures:
        raise RunError(
            f"{len(outcome.failures)} of {len(outcome.cells)} runs failed (reasons above and in "
            f"{runs}); fix the cause and run the same command again; finished runs are saved"
        )
