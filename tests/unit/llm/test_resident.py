"""How long language models live: one at a time, loaded once for all seeds."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.causal import make_causal
from valence.comparison import grid
from valence.config.data import DataSpec
from valence.data.demo import demo_dataset
from valence.llm import local
from valence.llm.resident import keep_language_model, open_language_model, release_language_model
from valence.methods.registry import make_spec
from valence.runs.store import RunStore


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Any]]:
    """A weak reference to every network that was loaded."""
    refs: list[weakref.ref[Any]] = []
    original = local.load_weights

    def load(name: str, **settings: Any) -> Any:
        network = original(name, **settings)
        refs.append(weakref.ref(network))
        return network

    monkeypatch.setattr(local, "load_weights", load)
    return refs


def _alive(refs: list[weakref.ref[Any]]) -> int:
    return sum(ref() is not None for ref in refs)


def test_a_grid_loads_a_model_once_for_all_seeds_and_keeps_none(
    loaded: list[weakref.ref[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = demo_dataset()
    few = replace(data, test=data.test.take(range(4)))
    monkeypatch.setattr("valence.comparison.executors.cells.load_dataset", lambda *_, **__: few)
    folders = [make_causal(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    specs = [
        make_spec("llm-zero-shot", DataSpec(), seed=seed,
                  settings={"llm.model": str(folder), "train.device": "cpu"})
        for folder in folders for seed in range(3)
    ]  # fmt: skip
    specs.append(make_spec("majority", DataSpec()))
    alive: list[int] = []
    gc.collect()
    gc.disable()  # nothing may wait for the collector
    try:
        outcome = grid.execute(
            specs,
            store=RunStore(tmp_path / "runs"),
            callback=lambda _: alive.append(_alive(loaded)),
        )
        assert [cell.status for cell in outcome.cells] == ["done"] * 7, outcome.cells
        assert len(loaded) == 2
        assert max(alive) == 1
        assert _alive(loaded) == 0
    finally:
        gc.enable()


def test_outside_a_grid_nothing_is_kept(loaded: list[weakref.ref[Any]], tmp_path: Path) -> None:
    folder = str(make_causal(tmp_path / "model"))
    for _ in range(2):
        open_language_model(folder, device="cpu").close()
        gc.collect()
    assert len(loaded) == 2
    assert _alive(loaded) == 0


def test_a_changed_folder_is_loaded_anew(loaded: list[weakref.ref[Any]], tmp_path: Path) -> None:
    folder = make_causal(tmp_path / "model")
    with keep_language_model():
        first = open_language_model(str(folder), device="cpu")
        same = open_language_model(str(folder), device="cpu", max_length=64)
        assert (first.model is same.model, same.limit) == (True, 64)
        open_language_model(str(folder), device="cpu", precision="bf16")
        assert len(loaded) == 2
        make_causal(folder, seed=5)
        other = open_language_model(str(folder), device="cpu", precision="bf16")
        assert len(loaded) == 3
        release_language_model(unless=str(folder))
        assert open_language_model(str(folder), device="cpu", precision="bf16").model is other.model
