"""Pools and Ray run the same grid as one process does, and a killed worker costs no cell."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.cluster import kill_all, workers
from valence.comparison import grid
from valence.comparison.executors import process_pool
from valence.comparison.executors.base import (
    FINAL,
    Batch,
    OnEvent,
    RunEvent,
    Sizes,
)
from valence.comparison.executors.cells import DependencyQueue
from valence.comparison.executors.table import make_executor
from valence.comparison.grid import Comparison, GridProgress, Outcome
from valence.config.data import DataSpec
from valence.config.spec import RunSpec
from valence.distributed.ray_cluster import Cluster
from valence.errors import RunError, UnknownNameError
from valence.methods.registry import make_spec
from valence.models.cpu import usable_cores
from valence.runs.store import RunStore

METHODS = ("majority", "tfidf-lr", "lora", "lora-posthoc")
POOL = "LokyProcess"


@pytest.fixture(scope="module")
def specs(reviews: Path, tiny_settings: dict[str, object]) -> list[RunSpec]:
    """Four cells; one takes so long that it can be killed in its middle."""
    comparison = Comparison(
        data=(DataSpec(name=str(reviews)),), methods=METHODS, seeds=(45,),
        settings=tiny_settings,
        method_settings={name: {"train.epochs": 12} for name in ("lora", "lora-posthoc")},
    )  # fmt: skip
    return grid.plan(comparison)


@pytest.fixture(scope="module")
def wanted(specs: list[RunSpec], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return grid.execute(specs, store=RunStore(tmp_path_factory.mktemp("one") / "runs"))


def check_same(outcome: Outcome, wanted: Outcome, store: RunStore) -> None:
    assert [(c.status, c.error) for c in outcome.cells] == [("done", "")] * len(wanted.cells)
    for cell, other in zip(outcome.cells, wanted.cells, strict=True):
        assert cell.result is not None
        assert other.result is not None
        assert cell.result.key == other.result.key
        assert cell.result.test == pytest.approx(other.result.test, abs=1e-6, nan_ok=True)
    folders = {path.parent.name for path in store.root.glob("*/result.json")}
    assert folders >= {cell.result.key for cell in wanted.cells if cell.result is not None}
    assert not list((store.root / ".unfinished").glob("*"))


class Killer:
    """Kills the workers, once, when a training is under way.

    Ray's news come half a second late, so there the first is late enough.
    """

    def __init__(self, word: str, *, at: float = 0.0) -> None:
        self.word = word
        self.at = at
        self.seen: list[GridProgress] = []
        self.killed = 0

    def __call__(self, now: GridProgress) -> None:
        self.seen.append(now)
        if not self.killed and now.cell.spec.method == "lora" and self.at <= now.share < 1:
            self.killed = kill_all(self.word)


def check_killed(killer: Killer, outcome: Outcome) -> None:
    assert killer.killed
    assert sum(cell.repeats for cell in outcome.cells) >= 1
    assert any("run again" in now.message for now in killer.seen)
    assert all(now.seconds_left is None or now.seconds_left >= 0 for now in killer.seen)


def test_pool_is_as_one_process_though_its_workers_are_killed(
    specs: list[RunSpec], wanted: Outcome, tmp_path: Path
) -> None:
    store = RunStore(tmp_path / "runs")
    killer = Killer(POOL, at=0.1)
    executor = make_executor("local", Cluster(workers=2))
    outcome = grid.execute(specs, store=store, callback=killer, executor=executor)
    check_same(outcome, wanted, store)
    check_killed(killer, outcome)
    assert workers(POOL) == []


def test_a_dead_worker_costs_its_own_cell_alone(
    specs: list[RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two at work one is killed, and killed again: its cell fails, the other goes on."""
    lora = next(spec for spec in specs if spec.method == "lora")
    monkeypatch.setattr(process_pool, "RETRIES", 1)
    events: list[tuple[int, RunEvent]] = []
    survivor: list[int] = []

    def on_event(number: int, event: RunEvent) -> None:
        events.append((number, event))
        lost = [n for n, e in events if e.status == "retried"]
        if not survivor:  # both have their cells from the beginning; one may start late
            survivor.append(max(workers(POOL)))
            os.kill(min(workers(POOL)), signal.SIGKILL)
        elif len(lost) == 1 and number == lost[0] and event.status == "started":
            os.kill(next(p for p in workers(POOL) if p not in survivor), signal.SIGKILL)

    two = [lora, lora.override({"seed": 7})]
    make_executor("local", Cluster(workers=2)).run(Batch(two, tmp_path), on_event)
    ((number, again),) = [(n, e) for n, e in events if e.status == "retried"]
    assert again.message == "worker lost (SIGKILL(-9)), run again"
    finals = {n: e for n, e in events if e.status in FINAL}
    assert finals[number].message == "its worker was lost 2 times, last reason: SIGKILL(-9)"
    assert finals[1 - number].status == "done"
    assert sum(e.status == "started" for n, e in events if n != number) == 1
    assert workers(POOL) == []


CELLS = """
import os, sys, time, types
from collections import deque

class CellRunner:
    def __init__(self, root, data_dir, track=None):
        pass

    def run(self, spec, emit):
        from valence.comparison.executors.base import RunEvent
        print("noise on stdout", flush=True)
        print("noise on stderr", file=sys.stderr, flush=True)
        words = f"{os.environ['OMP_NUM_THREADS']} {os.environ['MKL_NUM_THREADS']}"
        emit(RunEvent("progress", 0.5, words))
        time.sleep(spec.seed)
        emit(RunEvent("failed", message=words))

class DependencyQueue:
    def __init__(self, specs):
        self.ready = deque(range(len(specs)))

    def take(self):
        return self.ready.popleft() if self.ready else None

    def finished(self, number):
        pass

cells = types.ModuleType("valence.comparison.executors.cells")
cells.CellRunner, cells.DependencyQueue = CellRunner, DependencyQueue
sys.modules[cells.__name__] = cells
"""
GRID = """
from pathlib import Path
from valence.comparison.executors.base import Batch
from valence.comparison.executors.process_pool import ProcessPool
from valence.config.spec import RunSpec

specs = [RunSpec(seed=seed) for seed in (0, 0, 100, 101)]
on_event = lambda number, event: print(number, event.status, event.message, flush=True)
ProcessPool(2).run(Batch(specs, Path("runs")), on_event)
"""


def test_workers_are_silent_have_their_threads_and_end_with_the_pool(tmp_path: Path) -> None:
    """By a process of its own, which is killed while its workers sleep in their cells."""
    (tmp_path / "sitecustomize.py").write_text(CELLS, encoding="utf-8")
    parent = subprocess.Popen(
        [sys.executable, "-c", GRID], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        cwd=tmp_path,
    )  # fmt: skip
    with parent:
        assert parent.stdout is not None
        lines = [parent.stdout.readline().strip() for _ in range(6)]
        below = psutil.Process(parent.pid).children(recursive=True)
        at_work = [process.pid for process in below if POOL in " ".join(process.cmdline())]
        sessions = [os.getsid(pid) for pid in at_work]
        parent.kill()
        _, alive = psutil.wait_procs(below, timeout=20)
        assert not alive
        _, errors = parent.communicate()
    threads = max(1, usable_cores() // 2)
    events = ("0 failed", "0 progress", "1 failed", "1 progress", "2 progress", "3 progress")
    assert sorted(lines) == [f"{event} {threads} {threads}" for event in events]
    assert len(at_work) == 2
    assert sessions == at_work, "each in a session of its own"
    assert "noise" not in errors


@pytest.mark.slow
def test_ray_is_as_one_process_though_its_workers_are_killed(
    specs: list[RunSpec], wanted: Outcome, tmp_path: Path, ray: Cluster
) -> None:
    store = RunStore(tmp_path / "runs")
    killer = Killer("ray::work")
    executor = make_executor("ray", ray)
    outcome = grid.execute(specs, store=store, callback=killer, executor=executor)
    check_same(outcome, wanted, store)
    check_killed(killer, outcome)
    again = grid.execute(specs, store=store, executor=executor)
    assert {cell.status for cell in again.cells} == {"cached"}


@pytest.mark.parametrize("name", ["local", "ray"])
def test_ctrl_c_keeps_finished_cells_and_stops_the_others(
    name: str, specs: list[RunSpec], tmp_path: Path, ray: Cluster
) -> None:
    def stop(now: GridProgress) -> None:
        if now.cell.spec.method == "lora" and now.share > 0:
            raise KeyboardInterrupt

    store = RunStore(tmp_path / "runs")
    executor = make_executor(name, Cluster(workers=2))
    outcome = grid.execute(specs, store=store, callback=stop, executor=executor)
    assert outcome.interrupted
    assert {cell.status for cell in outcome.cells} == {"done", "waiting"}
    kept = {path.parent.name for path in store.root.glob("*/result.json")}
    assert {cell.result.key for cell in outcome.cells if cell.result} <= kept
    assert workers(POOL) == []


def test_a_cell_that_fails_on_ray_does_not_stop_the_others(
    specs: list[RunSpec], tmp_path: Path, ray: Cluster
) -> None:
    broken = specs[0].override({"data.name": str(tmp_path / "none.csv")})
    store = RunStore(tmp_path / "runs")
    outcome = grid.execute([broken, specs[0]], store=store, executor=make_executor("ray", ray))
    assert [cell.status for cell in outcome.cells] == ["failed", "done"]
    assert "none.csv" in outcome.failures[0].error


def test_no_machine_with_what_a_run_asks_for(
    specs: list[RunSpec], tmp_path: Path, ray: Cluster
) -> None:
    executor = make_executor("ray", Cluster(cpus=1, gpus=5))
    with pytest.raises(RunError, match="No machine of the Ray cluster has 1 CPUs and 5 GPUs"):
        grid.execute(specs, store=RunStore(tmp_path), executor=executor)


class Said:
    """An executor that only says what it is given."""

    def __init__(self, *news: tuple[int, RunEvent]) -> None:
        self.news = news

    def run(self, batch: Batch, on_event: OnEvent) -> None:
        for number, news in self.news:
            on_event(number, news)


def test_a_result_that_is_not_seen_is_said(
    specs: list[RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "SEEN_SECONDS", 0.1)
    with pytest.raises(RunError, match="Run elsewhere is done but missing in"):
        grid.execute(
            specs, store=RunStore(tmp_path), executor=Said((0, RunEvent("done", key="elsewhere")))
        )


def test_time_left_is_measured_and_shared_by_those_at_work(
    specs: list[RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(grid.time, "monotonic", lambda: float(next(now)))
    lora = next(spec for spec in specs if spec.method == "lora")
    slow = [lora, lora.override({"seed": 7})]
    seen: list[GridProgress] = []
    sizes = Sizes(1000, 100, 100)
    begun = [(i, RunEvent("started", sizes=sizes)) for i in range(2)]
    half = [(i, RunEvent("progress", share=0.5)) for i in range(2)]
    late = [(0, RunEvent("failed", message="no")), (0, RunEvent("progress", share=0.9))]
    executor = Said(*begun, *half, *late)
    grid.execute(slow, store=RunStore(tmp_path), callback=seen.append, executor=executor)
    one, two, *_, last = seen
    assert (one.seconds_left, two.seconds_left) == (None, None)  # nothing was measured
    assert last.seconds_left is not None
    assert 0 < last.seconds_left < 1000
    assert [s.total for s in seen] == [0.0, 0.0, 0.25, 0.5]
    assert (last.done, last.at_work, len(seen)) == (0, 2, 4)


def test_progress_of_a_grid_is_by_work(specs: list[RunSpec], tmp_path: Path) -> None:
    """A method that encodes nothing takes a little part; one that trains longer takes more."""
    short = next(spec for spec in specs if spec.method == "lora")
    cells = [make_spec("tfidf-lr", short.data), short,
             short.override({"train.epochs": 3 * int(short.get("train.epochs"))})]  # fmt: skip
    seen: list[GridProgress] = []
    sizes = Sizes(1000, 0, 0)
    events = [(i, RunEvent("started", sizes=sizes)) for i in range(3)]
    events += [(0, RunEvent("progress", share=1.0)), (1, RunEvent("progress", share=1.0))]
    grid.execute(cells, store=RunStore(tmp_path), callback=seen.append, executor=Said(*events))
    assert [s.total for s in seen[:3]] == [0.0, 0.0, 0.0]
    assert 0.01 < seen[3].total < 0.05
    assert 0.25 < seen[4].total < 0.33


def test_cells_of_one_training_come_one_after_another(specs: list[RunSpec]) -> None:
    lanes = DependencyQueue(specs)
    first = []
    while (number := lanes.take()) is not None:
        first.append(number)
    assert len(first) == lanes.width < len(specs)
    waiting = set(range(len(specs))) - set(first)
    for number in first:
        lanes.finished(number)
    while (number := lanes.take()) is not None:
        waiting.remove(number)
    assert not waiting


def test_unknown_executor_and_wrong_numbers() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'ray'"):
        make_executor("rya")
    with pytest.raises(RunError, match="0 workers"):
        Cluster(workers=0)
    with pytest.raises(RunError, match="more than 0 CPUs"):
        Cluster(cpus=0)


def test_without_ray_its_name_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError, match=r"pip install 'valence\[ray\]'"):
        grid.execute([], store=RunStore(tmp_path), executor=make_executor("ray"))


def test_a_cluster_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'valence[ray]'")
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        executor = make_executor("ray", Cluster(address))
        with pytest.raises(RunError, match=f"Cannot reach the Ray cluster {address}: "):
            grid.execute([], store=RunStore(tmp_path), executor=executor)
