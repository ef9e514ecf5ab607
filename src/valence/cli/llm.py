"""``valence llm``: instructions for, questions to, and fine-tuning of language models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valence.cli import console
from valence.cli.compare import (
    DataDir,
    Device,
    Encoder,
    Group,
    Groups,
    Json,
    LabelColumn,
    Query,
    Quiet,
    Runs,
    Settings,
    TableName,
    TextColumn,
    group_settings,
    settings,
)
from valence.distributed import process_group
from valence.errors import SpecError, UnknownNameError

if TYPE_CHECKING:
    from valence.config.spec import RunSpec
    from valence.data.dataset import Dataset
    from valence.runs.store import RunResult, RunStore

app = typer.Typer(no_args_is_help=True, help="Language models: instructions, answers, fine-tuning.")

Pool = Annotated[str, typer.Option(help="Take demonstrations from: language (its own), or all.")]
Pooling = Annotated[str, typer.Option(help="How texts become vectors: mean, cls, max, pooler.")]


@app.callback()
def _options(context: typer.Context) -> None:
    if context.invoked_subcommand != "finetune":
        process_group.require_single_process(
            f"valence llm {context.invoked_subcommand}", "start it without a launcher"
        )


@app.command()
def instructions(
    data: Annotated[str, typer.Argument(help="A file, folder, card or hub id.")],
    out: Annotated[Path, typer.Option(help="Folder for the records.")],
    template: Annotated[
        str, typer.Option(help="self-alignment, options, or a YAML file.")
    ] = "self-alignment",
    pool: Pool = "language",
    pooling: Pooling = "mean",
    encoder: Encoder = None,
    max_length: Annotated[int, typer.Option(help="Tokens of a text that are compared.")] = 128,
    group: Group = None,
    groups: Groups = None,
    data_dir: DataDir = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    query: Query = None,
    table: TableName = None,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a record for every text: the question, the likest training text of each label.

    Files for LLaMA-Factory, chat and prompt-completion JSONL; one folder per language.
    """
    from valence.config.spec import BUILT_IN_ENCODER, DataSpec, EncoderSpec, build
    from valence.llm.instruct import make_instructions
    from valence.llm.retrieval import Embedder

    if pool not in ("language", "all"):
        raise UnknownNameError("pool", pool, ("language", "all"))
    named = build(EncoderSpec, {"name": encoder or BUILT_IN_ENCODER, "max_length": max_length})
    chosen = {name.partition(".")[2]: v for name, v in group_settings(group, groups).items()}
    columns = {"text_column": text_column, "label_column": label_column,
               "query": query, "table": table}  # fmt: skip
    rows = build(DataSpec, {"name": data, **columns, **chosen})
    embedder = Embedder(named, pooling, device=device or "auto")
    with console.Meter(quiet=quiet) as meter:
        about = make_instructions(
            rows, out,
            template=template, embedder=embedder, pool="all" if pool == "all" else "language",
            data_dir=data_dir,
            progress=lambda done, all_: meter.show("embedding", done / all_, f"{done} of {all_}"),
        )  # fmt: skip
    if not quiet:
        for note in about.notes:
            console.info(f"Note: {note}")
        console.info(f"Instructions: {out}")
    if json:
        console.print_json(about.model_dump(mode="json"))
        return
    splits = list(dict.fromkeys(name for counts in about.groups.values() for name in counts))
    lines = [
        [language or about.data, *(str(counts.get(name, 0)) for name in splits)]
        for language, counts in about.groups.items()
    ]
    console.print_table(["language" if len(lines) > 1 else "data", *splits], lines)


@app.command()
def classify(
    data: Annotated[str, typer.Argument(help="A file, folder, card or hub id.")],
    model: Annotated[str, typer.Option(help="Hub name, folder, or a name the server knows.")],
    server: Annotated[
        str | None,
        typer.Option(help="Base URL of an OpenAI-compatible server.", envvar="OPENAI_BASE_URL"),
    ] = None,
    shots: Annotated[
        str, typer.Option(help="Demonstrations: zero, fixed (the same for all), retrieved.")
    ] = "zero",
    per_label: Annotated[int, typer.Option(help="Demonstrations of each label.")] = 1,
    template: Annotated[
        str, typer.Option(help="options, self-alignment, or a YAML file.")
    ] = "options",
    answer: Annotated[
        str, typer.Option(help="likelihood (score every label) or greedy (read a few tokens).")
    ] = "likelihood",
    correct_prior: Annotated[
        bool, typer.Option(help="Divide by the answer to a text without content.")
    ] = False,
    pool: Pool = "language",
    group: Group = None,
    groups: Groups = None,
    seed: Annotated[int, typer.Option(help="Seed of splits and fixed demonstrations.")] = 45,
    set_: Settings = None,
    data_dir: DataDir = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    query: Query = None,
    table: TableName = None,
    encoder: Encoder = None,
    device: Device = None,
    runs: Runs = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(help="Folder for a report with all runs on this data.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Show calls, tokens and time, and stop.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask a language model about every test row; the result is a run like any other.

    Demonstrations come from training rows alone. Answers of a server are kept, so that the same
    command goes on after an interruption. Trained methods under --runs stand in the same table.
    """
    from valence.config.spec import DataSpec
    from valence.data.sources import load_dataset
    from valence.llm.content_hash import settled
    from valence.methods.registry import make_spec
    from valence.runs.store import RunStore

    if shots not in SHOTS:
        raise UnknownNameError("kind of shots", shots, SHOTS)
    given = {
        "llm.model": model, "llm.server": server, "llm.per_label": per_label,
        "llm.template": template, "llm.answer": answer,
        "llm.prior": "content-free" if correct_prior else "none", "llm.pool": pool,
        **group_settings(group, groups), **settings(set_, encoder=encoder, device=device),
    }  # fmt: skip
    rows = DataSpec(name=data, text_column=text_column, label_column=label_column,
                    query=query, table=table)  # fmt: skip
    spec = settled(make_spec(SHOTS[shots], rows, seed=seed, settings=given))
    dataset = load_dataset(spec.data, seed=seed, data_dir=data_dir)
    store = RunStore(runs)
    if dry_run or (not quiet and store.get(store.key(spec, dataset.fingerprint)) is None):
        _show_plan(spec, dataset, as_json=json and dry_run, aside=not dry_run)
    if dry_run:
        return
    result = _asked(spec, dataset, store, quiet=quiet)
    _show_results(store, result, out, as_json=json)


def _asked(spec: RunSpec, dataset: Dataset, store: RunStore, *, quiet: bool) -> RunResult:
    from valence.runs.runner import run

    with console.Meter(quiet=quiet) as meter:
        result = run(
            spec, store=store, dataset=dataset,
            report=lambda share, words: meter.show(spec.method, share, words),
        )  # fmt: skip
    if not quiet:
        for note in result.notes:
            console.info(f"Note: {note}")
        console.info(f"Run: {store.path(result.key)}")
    return result


SHOTS = {"zero": "llm-zero-shot", "fixed": "llm-fixed", "retrieved": "llm-retrieved"}


def _show_plan(spec: RunSpec, dataset: Dataset, *, as_json: bool, aside: bool) -> None:
    from dataclasses import asdict

    from valence.llm.cost_estimate import estimate_cost

    plan = estimate_cost(spec, dataset)
    if as_json:
        console.print_json(asdict(plan))
        return
    about = "" if plan.exact else "about "
    words = (
        f"{plan.questions} questions: {plan.calls} calls ({plan.known} answers known), "
        f"{about}{plan.tokens} tokens read, in the order of {console.duration(plan.seconds)}"
    )
    if aside:
        console.info(f"CostEstimate: {words}")
    else:
        typer.echo(words)


def _show_results(store: RunStore, result: RunResult, out: Path | None, *, as_json: bool) -> None:
    """The leaderboard of all runs on the rows of ``result``."""
    from valence.cli.compare import _report
    from valence.comparison.grid import Cell, Comparison, Outcome
    from valence.reports.tables import leaderboard, leaderboard_columns

    same = [
        other for other in store.all()
        if other.fingerprint == result.fingerprint and other.spec.data == result.spec.data
    ]  # fmt: skip
    if out is not None:
        methods = tuple(dict.fromkeys(other.spec.method for other in same))
        comparison = Comparison(data=(result.spec.data,), methods=methods, baseline=methods[0],
                                title=result.dataset)  # fmt: skip
        outcome = Outcome([Cell(other.spec, "done", other) for other in same])
        _report(comparison, outcome, store, out, as_json=as_json)
        return
    table = leaderboard(store, same, None)
    if as_json:
        console.print_json(table.to_dict(orient="records"))
        return
    columns, rows = leaderboard_columns(table)
    console.print_table(columns, rows, title=result.dataset)


@app.command()
def finetune(
    instructions: Annotated[Path, typer.Argument(help="Folder of valence llm instructions.")],
    out: Annotated[Path, typer.Option(help="Folder for the adapter.")],
    model: Annotated[str | None, typer.Option(help="Hub name or folder of a causal model.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings in YAML; see configs/finetune/.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting: epochs=3. Repeatable.")
    ] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(help="Texts whose own sure answers train further rounds (self-alignment)."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Most rounds of self-alignment.")] = 3,
    threshold: Annotated[float, typer.Option(help="Least probability of a sure answer.")] = 0.8,
    text_column: TextColumn = None,
    encoder: Encoder = None,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a language model with LoRA on instructions; the same command goes on when stopped.

    Loss on the answers alone; the epoch with the best validation macro-F1 is kept. On a GPU with
    bitsandbytes the base is held in 4 bits.
    """
    from valence.config.spec import EncoderSpec, build
    from valence.llm.align import AlignSpec, self_align
    from valence.llm.finetune import finetune as train
    from valence.llm.finetune import read_sft_data
    from valence.llm.retrieval import Embedder
    from valence.reports.curves import write_curves

    spec = _finetune_spec(config, set_, model=model, device=device)
    sft_data = read_sft_data(instructions, spec)
    if not quiet:
        console.info(
            f"{len(sft_data.train)} training and {len(sft_data.validation)} validation records"
        )
    with console.Meter(quiet=quiet) as meter:

        def report(share: float, words: str) -> None:
            meter.show("fine-tuning", share, words)

        if unlabelled is None:
            told = train(spec, sft_data, out, report=report)
        else:
            how = build(AlignSpec, {"rounds": rounds, "threshold": threshold})
            named = EncoderSpec(name=encoder) if encoder else EncoderSpec()
            told, done = self_align(
                spec, how, sft_data, _texts(unlabelled, text_column), out,
                embedder=Embedder(named, device=spec.device), report=report,
            )  # fmt: skip
            for one in done:
                kept = ", ".join(f"{n} {name}" for name, n in one.kept.items()) or "labelled texts"
                console.info(f"Round {one.number}: {kept}; validation macro-F1 {one.macro_f1:.3f}"
                            f"{'' if one.better else ', not kept'}")  # fmt: skip
    process_group.run_on_main_process(lambda: write_curves(out))
    if not quiet:
        for note in told.notes:
            console.info(f"Note: {note}")
        console.info(f"Adapter: {out}; make it a plain model: valence llm merge {out} --out MODEL")
    _print_validation(told.validation, as_json=json)


def _print_validation(scores: dict[str, float | None], *, as_json: bool) -> None:
    if as_json:
        console.print_json(scores)
        return
    rows = [[name, "–" if value is None else f"{value:.3f}"] for name, value in
            scores.items() if name in ("macro_f1", "accuracy", "weighted_f1")]  # fmt: skip
    console.print_table(["validation", "value"], rows)


def _finetune_spec(
    config: Path | None, set_: list[str] | None, *, model: str | None, device: str | None
) -> Any:
    from valence.config.spec import build, parse_yaml
    from valence.llm.finetune_spec import FinetuneSpec

    values: dict[str, Any] = {}
    if config is not None:
        try:
            values = parse_yaml(config.read_text(encoding="utf-8"), where=str(config)) or {}
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"Config {config} cannot be read: {error}") from None
    for text in set_ or []:
        name, sign, value = text.partition("=")
        if not sign:
            raise SpecError(f"Setting {text!r} has no value; write it as name=value")
        values[name.strip()] = parse_yaml(value, where=f"value {value!r}")
    named = {"model": model, "device": device}
    values |= {name: value for name, value in named.items() if value is not None}
    if not values.get("model"):
        raise SpecError("No language model is named; give --model NAME")
    return build(FinetuneSpec, values)


def _texts(path: Path, text_column: str | None) -> list[str]:
    """The texts of a table, those that are blank left out."""
    from valence.data.tables import TEXT_COLUMNS, find_column, read_table

    table = read_table(path)
    column = find_column(
        list(table.columns), text_column, TEXT_COLUMNS, what="text", where=str(path)
    )
    texts = table[column].dropna().astype(str)
    return [text for text in texts if text.strip()]


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder of valence llm finetune.")],
    out: Annotated[Path, typer.Option(help="New folder for the model.")],
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Write base and adapter as one plain checkpoint, held to the same label probabilities."""
    from valence.llm.merge import merge as merge_adapter

    gap = merge_adapter(adapter, out, device=device or "auto")
    if not quiet:
        console.info(f"Label probabilities before and after differ by {gap:.1e} at most")
    typer.echo(str(out))
