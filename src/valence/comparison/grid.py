"""Comparisons: methods × data × seeds × sweep axes → specs, and running what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from valence.comparison.executors.base import Batch, Executor, RunEvent
from valence.comparison.executors.cost_model import Clock
from valence.comparison.executors.table import make_executor
from valence.comparison.layers import read_layers
from valence.config.data import DataSpec
from valence.config.sections import BUILT_IN_ENCODER
from valence.config.spec import RunSpec, build, check_path
from valence.data.groups import transfer_sets
from valence.data.sources import load_dataset
from valence.distributed import process_group
from valence.errors import RunError, SpecError
from valence.methods.base import Sizes
from valence.methods.registry import find_method, make_spec, trained_part
from valence.runs.store import RunResult, RunStore
from valence.runs.tracking import check_tracker

SEEN_SECONDS = 10.0  # that a network folder may take to show what another machine wrote
LEAST_WORK = 0.1  # of a cell, as a fraction of the mean work


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
    target_rows: tuple[int, ...] = ()
    """Numbers of labeled rows of the group left out, to compare with none of it."""
    published: dict[str, dict[str, float]] = {}
    """Published scores by method and metric, shown beside ours."""
    published_for: dict[str, Any] = {}
    """Dotted settings a set-up must have for the published scores to stand beside it."""
    published_source: str = ""
    scaled_down: dict[str, str] = {}
    """Why it differs from the set-up it extends, by setting or field; every difference is named."""


def read_comparison(path: str | Path) -> Comparison:
    """The comparison a YAML file describes, over the file it ``extends`` if it does.

    Raises:
        SpecError: if the file is missing, is no YAML, or has a wrong field.
    """
    values = read_layers(path)
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
        raise SpecError("There are no methods to compare; add some with --methods")
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
            specs.setdefault((name, seed, variant.digest()), variant)
    if comparison.sweep and not swept:
        axes = ", ".join(comparison.sweep)
        raise SpecError(f"No compared method uses {axes}; sweep another setting")
    return sorted(specs.values(), key=_is_trained)


def _is_trained(spec: RunSpec) -> bool:
    """Whether a run takes long: such runs come last."""
    return find_method(spec.method).family != "baseline"


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
        sets += transfer_sets(spec, rows, comparison.transfer, comparison.target_rows)
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
    requested = comparison.sweep_methods
    if (requested and spec.method not in requested) or not all(
        _is_read(spec, axis) for axis in comparison.sweep
    ):
        return []
    points = product(*comparison.sweep.values())
    return [spec.override(dict(zip(comparison.sweep, point, strict=True))) for point in points]


def _is_read(spec: RunSpec, axis: str) -> bool:
    """Whether a setting changes the result of a spec."""
    check_path(axis)
    if axis.startswith("data."):
        return True
    base = trained_part(spec)
    return axis in find_method(base.method).reads(base.config)


@dataclass
class Cell:
    """One run of a grid and what became of it."""

    spec: RunSpec
    status: Literal["waiting", "cached", "done", "failed"] = "waiting"
    result: RunResult | None = None
    error: str = ""
    seconds: float = 0.0
    repeats: int = 0
    """How often it was run again because its worker was lost."""


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
class GridProgress:
    """How far a grid is; handed to the callback after every change.

    Attributes:
        done: Cells finished, cached or failed.
        cells: All cells.
        cell: The cell at work.
        share: Fraction of that cell's training that is done.
        message: What happened last in it.
        seconds_left: Estimate for the rest of the grid; None before anything was measured.
        at_work: Cells that are run at this moment.
        total: Fraction of the whole grid that is done, cells at work included.
    """

    done: int
    cells: int
    cell: Cell
    share: float
    message: str
    seconds_left: float | None
    at_work: int = 1
    total: float = 0.0


GridCallback = Callable[[GridProgress], None]


def execute(
    specs: Sequence[RunSpec],
    *,
    store: RunStore,
    data_dir: str | Path | None = None,
    callback: GridCallback | None = None,
    executor: Executor | None = None,
    track: str | None = None,
) -> Outcome:
    """Run every spec that has no result yet; a cell that fails does not stop the others.

    Ctrl-C ends it cleanly: finished cells are kept and the next call goes on from there.

    Args:
        specs: What to run.
        store: Where results are and go.
        data_dir: Folder of corpora, as for ``load_dataset``.
        callback: Called with how far it is.
        executor: Who runs the cells; this process when not given.
        track: A tool that every run is logged to: a name of ``TRACKERS``.

    Raises:
        UnknownNameError: if there is no such tool.
        RunError: if the executor cannot begin, or writes results that are not seen here.
    """
    process_group.require_single_process(
        "A comparison", "use --workers or --executor, or train one method with several processes"
    )
    check_tracker(track)
    outcome = Outcome([Cell(spec) for spec in specs])
    table = _ProgressTable(outcome, store, callback)
    try:
        batch = Batch(specs, store.root, data_dir, track)
        (executor or make_executor("local")).run(batch, table.on_event)
    except KeyboardInterrupt:
        outcome.interrupted = True
    return outcome


class _ProgressTable:
    """Keeps the cells as the executor's events say, and calls back after each."""

    def __init__(self, outcome: Outcome, store: RunStore, callback: GridCallback | None) -> None:
        self.cells = outcome.cells
        self.store = store
        self.callback = callback
        self.clock = Clock()
        self.fractions: dict[int, float] = {}
        self.most_at_work = 1
        self.sizes: dict[str, Sizes] = {}
        self.shown = 0.0
        self.begun: dict[int, float] = {}

    def on_event(self, number: int, event: RunEvent) -> None:
        cell = self.cells[number]
        if cell.status != "waiting":
            return  # it came late
        if event.sizes is not None:
            self.sizes[cell.spec.data.name] = event.sizes
        if event.status in ("started", "progress"):
            self.fractions[number] = event.share
            self.begun.setdefault(number, time.monotonic())
            self.most_at_work = max(self.most_at_work, len(self.fractions))
            self._notify(number, event)
            return
        self.fractions.pop(number, None)
        self.begun.pop(number, None)
        if event.status == "retried":
            cell.repeats += 1
            self._notify(number, event)
        elif event.status == "failed":
            cell.status, cell.error = "failed", event.message
        else:
            cell.result, cell.seconds = self._seen(event.key), event.seconds
            cell.status = "cached" if event.status == "cached" else "done"
            if cell.status == "done":
                self.clock.add(self._work(cell), cell.seconds)
                self._notify(number, event)

    def _seen(self, key: str) -> RunResult:
        """The result of a cell that is done; a network folder may show it a little later."""
        deadline = time.monotonic() + SEEN_SECONDS
        while (result := self.store.get(key)) is None:
            if time.monotonic() > deadline:
                raise RunError(
                    f"Run {key} is done but missing in {self.store.root}; set --runs to a folder "
                    "that all machines share under the same path"
                )
            time.sleep(0.2)
        return result

    def _work(self, cell: Cell) -> float:
        """Work of a cell; one of data not seen yet is taken to be as large as the last."""
        last = next(reversed(self.sizes.values()), None)
        sizes = self.sizes.get(cell.spec.data.name, last)
        if sizes is None:
            return 0.0
        return find_method(cell.spec.method).cost(cell.spec.config, sizes)

    def _notify(self, number: int, event: RunEvent) -> None:
        if self.callback is None:
            return
        cell = self.cells[number]
        finished = sum(c.status != "waiting" for c in self.cells if c is not cell)
        left = [
            self._work(c) * (1 - self.fractions.get(i, 0.0))
            for i, c in enumerate(self.cells)
            if c.status == "waiting"
        ]
        # Together they are no faster than the longest of them.
        share = max([sum(left) / self.most_at_work, *left])
        now = time.monotonic()
        running = [
            (self._work(self.cells[i]) * fraction, now - self.begun[i])
            for i, fraction in self.fractions.items() if fraction > 0
        ]  # fmt: skip
        self.callback(
            GridProgress(
                finished, len(self.cells), cell, event.share, event.message,
                self.clock.left(share, running), len(self.fractions), self._total(),
            )
        )  # fmt: skip

    def _total(self) -> float:
        """Fraction of all work that is done; a cell that encodes nothing takes a little, too."""
        works = [self._work(cell) for cell in self.cells]
        least = LEAST_WORK * sum(works) / len(works) or 1.0
        works = [work + least for work in works]
        done = sum(
            work * (1.0 if cell.status != "waiting" else self.fractions.get(number, 0.0))
            for number, (cell, work) in enumerate(zip(self.cells, works, strict=True))
        )
        self.shown = max(self.shown, done / sum(works))  # sizes of other data may change it
        return self.shown
