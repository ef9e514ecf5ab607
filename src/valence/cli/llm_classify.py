"""``valence llm classify``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valence.cli import console
from valence.cli.compare_report import print_leaderboard, report_comparison
from valence.cli.options import (
    DataOptions,
    Encoder,
    HardwareOptions,
    OptionGroup,
    RunsOptions,
    Seed,
    encoder_settings,
    with_groups,
)
from valence.errors import UnknownNameError

if TYPE_CHECKING:
    from valence.config.spec import RunSpec
    from valence.data.dataset import Dataset
    from valence.runs.store import RunResult, RunStore

SHOTS = {"zero": "llm-zero-shot", "fixed": "llm-fixed", "retrieved": "llm-retrieved"}

Pool = Annotated[
    str, typer.Option(help="Take demonstrations from the text's own language, or from all.")
]


@dataclass(frozen=True, kw_only=True)
class PromptOptions(OptionGroup):
    """Which model is prompted, and how."""

    model: Annotated[
        str, typer.Option(help="Hub name, folder, or the server's name for the model.")
    ]
    server: Annotated[
        str | None,
        typer.Option(help="Base URL of an OpenAI-compatible server.", envvar="OPENAI_BASE_URL"),
    ] = None
    shots: Annotated[
        str, typer.Option(help="Demonstrations: zero, fixed (the same for all), retrieved.")
    ] = "zero"
    per_label: Annotated[int, typer.Option(help="Demonstrations of each label.")] = 1
    shots_total: Annotated[
        int | None, typer.Option(help="Total demonstrations with --shots fixed; 3 are published.")
    ] = None
    template: Annotated[str, typer.Option(help="options, self-alignment, or a YAML file.")] = (
        "options"
    )
    answer: Annotated[
        str, typer.Option(help="likelihood (score every label) or greedy (read a few tokens).")
    ] = "likelihood"
    correct_prior: Annotated[
        bool, typer.Option(help="Calibrate with the answer to a content-free text.")
    ] = False
    pool: Pool = "language"

    @property
    def method(self) -> str:
        """Name of the method.

        Raises:
            UnknownNameError: if there is none of these demonstrations.
        """
        if self.shots not in SHOTS:
            raise UnknownNameError("kind of shots", self.shots, SHOTS)
        return SHOTS[self.shots]

    def settings(self) -> dict[str, Any]:
        """The dotted settings of the prompts."""
        return {
            "llm.model": self.model, "llm.server": self.server, "llm.per_label": self.per_label,
            "llm.shots_total": self.shots_total,
            "llm.template": self.template, "llm.answer": self.answer,
            "llm.prior": "content-free" if self.correct_prior else "none", "llm.pool": self.pool,
        }  # fmt: skip


@with_groups
def classify(
    data: DataOptions,
    prompts: PromptOptions,
    hardware: HardwareOptions,
    output: RunsOptions,
    encoder: Encoder = None,
    seed: Seed = 45,
    out: Annotated[
        Path | None, typer.Option(help="Folder for a report of all runs on this data.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Show calls, tokens and time, and exit.")] = False,
) -> None:
    """Classify the test rows with a language model.

    Demonstrations come from training rows only. A server's answers are cached, so you can run the
    same command again to resume. Trained methods in --runs appear in the same table.
    """
    from valence.data.sources import load_dataset
    from valence.methods.registry import make_spec
    from valence.runs.store import RunStore

    settings = {
        **hardware.settings(), **prompts.settings(), **encoder_settings(encoder),
        **data.settings(),
    }  # fmt: skip
    method, rows = prompts.method, data.spec(data.data)
    spec = make_spec(method, rows, seed=seed, settings=settings)
    dataset = load_dataset(spec.data, seed=seed, data_dir=data.data_dir)
    store = RunStore(output.runs)
    is_new = store.get(store.key(spec, dataset)) is None
    if dry_run or (not output.quiet and is_new):
        _print_plan(spec, dataset, as_json=output.json and dry_run, aside=not dry_run)
    if dry_run:
        return
    result = _run(spec, dataset, store, quiet=output.quiet)
    _print_results(store, result, out, output)


def _run(spec: RunSpec, dataset: Dataset, store: RunStore, *, quiet: bool) -> RunResult:
    from valence.runs.runner import run

    with console.Meter(quiet=quiet) as meter:
        result = run(
            spec, store=store, dataset=dataset,
            progress=lambda fraction, words: meter.show_timed(spec.method, fraction, words),
        )  # fmt: skip
    if not quiet:
        for note in result.notes:
            console.info(f"Note: {note}")
        console.info(f"Run: {store.path(result.key)}")
    return result


def _print_plan(spec: RunSpec, dataset: Dataset, *, as_json: bool, aside: bool) -> None:
    from dataclasses import asdict

    from valence.llm.cost_estimate import estimate_cost
    from valence.methods.prompting import prompt_settings

    plan = estimate_cost(prompt_settings(spec), dataset)
    if as_json:
        console.print_json(asdict(plan))
        return
    about = "" if plan.exact else "about "
    words = (
        f"{plan.questions} questions: {plan.calls} calls ({plan.known} answers known), "
        f"{about}{plan.tokens} tokens read, in the order of {console.duration(plan.seconds)}"
    )
    if aside:
        console.info(f"Cost: {words}")
    else:
        typer.echo(words)


def _print_results(
    store: RunStore, result: RunResult, out: Path | None, output: RunsOptions
) -> None:
    """The leaderboard of all runs on the rows of ``result``."""
    from valence.comparison.grid import Comparison
    from valence.reports.leaderboard import leaderboard

    same = [
        other for other in store.all()
        if other.fingerprint == result.fingerprint and other.spec.data == result.spec.data
    ]  # fmt: skip
    if out is not None:
        methods = tuple(dict.fromkeys(other.spec.method for other in same))
        comparison = Comparison(data=(result.spec.data,), methods=methods, baseline=methods[0],
                                title=result.dataset)  # fmt: skip
        report_comparison(comparison, same, store, out, output)
        return
    print_leaderboard(leaderboard(store, same, None), output, title=result.dataset)
