"""Tracking tools: what is read back from them by their own means is what the run says."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import valence
from valence.config.data import DataSpec
from valence.data.dataset import Dataset
from valence.data.sources import load_dataset
from valence.errors import RunError, UnknownNameError
from valence.methods.registry import make_spec
from valence.runs.runner import run
from valence.runs.store import RunResult, RunStore
from valence.runs.tracking import TRACKERS, check_tracker, flat_params
from valence.training.reporting import NO_TOOL, current_reporting


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    for name in ("MLFLOW_TRACKING_URI", "TENSORBOARD_LOGGING_DIR"):
        monkeypatch.delenv(name, raising=False)
    return RunStore(tmp_path / "runs")


@pytest.fixture(scope="module")
def data(reviews: Path) -> Dataset:
    return load_dataset(DataSpec(name=str(reviews)), seed=45)


@pytest.fixture
def trained(
    store: RunStore, data: Dataset, reviews: Path, tiny_settings: dict[str, object]
) -> Callable[..., RunResult]:
    def train(method: str, track: str | None) -> RunResult:
        spec = make_spec(method, DataSpec(name=str(reviews)), common=tiny_settings)
        return run(spec, store=store, dataset=data, track=track)

    return train


def mlflow_runs(store: RunStore, key: str) -> list[Any]:
    """The runs of a key, as MLflow's own client reads them."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{store.root}/tracking/mlflow/mlflow.db")
    project = client.get_experiment_by_name("valence")
    assert project is not None
    return list(
        client.search_runs([project.experiment_id], f"tags.mlflow.runName = '{key}'")
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning")
@pytest.mark.parametrize("method", ["lora", "tfidf-lr"])
def test_mlflow_holds_curves_settings_scores_and_files(
    method: str, store: RunStore, trained: Callable[..., RunResult]
) -> None:
    pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    from mlflow import MlflowClient

    result = trained(method, "mlflow")
    client = MlflowClient(f"sqlite:///{store.root}/tracking/mlflow/mlflow.db")
    (logged,) = mlflow_runs(store, result.key)
    assert logged.info.status == "FINISHED"
    assert logged.data.params["method"] == method
    assert flat_params(result).items() <= logged.data.params.items()
    assert logged.data.metrics["test/macro_f1"] == result.test["macro_f1"]
    curve = client.get_metric_history(logged.info.run_id, "eval_macro_f1")
    expected = [
        (r["step"], r["validation/macro_f1"])
        for r in store.history(result.key)
        if "validation/macro_f1" in r
    ]
    assert sorted({(m.step, m.value) for m in curve}) == expected
    assert bool(expected) == (method == "lora")
    files = {file.path for file in client.list_artifacts(logged.info.run_id)}
    assert files == {"result.json", "spec.yaml"}
    local = Path(client.download_artifacts(logged.info.run_id, "result.json"))
    assert RunResult.model_validate_json(local.read_text(encoding="utf-8")) == result


@pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning")
def test_a_run_that_is_there_is_logged_once(
    store: RunStore, trained: Callable[..., RunResult]
) -> None:
    pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    from mlflow import MlflowClient

    first = trained("lora", None)
    assert not (store.root / "tracking").exists()
    assert trained("lora", "mlflow") == first
    assert trained("lora", "mlflow") == first
    (logged,) = mlflow_runs(store, first.key)
    client = MlflowClient(f"sqlite:///{store.root}/tracking/mlflow/mlflow.db")
    steps = [m.step for m in client.get_metric_history(logged.info.run_id, "eval_macro_f1")]
    assert steps == [r["step"] for r in store.history(first.key) if "validation/macro_f1" in r]


@pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning")
def test_a_run_that_rests_on_another_logs_both(
    store: RunStore, trained: Callable[..., RunResult]
) -> None:
    pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    result = trained("lora-posthoc", "mlflow")
    assert len(mlflow_runs(store, result.key)) == 1
    keys = [path.name for path in store.root.glob("*-lora-s45-*")]
    assert [len(mlflow_runs(store, key)) for key in keys] == [1]


@pytest.mark.parametrize("method", ["lora", "tfidf-lr"])
def test_tensorboard_holds_curves_settings_and_scores(
    method: str, store: RunStore, trained: Callable[..., RunResult]
) -> None:
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = trained(method, "tensorboard")
    events = EventAccumulator(str(store.root / "tracking" / "tensorboard" / result.key))
    events.Reload()
    (score,) = events.Scalars("test/macro_f1")
    assert score.value == pytest.approx(result.test["macro_f1"])
    texts = {tag.removesuffix("/text_summary") for tag in events.Tags()["tensors"]}
    assert {"parameters", "result.json", "spec.yaml"} <= texts
    expected = [r["step"] for r in store.history(result.key) if "validation/macro_f1" in r]
    if method == "lora":
        assert [event.step for event in events.Scalars("eval/macro_f1")] == expected
        assert events.Scalars("train/loss")
    else:
        assert not expected


def test_a_tool_changes_no_key_and_is_left_after_the_run(
    store: RunStore, trained: Callable[..., RunResult]
) -> None:
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    keys = {trained("lora", "tensorboard").key, trained("lora", None).key}
    assert len(keys) == 1
    assert current_reporting() is NO_TOOL
    assert [r.key for r in store.all()] == list(keys)


def test_unknown_and_missing_tools_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reviews: Path
) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'mlflow'"):
        valence.train(str(reviews), "tfidf-lr", runs=tmp_path, track="mlfow")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for name, tracker in TRACKERS.items():
        with pytest.raises(RunError, match=tracker.install):
            check_tracker(name)
    with pytest.raises(RunError, match="pip install wandb"):
        valence.compare(str(reviews), ["tfidf-lr"], runs=tmp_path, track="wandb")
    assert not list(tmp_path.iterdir())


def test_a_run_is_kept_where_its_tool_fails(
    store: RunStore, trained: Callable[..., RunResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no room\nmore")

    monkeypatch.setattr(TRACKERS["tensorboard"], "log_params", broken)
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    with pytest.raises(RunError, match=r"--track tensorboard: .*\(no room\); finished runs"):
        trained("tfidf-lr", "tensorboard")
    assert len(store.all()) == 1


def test_workers_of_a_pool_log_their_own_runs(store: RunStore, reviews: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    from valence.comparison.executors.process_pool import ProcessPool
    from valence.comparison.grid import execute

    rows = DataSpec(name=str(reviews))
    specs = [make_spec("tfidf-lr", rows, seed=seed) for seed in (1, 2)]
    outcome = execute(specs, store=store, executor=ProcessPool(2), track="tensorboard")
    assert not outcome.failures
    folder = store.root / "tracking" / "tensorboard"
    assert all(any((folder / r.key).glob("events*")) for r in outcome.results)
