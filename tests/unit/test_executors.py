"""Pools and Ray run the same grid as one process does, and a killed worker costs no cell."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from valence import grid
from valence.cluster import Cluster
from valence.errors import RunError, SpecError, UnknownNameError
from valence.executors import Batch, Hear, News, Sizes, make_executor
from valence.executors.cells import Lanes
from valence.grid import Comparison, Outcome, Standing
from valence.methods import make_spec
from valence.runs import RunStore
from valence.spec import DataSpec

METHODS = ("majority", "tfidf-lr", "weighted-ce", "logit-adjust-posthoc")


@pytest.fixture(scope="module")
def specs(reviews: Path, tiny_settings: dict[str, object]) -> list[grid.RunSpec]:
    posthoc = next(n for n, m in grid_methods().items() if m.kind == "posthoc")
    base = grid_methods()[posthoc].of
    assert base is not None
    comparison = Comparison(
        data=(DataSpec(name=str(reviews)),),
        methods=("majority", "tfidf-lr", base, posthoc),
        seeds=(45, 7),
        settings=tiny_settings,
    )
    return grid.plan(comparison)


def grid_methods():
    from valence.methods import METHODS

    return METHODS


@pytest.fixture(scope="module")
def wanted(specs, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    store = RunStore(tmp_path_factory.mktemp("one") / "runs")
    return grid.execute(specs, store=store)


def check_same(outcome: Outcome, wanted: Outcome, store: RunStore) -> None:
    assert [(c.status, c.error) for c in outcome.cells] == [("done", "")] * len(wanted.cells)
    for cell, other in zip(outcome.cells, wanted.cells, strict=True):
        assert cell.result is not None
        assert other.result is not None
        assert cell.result.key == other.result.key
        assert cell.result.test == pytest.approx(other.result.test, abs=1e-6, nan_ok=True)
    folders = {path.name for path in store.root.iterdir() if (path / "result.json").exists()}
    assert folders == {cell.result.key for cell in wanted.cells if cell.result is not None}
    assert not list((store.root / ".unfinished").glob("*.writing"))


class Killer:
    """Kills, once, the process that trains a cell, when the training has begun."""

    def __init__(self, store: RunStore, find) -> None:
        self.find = find
        self.seen: list[Standing] = []
        self.killed = 0

    def __call__(self, now: Standing) -> None:
        self.seen.append(now)
        if not self.killed and now.cell.spec.kind == "torch":
            self.killed = self.find()
            os.kill(self.killed, signal.SIGKILL)
