"""``valence train``: new models, one or several, and saved ones trained further."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from valence.cli import console
from valence.cli.evaluate import class_table, print_scores
from valence.cli.options import (
    DataOptions,
    Encoder,
    OptionGroup,
    TrackedRunsOptions,
    TrainingHardware,
    check_device,
    encoder_settings,
    print_unread,
    with_groups,
)
from valence.cli.tables import print_table
from valence.distributed import process_group
from valence.errors import RunError, SpecError
from valence.storage import atomic

if TYPE_CHECKING:
    from valence.config.spec import RunSpec
    from valence.evaluation.classification import ClassTable
    from valence.runs.store import RunResult, RunStore

METHOD = "hy-mora"
SEED = 45


@dataclass(frozen=True, kw_only=True)
class WhatToTrain(OptionGroup):
    """Which methods with which settings, or which saved model."""

    method: Annotated[
        list[str] | None, typer.Option(help="Method; see valence methods. Repeatable.")
    ] = None
    config: Annotated[
        Path | None, typer.Option(help="Settings in YAML, such as tune's best.yaml.")
    ] = None
    from_: Annotated[Path | None, typer.Option("--from", help="Model folder to train further.")] = (
        None
    )
    extend_labels: Annotated[
        bool, typer.Option("--extend-labels", help="With --from: add new labels as classes.")
    ] = False
    seed: Annotated[int | None, typer.Option(help="Random seed; default: 45.")] = None

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            SpecError: if several things to train are named.
        """
        if sum((bool(self.method), self.config is not None, self.from_ is not None)) > 1:
            raise SpecError("Use only one of --method, --config and --from")
        if self.extend_labels and self.from_ is None:
            raise SpecError(
                "--extend-labels needs --from MODEL; a new model learns all labels anyway"
            )


@with_groups
def train(
    data: DataOptions,
    out: Annotated[Path, typer.Option(help="Output folder (one subfolder per method if several).")],
    what: WhatToTrain,
    hardware: TrainingHardware,
    output: TrackedRunsOptions,
    encoder: Encoder = None,
) -> None:
    """Train a model, evaluate it on test rows and save it.

    The weights are selected on validation rows. Results are added to report/results.json in the
    model folder.
    """
    from valence.runs.store import RunStore

    what.check()
    output.check()
    settings = {**encoder_settings(encoder), **hardware.settings(), **data.settings()}
    specs = _specs(what, data, settings)
    if not output.quiet:
        print_unread([spec.method for spec in specs], settings)
    for spec in specs:
        check_device(spec.get("train.device"))  # which a file of settings may name, too
    store = RunStore(output.runs)
    scores: dict[str, Any] = {}
    for spec in specs:
        target = out / spec.method if len(specs) > 1 else out
        result = _train(spec, store, target, start=what.from_, data_dir=data.data_dir,
                        output=output)  # fmt: skip
        scores[spec.method] = result.test
        table = _class_table(store, result)
    output.print_place()
    if len(specs) == 1:
        print_scores(result.test, output, classes=table)
    else:
        _print_all(scores, output)


def _specs(what: WhatToTrain, data: DataOptions, settings: Mapping[str, Any]) -> list[RunSpec]:
    """What is trained, one spec a model."""
    from valence.methods.registry import make_spec

    if what.from_ is not None:
        return [_continued(what.from_, what, data, settings)]
    if what.config is not None:
        return [_configured(what.config, what, data, settings)]
    rows = data.spec(data.data)
    seed = SEED if what.seed is None else what.seed
    names = dict.fromkeys(what.method or [METHOD])
    return [make_spec(name, rows, seed=seed, settings=settings) for name in names]


def _configured(
    config: Path, what: WhatToTrain, data: DataOptions, settings: Mapping[str, Any]
) -> RunSpec:
    """The spec of a file, on the data of the command line."""
    from valence.config.yaml_text import read_settings_file
    from valence.methods.registry import read_spec

    try:
        spec = read_spec(read_settings_file(config))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"Config {config} cannot be read: {error}") from None
    named = {
        "data.name": data.data,
        "data.query": None,
        "data.table": None,
        "data.query_timeout": None,
    }
    seed = {} if what.seed is None else {"seed": what.seed}
    return spec.override({**named, **settings, **seed})


def _continued(
    folder: Path, what: WhatToTrain, data: DataOptions, settings: Mapping[str, Any]
) -> RunSpec:
    """The spec of a saved model's further training."""
    from valence.runs.continued import continued_spec

    console.info(
        "Note: the new test rows may include rows the model was trained on before; its test scores "
        "are valid only for new data"
    )
    return continued_spec(
        folder, data.spec(data.data), seed=what.seed, settings=settings, data_dir=data.data_dir,
        extend_labels=what.extend_labels,
    )  # fmt: skip


def _train(
    spec: RunSpec, store: RunStore, target: Path, *, start: Path | None,
    data_dir: Path | None, output: TrackedRunsOptions,
) -> RunResult:  # fmt: skip
    from valence.reports.records import record_run
    from valence.runs.runner import run

    check_target_folder(target)
    with console.Meter(quiet=output.quiet) as meter:
        result = run(
            spec, store=store, data_dir=data_dir, keep_model=True, start=start, track=output.track,
            progress=lambda fraction, words: meter.show_timed(spec.method, fraction, words),
        )  # fmt: skip
    mode: Literal["train", "continue"] = "train" if start is None else "continue"

    def hand_over() -> None:
        copy_model(store.path(result.key) / "model", target)
        record_run(store, result, target / "report", mode=mode)

    process_group.run_on_main_process(hand_over)
    if not output.quiet:
        for note in result.notes:
            console.info(f"Note: {note}")
        console.info(f"Model: {target}   Run: {store.path(result.key)}")
    return result


def _class_table(store: RunStore, result: RunResult) -> ClassTable | None:
    """Precision, recall and confusions of a run on its test rows."""
    rows = store.predictions(result.key)
    test = rows[rows["split"] == "test"]
    predicted = test["predicted"].to_numpy()
    return class_table(test["label"].to_numpy(), predicted, result.classes)


def _print_all(scores: dict[str, dict[str, Any]], output: TrackedRunsOptions) -> None:
    from valence.evaluation.classification import METRICS

    if output.json:
        console.print_json(scores)
        return
    names = [name for name in METRICS if any(own.get(name) is not None for own in scores.values())]
    rows = [
        [method, *(console.number(own[name]) for name in names)] for method, own in scores.items()
    ]
    heads = ["method", *(METRICS[name].title for name in names)]
    print_table(heads, rows, wide=output.wide)


def check_target_folder(target: Path) -> None:
    """Refuse a folder that holds something else before the training, not after it."""
    if target.exists() and not (target / "config.json").exists() and any(target.iterdir()):
        raise RunError(f"{target} is not empty and not a model folder; use another --out")


def copy_model(source: Path, target: Path) -> None:
    """Put the model at ``target`` whole; of what was there, only its report is kept."""
    with atomic.new_folder(target) as scratch:
        shutil.copytree(source, scratch, dirs_exist_ok=True)
        if (target / "report").is_dir():
            shutil.copytree(target / "report", scratch / "report", dirs_exist_ok=True)
