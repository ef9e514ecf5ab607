"""``valence train``: new models, one or several, and saved ones trained further."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from valence.cli.evaluate import print_scores
from valence.distributed import process_group
from valence.errors import RunError, SpecError
from valence.storage import atomic

if TYPE_CHECKING:
    from valence.config.data import DataSpec
    from valence.config.spec import RunSpec
    from valence.runs.store import RunResult, RunStore

METHOD = "hy-mora"


def train(
    data: Annotated[str, typer.Argument(help="A file, folder, card or hub id.")],
    out: Annotated[
        Path, typer.Option(help="Folder for the model; of a folder per method for several.")
    ],
    method: Annotated[
        list[str] | None, typer.Option(help="A method; see valence methods. Repeatable.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A spec in YAML, as tune's best.yaml; DATA stands in.")
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Model folder whose training goes on.")
    ] = None,
    extend_labels: Annotated[
        bool, typer.Option(help="With --from: take labels the model does not know as new classes.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random; 45.")] = None,
    set_: Settings = None,
    data_dir: DataDir = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    query: Query = None,
    table: TableName = None,
    encoder: Encoder = None,
    device: Device = None,
    runs: Runs = Path("runs"),
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model, choose its weights on validation, report on test, and save it.

    Scores, settings and examples are added to report/results.json in the model's folder.
    """
    from valence.config.data import DataSpec
    from valence.runs.store import RunStore

    if sum((bool(method), config is not None, from_ is not None)) > 1:
        raise SpecError("Give one of --method, --config and --from")
    if extend_labels and from_ is None:
        raise SpecError("--extend-labels goes with --from MODEL; a new model takes all labels")
    rows = DataSpec(
        name=data, text_column=text_column, label_column=label_column, query=query, table=table
    )
    given = settings(set_, encoder=encoder, device=device)
    if from_ is not None:
        specs = [_continued(from_, rows, given, seed, data_dir, extend_labels)]
    elif config is not None:
        specs = [_configured(config, rows, given, seed)]
    else:
        specs = _new(method or [METHOD], rows, given, seed)
    store = RunStore(runs)
    scores: dict[str, Any] = {}
    for spec in specs:
        target = out / spec.method if len(specs) > 1 else out
        result = _train(spec, store, target, start=from_, data_dir=data_dir, quiet=quiet)
        scores[spec.method] = result.test
    if len(specs) == 1:
        print_scores(next(iter(scores.values())), as_json=json)
    else:
        _print_all(scores, as_json=json)


def _new(
    methods: list[str], rows: DataSpec, given: dict[str, Any], seed: int | None
) -> list[RunSpec]:
    from valence.methods.registry import make_spec

    seed = 45 if seed is None else seed
    return [make_spec(name, rows, seed=seed, settings=given) for name in dict.fromkeys(methods)]


def _configured(config: Path, rows: DataSpec, given: dict[str, Any], seed: int | None) -> RunSpec:
    """The spec of a file on the data of the command line."""
    from valence.methods.registry import read_spec

    try:
        spec = read_spec(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"Config {config} cannot be read: {error}") from None
    named = {n: v for n, v in rows.model_dump().items() if n in NAMING and v is not None}
    spec = spec.model_copy(update={"data": spec.data.model_copy(update=named)})
    return spec.override(given if seed is None else {**given, "seed": seed})


NAMING = ("name", "text_column", "label_column", "query", "table")
"""What the command line says of the data; the rest is the config's."""


def _continued(
    folder: Path, rows: DataSpec, given: dict[str, Any], seed: int | None,
    data_dir: Path | None, extend: bool,
) -> RunSpec:  # fmt: skip
    """The spec of a saved model's further training."""
    from valence.runs.continued import continued_spec

    console.say(
        "Note: rows that the model was trained on before may be among the new test rows; its "
        "test scores hold only where the data is new"
    )
    return continued_spec(
        folder, rows, seed=seed, settings=given, data_dir=data_dir, extend_labels=extend
    )


def _train(
    spec: RunSpec, store: RunStore, target: Path, *, start: Path | None,
    data_dir: Path | None, quiet: bool,
) -> RunResult:  # fmt: skip
    from valence.reports.records import record_run
    from valence.runs.runner import run

    _check_target(target)
    with console.Meter(quiet=quiet) as meter:
        result = run(
            spec, store=store, data_dir=data_dir, keep_model=True, start=start,
            progress=lambda share, words: meter.show(spec.method, share, words),
        )  # fmt: skip
    mode: Literal["train", "continue"] = "train" if start is None else "continue"

    def hand_over() -> None:
        _copy_model(store.path(result.key) / "model", target)
        record_run(store, result, target / "report", mode=mode)

    process_group.run_on_main_process(hand_over)
    if not quiet:
        for note in result.notes:
            console.say(f"Note: {note}")
        console.say(f"Model: {target}   Run: {store.path(result.key)}")
    return result


def _print_all(scores: dict[str, dict[str, Any]], *, as_json: bool) -> None:
    from valence.evaluation.classification import METRICS

    if as_json:
        console.print_json(scores)
        return
    names = [name for name in METRICS if any(own.get(name) is not None for own in scores.values())]
    rows = [
        [method, *("–" if own[name] is None else f"{own[name]:.3f}" for name in names)]
        for method, own in scores.items()
    ]
    console.print_table(["method", *(METRICS[name].title for name in names)], rows)


def _check_target(target: Path) -> None:
    """Refuse a folder that is not ours before the training, not after it."""
    if target.exists() and not (target / "config.json").exists() and any(target.iterdir()):
        raise RunError(f"{target} is no model folder and not empty; give another --out")


def _copy_model(source: Path, target: Path) -> None:
    """Put the model at ``target`` whole; of what was there, only its report is kept."""
    with atomic.new_folder(target) as scratch:
        shutil.copytree(source, scratch, dirs_exist_ok=True)
        if (target / "report").is_dir():
            shutil.copytree(target / "report", scratch / "report", dirs_exist_ok=True)
