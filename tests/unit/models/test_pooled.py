"""Pooled features of the linear probe: computed once, read by every later run, the same scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from valence.config.data import DataSpec
from valence.config.spec import RunSpec
from valence.data.examples import Examples
from valence.data.sources import load_dataset
from valence.methods.registry import make_spec
from valence.models.encoder import Encoder
from valence.models.loader import load_model
from valence.runs.runner import run
from valence.runs.store import RunStore
from valence.storage import cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALENCE_CACHE", str(tmp_path / "cache"))


def counting(original: Callable[..., Any], seen: list[int]) -> Callable[..., Any]:
    def counted(self: Encoder, input_ids: torch.Tensor, mask: torch.Tensor) -> Any:
        seen.append(len(input_ids) if input_ids.shape[1] > 1 else 0)  # one token: its widths
        return original(self, input_ids, mask)

    return counted


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Texts that encoders were given."""
    seen: list[int] = []
    for name in ("forward", "layers"):
        monkeypatch.setattr(Encoder, name, counting(getattr(Encoder, name), seen))
    return seen


def probe(reviews: Path, encoder: Path, **settings: object) -> RunSpec:
    wanted = {"encoder.name": str(encoder)} | {k.replace("__", "."): v for k, v in settings.items()}
    return make_spec("linear-probe", DataSpec(name=str(reviews)), settings=wanted)


def test_no_text_is_encoded_twice(
    reviews: Path, tiny_encoder: Path, tmp_path: Path, encoded: list[int]
) -> None:
    spec = probe(reviews, tiny_encoder)
    data = load_dataset(spec.data, seed=45)
    store = RunStore(tmp_path / "runs")
    first = run(spec, store=store, dataset=data)
    checks = 16  # the saved model and the loaded one, on eight texts
    assert sum(encoded) <= 140 + checks
    encoded.clear()
    seed = run(spec.model_copy(update={"seed": 7}), store=store, dataset=data)
    assert sum(encoded) == checks
    assert seed.test == first.test
    assert [entry.kind_name for entry in cache.entries()] == ["pooled"] * 3
    encoded.clear()
    without = run(probe(reviews, tiny_encoder, train__cache="off"), store=RunStore(tmp_path / "b"),
                  dataset=data)  # fmt: skip
    # Its own fit and the scoring after it both read the validation rows.
    assert sum(encoded) == 140 + len(data.validation) + checks
    for name, value in without.test.items():
        assert value == pytest.approx(first.test[name], abs=1e-6)
    assert without.key == first.key


def test_another_pooling_is_other_features(
    reviews: Path, tiny_encoder: Path, tmp_path: Path, encoded: list[int]
) -> None:
    data = load_dataset(DataSpec(name=str(reviews)), seed=45)
    store = RunStore(tmp_path / "runs")
    run(probe(reviews, tiny_encoder), store=store, dataset=data)
    count = sum(encoded)
    spec = probe(reviews, tiny_encoder, head__pooling="max")
    other = run(spec, store=store, dataset=data, keep_model=True)
    assert sum(encoded) == 2 * count
    saved = load_model(store.path(other.key) / "model").predict(Examples(data.test.texts)).logits
    rows = store.predictions(other.key)
    logits = rows.loc[rows["split"] == "test", [f"logit_{i}" for i in range(3)]].to_numpy()
    np.testing.assert_allclose(saved, logits, atol=1e-3)
