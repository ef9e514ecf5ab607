"""Runs: sealed test, nothing half-written, interrupted runs go on, right parameter groups."""

from __future__ import annotations

import errno
import json
from dataclasses import fields, replace
from math import prod
from pathlib import Path

import numpy as np
import pytest

from tests.models import untrained
from valence.comparison import grid
from valence.config.data import DataSpec
from valence.config.spec import RunSpec
from valence.data.dataset import Dataset, TrainingData
from valence.data.sources import load_dataset
from valence.errors import DataError, ModelError, RunError, SpecError, UnknownNameError
from valence.methods.registry import make_spec
from valence.models.loader import load_model
from valence.runs.runner import run
from valence.runs.store import RunStore
from valence.training.trainer import EncodedTrainer, TrainingRows
from valence.training.training_args import training_arguments


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture(scope="module")
def data(reviews: Path) -> Dataset:
    return load_dataset(DataSpec(name=str(reviews)), seed=45)


@pytest.fixture
def spec(reviews: Path, tiny_settings: dict[str, object]) -> RunSpec:
    return make_spec("hy-mora", DataSpec(name=str(reviews)), common=tiny_settings)


def test_training_is_handed_no_test_rows(data: Dataset) -> None:
    assert {field.name for field in fields(TrainingData)} == {
        "classes", "tail", "train", "validation", "scale", "group", "row_weights",
    }  # fmt: skip
    sealed = data.without_test()
    handed = {*sealed.train.texts, *sealed.validation.texts}
    assert not handed & set(data.test.texts)


@pytest.mark.parametrize("method", ["hy-mora", "tfidf-lr", "lora-posthoc"])
def test_test_rows_change_nothing_but_the_test_scores(
    method: str, store: RunStore, data: Dataset, spec: RunSpec, tiny_settings: dict[str, object]
) -> None:
    own = make_spec(method, spec.data, common=tiny_settings)
    other = replace(data, test=replace(data.test, labels=np.roll(data.test.labels, 1)))
    first, second = run(own, store=store, dataset=data), run(own, store=store, dataset=other)
    assert first.key != second.key
    assert first.validation == second.validation
    assert first.test != second.test
    logits = [
        store.predictions(r.key)[["logit_0", "logit_1", "logit_2"]].to_numpy()
        for r in (first, second)
    ]
    np.testing.assert_array_equal(*logits)


def test_finished_run_is_not_done_again(store: RunStore, data: Dataset, spec: RunSpec) -> None:
    first = run(spec, store=store, dataset=data)
    written = (store.path(first.key) / "result.json").stat().st_mtime_ns
    assert run(spec, store=store, dataset=data) == first
    assert (store.path(first.key) / "result.json").stat().st_mtime_ns == written


def test_best_validation_weights_are_kept(store: RunStore, data: Dataset, spec: RunSpec) -> None:
    result = run(spec.override({"train.epochs": 4}), store=store, dataset=data)
    seen = [
        r["validation/macro_f1"] for r in store.history(result.key) if "validation/macro_f1" in r
    ]
    assert len(seen) >= 4
    assert result.validation["macro_f1"] == pytest.approx(max(seen), abs=1e-6)


def test_stops_after_patience(store: RunStore, data: Dataset, spec: RunSpec) -> None:
    settings = {"train.epochs": 30, "train.patience": 2, "train.learning_rate": 1e-9}
    result = run(spec.override(settings), store=store, dataset=data)
    evaluations = [r for r in store.history(result.key) if "validation/macro_f1" in r]
    assert len(evaluations) == 3


def test_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(
    tmp_path: Path, data: Dataset, spec: RunSpec
) -> None:
    longer = spec.override({"train.epochs": 4})
    whole = run(longer, store=RunStore(tmp_path / "whole"), dataset=data)
    store = RunStore(tmp_path / "cut")

    def stop(share: float, words: str) -> None:
        if share > 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(longer, store=store, dataset=data, progress=stop)
    assert store.all() == []
    first: list[float] = []
    went_on = run(longer, store=store, dataset=data, progress=lambda share, _: first.append(share))
    assert first[0] > 0.4, "it went on from a checkpoint"
    assert went_on.test == whole.test
    assert not (store.root / ".unfinished" / went_on.key).exists()


def test_full_disk_leaves_nothing_half_written(
    store: RunStore, data: Dataset, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    majority = make_spec("majority", spec.data)
    done = run(majority, store=store, dataset=data)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(RunError, match=r"No space left on device; finished runs are saved"):
        run(make_spec("tfidf-lr", spec.data), store=store, dataset=data)
    assert [result.key for result in store.all()] == [done.key]


def test_one_class_is_an_error(store: RunStore, data: Dataset, spec: RunSpec) -> None:
    only = replace(data, train=data.train.take(np.flatnonzero(data.train.labels == 1)))
    with pytest.raises(DataError, match="needs at least two classes"):
        run(spec, store=store, dataset=only)


def test_gate_learns_at_five_times_the_rate_without_decay(data: Dataset, spec: RunSpec) -> None:
    model = untrained(spec, data.without_test())
    train = spec.config.train
    rows = TrainingRows(
        data.task, model.inputs_of(model.encode(["good"])), model.inputs_of(model.encode(["bad"])),
        np.array([1]), np.array([0]),
    )  # fmt: skip
    args = training_arguments(train, learning_rate=train.learning_rate, seed=0)
    trainer = EncodedTrainer(model.classifier, args, rows=rows, spec=train)
    groups = trainer.create_optimizer().param_groups
    gate = next(g for g in groups if any(p is model.classifier.head.gate for p in g["params"]))
    assert gate["lr"] == pytest.approx(5 * spec.config.train.learning_rate)
    assert gate["weight_decay"] == 0
    assert len(gate["params"]) == 1
    plain = {id(p) for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    biases = [
        p for n, p in model.classifier.named_parameters() if n.endswith("bias") and p.requires_grad
    ]
    assert biases
    assert all(id(p) in plain for p in biases)


def test_scale_of_the_rate_is_for_adapters_only(spec: RunSpec) -> None:
    scaled = spec.override({"train.lr_scale": 10})
    assert scaled.config.learning_rate == pytest.approx(5e-2)
    whole = scaled.override({"encoder.adaptation": "full"})
    assert whole.config.learning_rate == pytest.approx(5e-3)


def test_device_that_is_not_there(spec: RunSpec) -> None:
    with pytest.raises(SpecError, match="--device auto or cpu"):
        run(spec.override({"train.device": "mps"}))


def test_encoder_that_is_not_there(data: Dataset, spec: RunSpec, store: RunStore) -> None:
    with pytest.raises(ModelError, match="hf download"):
        run(spec.override({"encoder.name": "nobody/no-such-model"}), store=store, dataset=data)
    with pytest.raises(ModelError, match=r"encoder.lora_targets"):
        run(spec.override({"encoder.lora_targets": ("q_proj",)}), store=store, dataset=data)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "config.json").write_text("{}"), "not a Valence model"),
        (lambda f: (f / "head.safetensors").write_bytes(b"12345"), "head.safetensors"),
        (lambda f: (f / "head.safetensors").unlink(), "head.safetensors"),
        (lambda f: (f / "adapter/adapter_model.safetensors").write_bytes(b"\0" * 9), "adapter"),
        (lambda f: (f / "adapter/adapter_config.json").unlink(), "adapter"),
    ],
)
def test_damaged_model_folder(
    damage, words: str, store: RunStore, data: Dataset, spec: RunSpec
) -> None:
    result = run(spec, store=store, dataset=data, keep_model=True)
    folder = store.path(result.key) / "model"
    damage(folder)
    with pytest.raises(ModelError, match=words) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def comparison(spec: RunSpec, settings: dict[str, object], **more: object) -> grid.Comparison:
    values = {"data": (spec.data,), "methods": ("majority", "hy-mora"), "seeds": (45,)}
    return grid.Comparison(**{**values, "settings": settings, **more})


def test_grid_runs_what_is_missing_and_goes_on_after_a_failure(
    store: RunStore, spec: RunSpec, tiny_settings: dict[str, object]
) -> None:
    broken = comparison(
        spec, tiny_settings, methods=("majority", "focal", "lora"),
        method_settings={"focal": {"head.name": "no-such-head"}},
    )  # fmt: skip
    seen: list[grid.GridProgress] = []
    outcome = grid.execute(grid.plan(broken), store=store, callback=seen.append)
    assert [cell.status for cell in outcome.cells] == ["done", "failed", "done"]
    assert "no-such-head" in outcome.failures[0].error
    failed = list(store.root.glob("*.failed.json"))
    assert len(failed) == 1
    assert "no-such-head" in json.loads(failed[0].read_text())["message"]
    assert all(s.seconds_left is None or s.seconds_left >= 0 for s in seen)
    assert [s.total for s in seen] == sorted(s.total for s in seen)
    assert seen[-1].total == 1.0
    mended = comparison(spec, tiny_settings, methods=("majority", "focal", "lora"))
    again = grid.execute(grid.plan(mended), store=store)
    assert [cell.status for cell in again.cells] == ["cached", "done", "cached"]


def test_ctrl_c_ends_the_grid_cleanly(
    store: RunStore, spec: RunSpec, tiny_settings: dict[str, object]
) -> None:
    def stop(now: grid.GridProgress) -> None:
        if now.cell.spec.method == "hy-mora" and now.share > 0.3:
            raise KeyboardInterrupt

    specs = grid.plan(comparison(spec, tiny_settings))
    outcome = grid.execute(specs, store=store, callback=stop)
    assert outcome.interrupted
    assert [cell.status for cell in outcome.cells] == ["done", "waiting"]
    assert [cell.status for cell in grid.execute(specs, store=store).cells] == ["cached", "done"]


def test_plan_sweeps_only_methods_that_read_the_setting(
    spec: RunSpec, tiny_settings: dict[str, object]
) -> None:
    swept = comparison(
        spec, tiny_settings, methods=("lora", "hy-mora"), sweep={"loss.temperature": (0.1, 0.3)}
    )
    found = [(s.method, s.get("loss.temperature")) for s in grid.plan(swept)]
    assert found == [("lora", 0.2), ("hy-mora", 0.2), ("hy-mora", 0.1), ("hy-mora", 0.3)]
    with pytest.raises(SpecError, match=r"No compared method uses loss\.gamma"):
        grid.plan(swept.model_copy(update={"sweep": {"loss.gamma": (1.0,)}}))
    with pytest.raises(UnknownNameError, match=r"loss.temperature"):
        grid.plan(swept.model_copy(update={"sweep": {"loss.temp": (1.0,)}}))


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[3] / "configs").glob("*.yaml")))
def test_every_config_plans(path: Path) -> None:
    found = grid.read_comparison(path)
    specs = grid.plan(found)
    points = {spec.digest() for spec in specs}
    swept = prod(len(values) for values in found.sweep.values()) if found.sweep else 1
    assert len(points) == len(found.methods) * len(found.seeds) * len(found.data) * swept
    assert (45, 123, 789, 2024, 1001)[: len(found.seeds)] == found.seeds
