"""``valence label``: label the rows that help most, rare classes first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from valence.cli import console
from valence.cli.options import (
    Encoder,
    OptionGroup,
    OutputOptions,
    RowOptions,
    comma_separated,
    with_groups,
)
from valence.cli.tables import print_table
from valence.errors import RunError, SpecError

if TYPE_CHECKING:
    from valence.config.llm import LlmSpec
    from valence.labeling.job import LabelJob
    from valence.labeling.replay_report import Simulation


@dataclass(frozen=True, kw_only=True)
class PoolOptions(RowOptions):
    """The pool of texts."""

    data: Annotated[
        str, typer.Argument(help="Texts to label: a file, folder or database; or a label file.")
    ]


@dataclass(frozen=True, kw_only=True)
class LabelOptions(OptionGroup):
    """Where labels go, and what is known of them."""

    out: Annotated[
        Path | None, typer.Option(help="The label file; of --simulate the folder of its report.")
    ] = None
    model: Annotated[Path | None, typer.Option(help="A model folder that suggests labels.")] = None
    llm: Annotated[
        str | None,
        typer.Option(help="A language model that drafts labels for the start: a name or folder."),
    ] = None
    llm_server: Annotated[
        str | None, typer.Option(help="OpenAI-compatible server that knows --llm, as its URL.")
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(help="good,bad, or a file with one label per line, as name: what it means."),
    ] = None
    encoder: Encoder = None


@dataclass(frozen=True, kw_only=True)
class ChoiceOptions(OptionGroup):
    """Which rows come next."""

    panel: ClassVar[str] = "Rows"
    strategy: Annotated[
        str,
        typer.Option(help="tail-first, random, entropy, margin, k-center or badge."),
    ] = "tail-first"
    random_share: Annotated[
        float,
        typer.Option(min=0, max=1, help="Fraction of rows drawn at random, for the estimate."),
    ] = 0.2
    shared: Annotated[
        int, typer.Option(min=0, help="Rows that all annotators label, to measure agreement.")
    ] = 0
    refit_every: Annotated[int, typer.Option(min=1, help="Labels between two fits.")] = 10


@dataclass(frozen=True, kw_only=True)
class PageOptions(OptionGroup):
    """Where the page is."""

    panel: ClassVar[str] = "Page"
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8080


@dataclass(frozen=True, kw_only=True)
class LabelExportOptions(OptionGroup):
    """Labels as files of other tools."""

    panel: ClassVar[str] = "Export"
    export: Annotated[
        Path | None,
        typer.Option(help="Write the labels of a label file here: a file, or a folder."),
    ] = None
    to: Annotated[
        str | None,
        typer.Option(help="csv, parquet, label-studio, argilla or spacy; by the suffix if none."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SimulationOptions(OptionGroup):
    """A replay of labeled rows."""

    panel: ClassVar[str] = "Simulation"
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Replay labeled rows and compare strategies.")
    ] = False
    strategies: Annotated[
        str | None, typer.Option(help="Strategies to compare, as random,tail-first; all if none.")
    ] = None
    replays: Annotated[int, typer.Option(min=1, help="Replays of each strategy.")] = 3
    most_labels: Annotated[int, typer.Option(min=20, help="Labels of a replay.")] = 600


@with_groups
def label(
    pool: PoolOptions,
    choice: ChoiceOptions,
    page: PageOptions,
    simulation: SimulationOptions,
    exporting: LabelExportOptions,
    output: OutputOptions,
    work: LabelOptions,
) -> None:
    """Label texts on a page, the rows that help most first.

    A model is fitted meanwhile; it chooses the next rows and says how good it is. Every decision is
    in the label file before the next one; valence fit reads it.
    """
    if simulation.simulate:
        _simulate(pool, choice, simulation, output, work)
    elif exporting.export is not None:
        _export(Path(pool.data), exporting, output)
    else:
        _label(page, output, _job(pool, choice, work))


def _job(pool: PoolOptions, choice: ChoiceOptions, work: LabelOptions) -> LabelJob:
    from valence.data.label_file import is_label_file
    from valence.labeling.job import LabelJob, LabelNames
    from valence.labeling.sampling import SamplingSettings
    from valence.labeling.strategies import find_strategy

    find_strategy(choice.strategy)
    pool.refuse_other_settings("data")
    settings = SamplingSettings(choice.strategy, choice.random_share, choice.refit_every)
    names = None if work.labels is None else LabelNames.parse(work.labels)
    is_file = is_label_file(Path(pool.data))
    if is_file and work.out is not None and work.out != Path(pool.data):
        raise SpecError(f"{pool.data} is a label file and is continued in place; remove --out")
    if not is_file and work.out is None:
        raise SpecError("Where do the labels go? Name the label file with --out labels.db")
    target = Path(pool.data) if is_file else work.out
    assert target is not None
    data = None if is_file else pool.spec(pool.data)
    return LabelJob(
        target, data, work.model, names, work.encoder or "auto", settings, choice.shared,
        _llm(work), pool.data_dir,
    )  # fmt: skip


def _llm(work: LabelOptions) -> LlmSpec | None:
    from valence.config.llm import LlmSpec
    from valence.config.spec import build

    if work.llm is None:
        if work.llm_server is not None:
            raise SpecError("--llm-server needs the name of its model: --llm NAME")
        return None
    if work.model is not None:
        raise SpecError("--llm drafts labels where there is no model; remove --llm or --model")
    return build(LlmSpec, {"model": work.llm, "server": work.llm_server, "template": "labels"})


def _label(page: PageOptions, output: OutputOptions, job: LabelJob) -> None:
    try:
        from valence.labeling.server import serve_session
    except ImportError as error:
        missing = error.name or "a library"
        raise RunError(
            f"valence label needs {missing}; install it: pip install 'valence[serve]'"
        ) from None
    from valence.labeling.job import open_session

    session = open_session(job, _note(output))
    serve_session(session, page.host, page.port, _started(job, output))
    if not output.quiet:
        console.info(f"Stopped. Labels: {job.out}")
        console.info(f"Next: valence fit {job.out} --out models/labeled")


def _note(output: OutputOptions) -> Callable[[str], None]:
    return lambda line: None if output.quiet else console.info(line)


def _started(job: LabelJob, output: OutputOptions) -> Callable[[str, int], None]:
    from valence.serving.hosts import is_loopback

    def started(address: str, listening: int) -> None:
        shown = f"[{address}]" if ":" in address else address
        if not is_loopback(address):
            console.info("Warning: anyone who can reach this address can read and label the texts")
        if not output.quiet:
            console.info(f"Label at http://{shown}:{listening}/  (Ctrl-C stops)")

    return started


def _export(path: Path, exporting: LabelExportOptions, output: OutputOptions) -> None:
    from valence.labeling.export import export_labels

    assert exporting.export is not None
    written = export_labels(path, exporting.export, exporting.to)
    if output.json:
        console.print_json({"files": [str(file) for file in written.files], "rows": written.rows})
    elif not output.quiet:
        console.info(f"{written.rows} labels: {', '.join(str(file) for file in written.files)}")


def _simulate(
    pool: PoolOptions, choice: ChoiceOptions, simulation: SimulationOptions,
    output: OutputOptions, work: LabelOptions,
) -> None:  # fmt: skip
    from valence.labeling.replay import ReplayPlan
    from valence.labeling.replay_report import simulate
    from valence.labeling.sampling import SamplingSettings
    from valence.labeling.strategies import STRATEGIES, find_strategy

    if work.out is None:
        raise SpecError("Where does the report go? Name its folder with --out")
    strategies = comma_separated(simulation.strategies) or tuple(STRATEGIES)
    for name in strategies:
        find_strategy(name)
    pool.refuse_other_settings("data")
    plan = ReplayPlan(
        strategies, tuple(range(simulation.replays)),
        SamplingSettings(batch=choice.refit_every, random_share=choice.random_share),
        simulation.most_labels,
    )  # fmt: skip
    with console.Meter(quiet=output.quiet) as meter:
        done = simulate(
            pool.spec(pool.data), plan, out=work.out, encoder=work.encoder or "auto",
            data_dir=pool.data_dir,
            progress=lambda fraction, words: meter.show_timed("label", fraction, words),
        )  # fmt: skip
    _print_simulation(done, output, work.out)


def _print_simulation(done: Simulation, output: OutputOptions, out: Path) -> None:
    if output.json:
        console.print_json(done.as_json())
        return
    if output.quiet:
        return
    for line in done.notes:
        console.info(line)
    print_table(*done.table())
    console.info(f"Report: {out / 'simulation.html'}")
