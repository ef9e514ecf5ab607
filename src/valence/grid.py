"""Comparisons: methods × data × seeds × sweep axes → specs, and running what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from valence import processes
from valence.data.dataset import Dataset
from valence.data.groups import transfer_sets
from valence.data.sources import load_dataset
from valence.errors import SpecError, UnknownNameError
from valence.losses.table import reads
from valence.methods import find_method, make_spec, trained_part
from valence.models.heads import head_reads
from valence.run import run
from valence.runs import RunResult, RunStore
from valence.spec import (
    BUILT_IN_ENCODER,
    DataSpec,
    RunSpec,
    build,
    parse_yaml,
    setting_paths,
)

# Work of training on a text once, in units of scoring it once (forward, backward, step).
TRAINING_WORK = 3.5
# Training a head on states that are at hand, in units of training the encoder too.
HEAD_WORK = 0.1
# A language model's answer, in the same units: a guess, since models differ by thousands.
ANSWER_WORK = 100.0
# Texts scored a second by the built-in encoder on two cores; replaced by what is measured
# as soon as one cell is done.
FIRST_GUESS_RATE = 200.0


class Comparison(BaseModel):
    """What is compared; the contents of a file in ``configs/``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = ""
    data: tuple[DataSpec, ...] = (DataSpec(),)
    methods: tuple[str, ...] = ()
    baseline: str | None = None
    """The method the others are tested against; the first when not given."""
    seeds: tuple[int, ...] = (45, 123, 789, 2024, 1001)
    """The published seeds of Hy-Mora."""
    settings: dict[str, Any] = {}
    """Dotted settings of all methods; what makes a method wins over them."""
    encoder_settings: dict[str, dict[str, Any]] = {}
    """Dotted settings where an encoder, by name, stands in for the published one."""
    method_settings: dict[str, dict[str, Any]] = {}
    """Dotted settings of single methods; they win over everything but the command line."""
    sweep: dict[str, tuple[Any, ...]] = {}
    sweep_methods: tuple[str, ...] = ()
    """The methods that are swept; all that read the setting when not given."""
    transfer: Literal["none", "matrix", "leave-one-out"] = "none"
    """Train on each group alone, or on all but each, and test on every group."""
    published: dict[str, dict[str, float]] = {}
    """Published scores by method and metric, shown beside ours."""
    published_for: dict[str, Any] = {}
    """Dotted settings a set-up must have for the published scores to stand beside it."""
    published_source: str = ""


def read_comparison(path: str | Path) -> Comparison:
    """The comparison a YAML file describes.

    Raises:
        SpecError: if the file is missing, is no YAML, or has a wrong field.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"Config {path} cannot be read: {error}") from None
    values = parse_yaml(text, where=str(path)) or {}
    if not isinstance(values, dict):
        raise SpecError(f"Config {path} must be a mapping of names to values")
    if isinstance(values.get("data"), dict):
        values["data"] = [values["data"]]
    return build(Comparison, values)


def plan(comparison: Comparison, overrides: Mapping[str, Any] | None = None) -> list[RunSpec]:
    """Every spec of a comparison, each once, cheap kinds and whole seeds first.

    Args:
        comparison: What is compared.
        overrides: Dotted settings from the command line; they win over everything.

    Raises:
        UnknownNameError: if a method or setting is unknown.
        SpecError: if a sweep changes nothing in any method.
    """
    if not comparison.methods:
        raise SpecError("There are no methods to compare; name some with --methods")
    for name in comparison.method_settings:
        find_method(name)
    specs: dict[tuple[str, int, str], RunSpec] = {}
    swept = False
    for seed, data, name in product(comparison.seeds, comparison.data, comparison.methods):
        spec = make_spec(
            name, data, seed=seed, common=_common(comparison, overrides or {}),
            settings={**comparison.method_settings.get(name, {}), **(overrides or {})},
        )  # fmt: skip
        variants = [spec, *_swept(spec, comparison)]
        swept = swept or len(variants) > 1
        for variant in variants:
            specs.setdefault((name, seed, variant.hash()), variant)
    if comparison.sweep and not swept:
        axes = ", ".join(comparison.sweep)
        raise SpecError(f"No compared method reads {axes}; sweep a setting that one of them uses")
    return sorted(specs.values(), key=lambda spec: spec.kind != "sklearn")


def with_transfer(
    comparison: Comparison,
    overrides: Mapping[str, Any] | None = None,
    data_dir: str | Path | None = None,
) -> Comparison:
    """The comparison with one data spec per training that its ``transfer`` asks for.

    Args:
        comparison: What is compared; unchanged without a transfer.
        overrides: Dotted settings from the command line; those of the data decide the groups.
        data_dir: Folder of corpora, as for ``load_dataset``.

    Raises:
        DataError: if a source cannot be read or has fewer than two groups.
        SpecError: if groups to train on are named beside a transfer.
    """
    if comparison.transfer == "none":
        return comparison
    given = {**comparison.settings, **(overrides or {})}
    settings = {path: value for path, value in given.items() if path.startswith("data.")}
    sets: list[DataSpec] = []
    for data in comparison.data:
        spec = RunSpec(data=data).override(settings).data
        rows = load_dataset(spec, seed=comparison.seeds[0], data_dir=data_dir)
        sets += transfer_sets(spec, rows, comparison.transfer)
    return comparison.model_copy(update={"data": tuple(sets)})


def _common(comparison: Comparison, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of all methods, with those of the encoder that is used."""
    settings = comparison.settings
    encoder = {**settings, **overrides}.get("encoder.name", BUILT_IN_ENCODER)
    return {**settings, **comparison.encoder_settings.get(str(encoder), {})}


def _swept(spec: RunSpec, comparison: Comparison) -> Iterable[RunSpec]:
    """The spec at every point of the sweep, if its method reads every axis."""
    if not comparison.sweep:
        return []
    wanted = comparison.sweep_methods
    if (wanted and spec.method not in wanted) or not all(
        _is_read(spec, axis) for axis in comparison.sweep
    ):
        return []
    points = product(*comparison.sweep.values())
    return [spec.override(dict(zip(comparison.sweep, point, strict=True))) for point in points]


def _is_read(spec: RunSpec, axis: str) -> bool:
    if axis not in setting_paths():
        raise UnknownNameError("setting", axis, setting_paths())
    part, _, name = axis.partition(".")
    spec = trained_part(spec)
    if spec.kind == "fusion":
        return part in ("data", "train", "fusion") or axis in ("encoder.name", "loss.name")
    if spec.kind == "llm":
        return part in ("data", "llm")
    if spec.kind != "torch" or part == "llm" or part == "fusion":
        return part == "data"
    if part == "loss":
        return name in reads(spec.loss) | {"name", "contrast"}
    if name.startswith("lora_"):
        return spec.encoder.adaptation in ("lora", "dora")
    if part == "head":
        return name in head_reads(spec.head.name) | {"name"}
    return True


@dataclass
class Cell:
    """One run of a grid and what became of it."""

    spec: RunSpec
    status: Literal["waiting", "there", "done", "failed"] = "waiting"
    result: RunResult | None = None
    error: str = ""
    seconds: float = 0.0


@dataclass
class Outcome:
    """What a grid ended with.

    Attributes:
        cells: Every cell, in the order of the plan.
        interrupted: True where the user stopped it; the cells left are "waiting".
    """

    cells: list[Cell] = field(default_factory=list)
    interrupted: bool = False

    @property
    def results(self) -> list[RunResult]:
        """Results of the cells that are finished."""
        return [cell.result for cell in self.cells if cell.result is not None]

    @property
    def failures(self) -> list[Cell]:
        """The cells that failed."""
        return [cell for cell in self.cells if cell.status == "failed"]


@dataclass(frozen=True)
class Standing:
    """How far a grid is; handed to the observer after every change.

    Attributes:
        done: Cells finished, found or failed.
        cells: All cells.
        cell: The cell at work.
        share: Share of that cell's training that is done.
        words: What happened last in it.
        seconds_left: Estimate for the rest of the grid.
    """

    done: int
    cells: int
    cell: Cell
    share: float
    words: str
    seconds_left: float


Observer = Callable[[Standing], None]


def execute(
    specs: Sequence[RunSpec],
    *,
    store: RunStore,
    data_dir: str | Path | None = None,
    observer: Observer | None = None,
) -> Outcome:
    """Run every spec that has no result yet; a cell that fails does not stop the others.

    Ctrl-C ends it cleanly: finished cells are kept and the next call goes on from there.

    Args:
        specs: What to run.
        store: Where results are and go.
        data_dir: Folder of corpora, as for ``load_dataset``.
        observer: Told how far it is.
    """
    processes.one_process(
        "A comparison", "give --workers or --executor, or train one method with several processes"
    )
    outcome = Outcome([Cell(spec) for spec in specs])
    clock = _Clock()
    datasets: dict[str, Dataset] = {}
    try:
        for number, cell in enumerate(outcome.cells):
            _run_cell(cell, number, outcome, _Desk(store, data_dir, observer, clock, datasets))
    except KeyboardInterrupt:
        outcome.interrupted = True
    return outcome


class _Clock:
    """Turns work into seconds, by what the finished cells took."""

    def __init__(self) -> None:
        self.work = 0.0
        self.seconds = 0.0

    def left(self, work: float) -> float:
        rate = self.work / self.seconds if self.seconds > 1 else FIRST_GUESS_RATE
        return work / rate

    def add(self, work: float, seconds: float) -> None:
        if work > 0:  # cells that encode nothing say nothing of the encoder's speed
            self.work += work
            self.seconds += seconds


@dataclass(frozen=True)
class _Desk:
    store: RunStore
    data_dir: str | Path | None
    observer: Observer | None
    clock: _Clock
    datasets: dict[str, Dataset]

    def dataset(self, spec: RunSpec) -> Dataset:
        seed = spec.data.cut_seed if spec.data.cut_seed is not None else spec.seed
        name = f"{spec.data.model_dump_json()}/{seed}"
        if name not in self.datasets:
            self.datasets.clear()  # cells of one data set and seed stand together in the plan
            self.datasets[name] = load_dataset(spec.data, seed=spec.seed, data_dir=self.data_dir)
        return self.datasets[name]


def _run_cell(cell: Cell, number: int, outcome: Outcome, desk: _Desk) -> None:
    rest = outcome.cells[number + 1 :]
    key = ""
    try:
        dataset = desk.dataset(cell.spec)
        key = desk.store.key(cell.spec, dataset.fingerprint)
        found = desk.store.get(key)
        if found is not None:
            cell.result, cell.status = found, "there"
            return
        work = cost(cell.spec, dataset)

        def report(share: float, words: str) -> None:
            if desk.observer is not None:
                left = desk.clock.left(
                    work * (1 - share) + sum(cost(c.spec, dataset) for c in rest)
                )
                desk.observer(Standing(number, len(outcome.cells), cell, share, words, left))

        report(0.0, "starting")
        clock = time.perf_counter()
        cell.result = run(cell.spec, store=desk.store, dataset=dataset, report=report)
        cell.seconds = time.perf_counter() - clock
        cell.status = "done"
        desk.clock.add(work, cell.seconds)
        report(1.0, f"done, test {headline(cell.result.test)}")
    except Exception as error:  # whatever breaks one cell, the others still run
        cell.status, cell.error = (
            "failed",
            str(error).splitlines()[0] if str(error) else repr(error),
        )
        desk.store.record_failure(key or f"{cell.spec.method}-s{cell.spec.seed}", error)


def headline(test: Mapping[str, float | None]) -> str:
    """The score a finished cell is told by."""
    name, title = ("mae", "MAE") if "mae" in test else ("macro_f1", "macro-F1")
    value = test.get(name)
    return f"{title} {value:.3f}" if value is not None else f"{title} –"


def cost(spec: RunSpec, dataset: Dataset) -> float:
    """Expected work of a run, in texts scored once by its encoder."""
    if spec.method in ("majority", "tfidf-lr") or spec.kind == "posthoc":
        return 0.0
    if spec.kind == "llm":
        return ANSWER_WORK * len(dataset.test)
    train, validation = len(dataset.train), len(dataset.validation)
    if spec.kind == "sklearn":
        return float(train + validation + len(dataset.test))
    steps = max(1, train // (spec.train.batch_size * spec.train.accumulation))
    evaluations = spec.train.epochs * (
        steps / spec.train.eval_steps if spec.train.eval_steps else 1
    )
    views = 1 if spec.view.name == "none" else 2
    learned = TRAINING_WORK * spec.train.epochs * train * views
    if spec.encoder.adaptation == "frozen":  # encoded once, then the head alone
        learned = train + HEAD_WORK * learned
    return learned + (evaluations + 1) * validation + len(dataset.test)
