"""``valence reproduce``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valence.cli import console
from valence.cli.compare import (
    HERE,
    ExecutorOptions,
    end_grid,
    grid_callback,
    parse_seeds,
    print_guessed_columns,
)
from valence.cli.compare_report import write_comparison
from valence.cli.options import (
    Encoder,
    OptionGroup,
    RowOptions,
    TrackedRunsOptions,
    TrainingHardware,
    check_device,
    comma_separated,
    encoder_settings,
    with_groups,
)
from valence.cli.reproduce_report import (
    TableReport,
    print_plan,
    print_reproduction,
    scaled_down,
)
from valence.errors import SpecError, UnknownNameError

if TYPE_CHECKING:
    from valence.comparison.executors.base import Executor
    from valence.comparison.grid import Outcome
    from valence.comparison.papers import Scale, TableRun
    from valence.config.spec import RunSpec
    from valence.runs.store import RunStore


@dataclass(frozen=True, kw_only=True)
class ReproductionOptions(OptionGroup):
    """What of a paper is run, and at which scale."""

    plan: Annotated[
        bool, typer.Option("--plan", help="Show runs, time, memory and hardware, and exit.")
    ] = False
    cpu: Annotated[
        bool | None,
        typer.Option(
            "--cpu/--published",
            help="Use the scaled-down or the published set-up; default: published on a GPU.",
        ),
    ] = None
    only: Annotated[
        str | None, typer.Option(help="Only these tables, comma-separated; see --plan.")
    ] = None
    methods: Annotated[
        str | None, typer.Option(help="Methods, comma-separated; see valence methods.")
    ] = None
    seeds: Annotated[
        str | None, typer.Option(help="Number of seeds (up to 30), or a list: 45,123,789.")
    ] = None


@with_groups
def reproduce(
    name: Annotated[
        str,
        typer.Argument(help="hy-mora, self-alignment, sharprecl, almt, lstm-han, or a YAML file."),
    ],
    what: ReproductionOptions,
    data: RowOptions,
    hardware: TrainingHardware,
    machines: ExecutorOptions,
    output: TrackedRunsOptions,
    encoder: Encoder = None,
    out: Annotated[Path, typer.Option(help="Folder for the report and tables.")] = Path(
        "reproduction"
    ),
) -> None:
    """Reproduce the tables of a paper.

    Without a GPU, a scaled-down set-up runs, and every difference is listed with its reason.
    """
    from valence.comparison.papers import read_paper, table_runs

    output.check()
    executor = machines.made()
    elsewhere = machines.executor != HERE
    settings = {
        **encoder_settings(encoder), **hardware.settings(elsewhere=elsewhere), **data.settings(),
    }  # fmt: skip
    paper, path = read_paper(name)
    scale = _scale(what, settings, quiet=output.quiet)
    tables = _chosen(table_runs(paper, path, scale), what)
    if what.plan:
        print_plan(paper, tables, settings, data.data_dir, scale=scale, as_json=output.json)
        return
    from valence.comparison import grid
    from valence.runs.store import RunStore

    planned = {table.name: grid.plan(table.comparison, settings) for table in tables}
    store = RunStore(output.runs)
    specs = list({(s.method, s.digest()): s for own in planned.values() for s in own}.values())
    for device in {spec.get("train.device") for spec in specs} if not elsewhere else ():
        check_device(device)
    if not output.quiet:
        console.info(f"{len(specs)} runs for {len(tables)} tables of {paper.title}")
    outcome = _execute(specs, store, data.data_dir, executor, output)
    reports = [
        _report(table, planned[table.name], outcome, store=store, out=out, settings=settings,
                quiet=output.quiet)
        for table in tables
    ]  # fmt: skip
    changed = scaled_down(tables, settings)
    print_reproduction(paper, reports, changed, out=out, output=output)
    output.print_place()
    end_grid(outcome, output.runs)


def _execute(
    specs: list[RunSpec], store: RunStore, data_dir: Path | None, executor: Executor,
    output: TrackedRunsOptions,
) -> Outcome:  # fmt: skip
    """Run what is missing, and show how far it is."""
    from valence.comparison import grid

    with console.Meter(quiet=output.quiet) as meter:
        outcome = grid.execute(
            specs, store=store, data_dir=data_dir, callback=grid_callback(meter),
            executor=executor, track=output.track,
        )  # fmt: skip
    if not output.quiet:
        print_guessed_columns(outcome)
    return outcome


def _scale(what: ReproductionOptions, settings: dict[str, Any], *, quiet: bool) -> Scale:
    """The scale that was named, or the one that suits the machine, which is said."""
    if what.cpu is not None:
        return "cpu" if what.cpu else "published"
    from valence.distributed.device import pick_device

    device = pick_device(str(settings.get("train.device", "auto")))
    if device == "cuda":
        return "published"
    if not quiet:
        console.info(
            "Note: no GPU found, so the scaled-down set-ups run; use --published for the published "
            "ones"
        )
    return "cpu"


def _chosen(tables: list[TableRun], what: ReproductionOptions) -> list[TableRun]:
    """The tables, methods and seeds that were named.

    Raises:
        UnknownNameError: if there is no such table.
        SpecError: if no table has the methods.
    """
    names = comma_separated(what.only)
    known = [table.name for table in tables]
    for one in names:
        if one not in known:
            raise UnknownNameError("table", one, known)
    methods = comma_separated(what.methods)
    seeds = parse_seeds(what.seeds, tables[0].comparison.seeds) if what.seeds else ()
    narrowed = [t.narrowed(methods, seeds) for t in tables if not names or t.name in names]
    chosen = [table for table in narrowed if table is not None]
    if not chosen:
        raise SpecError(f"No table of the paper has {', '.join(methods)}; see --plan --json")
    return chosen


def _report(
    table: TableRun, specs: Sequence[RunSpec], outcome: Outcome, *, store: RunStore, out: Path,
    settings: dict[str, Any], quiet: bool,
) -> TableReport:  # fmt: skip
    """Write the report of one table, of its part of the runs."""
    from valence.comparison.grid import Outcome
    from valence.comparison.sweep import separate_sweep
    from valence.reports.groups import write_group_tables
    from valence.reports.leaderboard import leaderboard
    from valence.reports.reproduction import published_figures

    keys = {(spec.method, spec.digest()) for spec in specs}
    own = Outcome([c for c in outcome.cells if (c.spec.method, c.spec.digest()) in keys])
    plain, swept = separate_sweep(own, table.comparison, settings)
    figures = [] if swept else published_figures(table.comparison, plain)
    if not plain:
        return TableReport(table, None, figures, None)
    place = out / table.name
    notes = write_group_tables(plain, place)
    page = write_comparison(
        table.comparison, plain, store, place, sweep=swept, failures=own.failures
    )
    if not quiet:
        for note in dict.fromkeys(notes):
            console.info(f"Note: {note}")
    board = leaderboard(store, plain, table.comparison.baseline)
    return TableReport(table, board, figures, page)
