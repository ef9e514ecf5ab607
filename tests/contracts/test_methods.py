"""Every method of the table trains, is scored, saved, loaded and finds the easy words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from valence.config.data import DataSpec
from valence.data.dataset import Dataset
from valence.data.sources import load_dataset
from valence.methods.registry import METHODS, make_spec
from valence.models.loader import load_model
from valence.runs.runner import run
from valence.runs.store import RunStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return RunStore(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def data(reviews: Path) -> Dataset:
    return load_dataset(DataSpec(name=str(reviews)), seed=45)


TEXT_METHODS = [name for name, method in METHODS.items() if method.kind != "fusion"]
"""The others are in ``test_fusion_methods.py``; they need more than texts."""


@pytest.mark.parametrize("name", TEXT_METHODS)
def test_method_end_to_end(
    name: str, store: RunStore, data: Dataset, reviews: Path, tiny_settings: dict[str, object]
) -> None:
    spec = make_spec(name, DataSpec(name=str(reviews)), common=tiny_settings)
    result = run(spec, store=store, dataset=data, keep_model=True)
    folder = store.path(result.key)
    assert {path.name for path in folder.iterdir()} >= {
        "spec.yaml", "result.json", "predictions.parquet", "history.jsonl", "features.npz", "model",
    }  # fmt: skip
    assert result.sizes["test"] == len(data.test)
    assert all(v is None or np.isfinite(v) for v in result.test.values())
    rows = store.predictions(result.key)
    test = rows[rows["split"] == "test"]
    assert list(test["id"]) == list(data.test.ids)
    logits = test[[f"logit_{i}" for i in range(3)]].to_numpy()
    loaded = load_model(folder / "model")
    assert loaded.classes == ("bad", "good", "meh")
    again = loaded.score(data.test.texts)
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    expected = shifted / shifted.sum(1, keepdims=True)
    assert np.abs(again.probabilities - expected).max() < 1e-5
    assert (result.trainable_parameters == 0) == (name == "majority")
    if METHODS[name].kind == "torch":
        assert any("validation/macro_f1" in record for record in store.history(result.key))


@pytest.mark.parametrize("name", ["lora", "hy-mora"])
def test_model_of_an_adapter_is_small(
    name: str, store: RunStore, data: Dataset, reviews: Path, tiny_settings: dict[str, object]
) -> None:
    spec = make_spec(name, DataSpec(name=str(reviews)), common=tiny_settings)
    result = run(spec, store=store, dataset=data, keep_model=True)
    model = store.path(result.key) / "model"
    names = {str(p.relative_to(model)) for p in model.rglob("*") if p.is_file()}
    assert "adapter/adapter_config.json" in names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)
    state = load_model(model).classifier.encoder.state_dict()
    base = sum(v.numel() for k, v in state.items() if "lora" not in k) * 4
    adapter = (model / "adapter/adapter_model.safetensors").stat().st_size
    assert adapter < base, "the base encoder is not saved again"
