"""``valence compare`` and ``valence methods``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from valence.cli import console
from valence.cli.compare_report import cell_name, report_comparison
from valence.errors import RunError, SpecError

if TYPE_CHECKING:
    from valence.comparison.grid import Comparison, Observer, Outcome
    from valence.config.spec import RunSpec

OWN_DATA_METHODS = "majority,tfidf-lr,linear-probe,lora-balanced,logit-adjust,hy-mora"
OWN_DATA_SEEDS = "3"
TRANSFER_METHOD = "linear-probe"
TRANSFERS = ("matrix", "leave-one-out")
MOST_SEEDS = 30  # one number above it is a seed, not how many

Config = Annotated[Path | None, typer.Option(help="A comparison in YAML; see configs/.")]
Methods = Annotated[str | None, typer.Option(help="Methods, comma-separated; see valence methods.")]
Seeds = Annotated[str | None, typer.Option(help="How many (up to 30), or which: 45,123,789.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of corpora.", envvar="VALENCE_DATA", show_envvar=True)
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting: train.epochs=6. Repeatable.")
]
Sweep = Annotated[
    list[str] | None, typer.Option(help="A setting at several values: loss.temperature=.05,.1")
]
TextColumn = Annotated[str | None, typer.Option(help="Name of the column of texts.")]
LabelColumn = Annotated[str | None, typer.Option(help="Name of the column of labels.")]
Query = Annotated[str | None, typer.Option(help="A SELECT whose rows are used, of a database.")]
TableName = Annotated[
    str | None, typer.Option("--table", help="The table to read, of a database with several.")
]
Group = Annotated[
    str | None, typer.Option(help="Column of groups that are scored one by one [language].")
]
Groups = Annotated[str | None, typer.Option(help="Only these groups: en,de.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")]
Encoder = Annotated[str | None, typer.Option(help="Hub name or folder of another encoder.")]
Runs = Annotated[Path, typer.Option(help="Folder of run folders.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Workers = Annotated[
    int | None, typer.Option(help="Processes at a time; local: 1, ray: what there is room for.")
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="A running Ray cluster; else one is started here.", envvar="RAY_ADDRESS"),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no notes.")]


class CompareCommand(TyperCommand):
    """``valence compare``, whose option ``--transfer`` may stand without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read ``--transfer`` before anything but its values as ``--transfer matrix``."""
        told: list[str] = []
        for place, word in enumerate(args, start=1):
            told.append(word)
            if word == "--transfer" and (place == len(args) or args[place] not in TRANSFERS):
                told.append(TRANSFERS[0])
        return super().parse_args(ctx, told)


def compare(
    data: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, cards or hub ids; the built-in corpus when none."),
    ] = None,
    config: Config = None,
    methods: Methods = None,
    seeds: Seeds = None,
    baseline: Annotated[
        str | None, typer.Option(help="Method the others are tested against.")
    ] = None,
    set_: Settings = None,
    sweep: Sweep = None,
    data_dir: DataDir = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    query: Query = None,
    table: TableName = None,
    group: Group = None,
    groups: Groups = None,
    train_groups: Annotated[
        str | None, typer.Option(help="Groups to train on, where they differ from those tested.")
    ] = None,
    transfer: Annotated[
        str | None,
        typer.Option(
            metavar="[matrix|leave-one-out]",
            help="Train on each group alone (or on all but each), test on every group.",
        ),
    ] = None,
    encoder: Encoder = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="Folder for the report and the tables.")] = Path(
        "report"
    ),
    runs: Runs = Path("runs"),
    dry_run: Annotated[bool, typer.Option(help="Show what would be run, and stop.")] = False,
    executor: Annotated[
        str, typer.Option(help="local, or ray: a cluster whose machines all see --runs.")
    ] = "local",
    workers: Workers = None,
    ray_address: RayAddress = None,
    cpus_per_run: Annotated[float, typer.Option(help="Cores a run asks of Ray.")] = 1.0,
    gpus_per_run: Annotated[float, typer.Option(help="GPUs a run asks of Ray.")] = 0.0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare methods on equal terms: same rows, same seeds, choice on validation, test sealed.

    Runs only what is missing under --runs, prints a leaderboard and writes report.html.
    """
    from valence.comparison import grid
    from valence.comparison.executors.base import make_executor
    from valence.comparison.sweep import separate_sweep
    from valence.distributed.ray_cluster import Cluster
    from valence.runs.store import RunStore

    runner = make_executor(executor, Cluster(ray_address, workers, cpus_per_run, gpus_per_run))
    columns = {
        "text_column": text_column, "label_column": label_column, "query": query, "table": table,
    }  # fmt: skip
    comparison = _comparison(config, data, columns)
    comparison = _changed(comparison, methods=methods, seeds=seeds, baseline=baseline, sweep=sweep)
    overrides = settings(set_, encoder=encoder, device=device)
    overrides |= group_settings(group, groups, train_groups)
    comparison = _transferred(comparison, transfer, methods)
    planned = grid.with_transfer(comparison, overrides, data_dir)
    specs = grid.plan(planned, overrides)
    if dry_run:
        _print_plan(specs, as_json=json)
        return
    store = RunStore(runs)
    if not quiet:
        console.say(_size(comparison, len(specs)))
    with console.Meter(quiet=quiet) as meter:
        outcome = grid.execute(
            specs, store=store, data_dir=data_dir, observer=_observer(meter), executor=runner
        )
    plain, swept = separate_sweep(outcome, planned, overrides)
    report_comparison(
        comparison, plain, store, out, sweep=swept, failures=outcome.failures, as_json=json,
        quiet=quiet,
    )  # fmt: skip
    _end(outcome, runs)


def _size(comparison: Comparison, runs: int) -> str:
    return f"{runs} runs: {len(comparison.methods)} methods × {len(comparison.seeds)} seeds"


def methods(json: Json = False) -> None:
    """List every method."""
    from valence.methods.registry import METHODS

    known = METHODS
    if json:
        console.print_json(
            {n: {"title": m.title, "family": m.family, "paper": m.paper} for n, m in known.items()}
        )
        return
    rows = [[name, method.family, method.title, method.paper] for name, method in known.items()]
    console.print_table(["method", "family", "what it is", "paper"], rows)


def settings(
    set_: list[str] | None, *, encoder: str | None = None, device: str | None = None
) -> dict[str, Any]:
    """Dotted settings of the options ``--set``, ``--encoder`` and ``--device``.

    Raises:
        SpecError: if one has no value or no such setting exists.
    """
    from valence.config.overrides import parse_setting

    named = {"encoder.name": encoder, "train.device": device}
    given = {path: value for path, value in named.items() if value is not None}
    return {**given, **dict(parse_setting(text) for text in set_ or [])}


def group_settings(
    group: str | None, groups: str | None, train_groups: str | None = None
) -> dict[str, Any]:
    """Dotted settings of the options ``--group``, ``--groups`` and ``--train-groups``."""
    given: dict[str, Any] = {"data.group": group} if group else {}
    for path, names in (("data.groups", groups), ("data.train_groups", train_groups)):
        if names:
            given[path] = tuple(part.strip() for part in names.split(",") if part.strip())
    return given


def _transferred(comparison: Comparison, kind: str | None, methods: str | None) -> Comparison:
    """The comparison as a transfer, of frozen features alone where no method was named."""
    from valence.config.spec import build

    if kind is None:
        return comparison
    named = methods or comparison.methods != tuple(OWN_DATA_METHODS.split(","))
    changes: dict[str, Any] = {"transfer": kind}
    if not named:
        changes |= {"methods": (TRANSFER_METHOD,), "baseline": TRANSFER_METHOD}
    return build(type(comparison), {**comparison.model_dump(), **changes})


def parse_seeds(text: str, known: tuple[int, ...]) -> tuple[int, ...]:
    """``"2"`` → the first two known seeds (then counting on); ``"45"``, ``"45,123"`` → these.

    Raises:
        SpecError: if it is not a list of whole numbers.
    """
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise SpecError(f"Seeds {text!r} are no whole numbers; write 3, or 45,123,789") from None
    if len(numbers) > 1 or numbers[0] > MOST_SEEDS:
        return numbers
    if numbers[0] < 1:
        raise SpecError(f"Seeds {text!r}: there must be at least one")
    more = range(1, 1 + max(0, numbers[0] - len(known)))
    return (*known[: numbers[0]], *more)


def _comparison(
    config: Path | None, data: list[str] | None, columns: Mapping[str, str | None]
) -> Comparison:
    from valence.comparison import grid
    from valence.config.data import DataSpec
    from valence.config.spec import build

    if config is None and not data:
        return grid.read_comparison(Path(__file__).parents[1] / "demo.yaml")
    named = [{"name": name, **{k: v for k, v in columns.items() if v}} for name in data or []]
    sets = tuple(build(DataSpec, values) for values in named)
    if config is not None:
        comparison = grid.read_comparison(config)
        return comparison.model_copy(update={"data": sets}) if sets else comparison
    comparison = grid.Comparison(data=sets, methods=tuple(OWN_DATA_METHODS.split(",")))
    return comparison.model_copy(
        update={
            "seeds": parse_seeds(OWN_DATA_SEEDS, comparison.seeds),
            "title": ", ".join(data or []),
        }
    )


def _changed(
    comparison: Comparison, *, methods: str | None, seeds: str | None, baseline: str | None,
    sweep: list[str] | None,
) -> Comparison:  # fmt: skip
    from valence.config.overrides import parse_axis
    from valence.methods.registry import find_method

    changes: dict[str, Any] = {}
    if methods:
        changes["methods"] = tuple(name.strip() for name in methods.split(",") if name.strip())
    if seeds:
        changes["seeds"] = parse_seeds(seeds, comparison.seeds)
    if baseline:
        find_method(baseline)
        changes["baseline"] = baseline
    if sweep:
        changes["sweep"] = dict(parse_axis(text) for text in sweep)
    changed = comparison.model_copy(update=changes)
    chosen = changed.baseline
    if baseline and baseline not in changed.methods:
        raise SpecError(
            f"Baseline {baseline!r} is not among the compared methods; add it to --methods"
        )
    if chosen not in changed.methods and changed.methods:
        if chosen is not None:
            console.say(f"Note: {chosen} is not compared; the baseline is {changed.methods[0]}")
        chosen = changed.methods[0]
    return changed.model_copy(update={"baseline": chosen})


def _print_plan(specs: list[RunSpec], *, as_json: bool) -> None:
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
    console.print_table(["data", "method", "seed", "epochs", "spec"], rows)


def _observer(meter: console.Meter) -> Observer:
    from valence.comparison.grid import GridProgress

    def observe(now: GridProgress) -> None:
        spec = now.cell.spec
        place = f"[{now.done + 1}/{now.cells}] {Path(spec.data.name).name}"
        what = f"{place} {spec.method} seed {spec.seed}"
        left = f"about {console.duration(now.seconds_left)} left"
        left = left if now.at_work < 2 else f"{now.at_work} at work, {left}"
        words = f"{now.words}, {left}" if now.words else left
        meter.show(what, now.share, words, important=now.share in (0.0, 1.0))

    return observe


def _end(outcome: Outcome, runs: Path) -> None:
    for cell in outcome.cells:
        if cell.repeats:
            times = f"{cell.repeats} time{'s' * (cell.repeats > 1)}"
            console.say(f"Note: {cell_name(cell)} lost its worker {times} and was run again")
    for cell in outcome.failures:
        console.say(f"Failed: {cell_name(cell)}: {cell.error}")
    if outcome.interrupted:
        waiting = sum(cell.status == "waiting" for cell in outcome.cells)
        console.say(f"Stopped with {waiting} runs left; the same command goes on from here.")
        raise typer.Exit(130)
    if outcome.failures:
        raise RunError(
            f"{len(outcome.failures)} of {len(outcome.cells)} runs failed (reasons above and in "
            f"{runs}); mend the cause and give the same command, finished runs are kept"
        )
