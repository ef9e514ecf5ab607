"""Within one job a frozen encoder is loaded once, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from valence.comparison.best_model import fit_best
from valence.config.data import DataSpec
from valence.config.sections import EncoderSpec
from valence.data.sources import load_dataset
from valence.distributed import device
from valence.methods.fit import fit_spec
from valence.methods.registry import make_spec
from valence.models import encoder as encoders
from valence.models.encoder import Encoder, TextTokenizer
from valence.models.loaded_once import frozen_encoders_loaded_once, loaded_once
from valence.models.loader import load_model
from valence.runs.store import RunStore


@pytest.fixture
def frozen(tiny_encoder: Path) -> EncoderSpec:
    return EncoderSpec(name=str(tiny_encoder), adaptation="frozen")


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []
    original = getattr(encoders, name)

    def counted(*words: Any) -> Any:
        calls.append(words)
        return original(*words)

    monkeypatch.setattr(encoders, name, counted)
    return calls


def test_a_fit_loads_its_encoder_once_with_the_same_result(
    reviews: Path, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks, tokenizers = (
        count_calls(monkeypatch, name) for name in ("load_backbone", "load_tokenizer")
    )
    settings = {"encoder.name": str(tiny_encoder), "portfolio.fine_tuned": []}
    data = DataSpec(name=str(reviews))
    once = fit_best(data, store=RunStore(tmp_path / "once"), settings=settings)
    assert (len(networks), len(tokenizers)) == (1, 1)
    plain: Any = fit_best
    again = plain.__wrapped__(data, store=RunStore(tmp_path / "again"), settings=settings)
    assert len(networks) > 5
    assert again.result.test == once.result.test
    assert again.advice == once.advice


def test_nothing_is_shared_outside(frozen: EncoderSpec) -> None:
    assert Encoder(frozen).model is not Encoder(frozen).model
    with frozen_encoders_loaded_once():
        first = Encoder(frozen)
        with frozen_encoders_loaded_once():
            assert Encoder(frozen).model is first.model
        assert Encoder(frozen).model is first.model
        assert TextTokenizer(frozen).backend is TextTokenizer(frozen).backend
    assert Encoder(frozen).model is not first.model


def test_an_encoder_that_is_trained_is_one_of_its_own(frozen: EncoderSpec) -> None:
    with frozen_encoders_loaded_once():
        shared = Encoder(frozen)
        for adaptation in ("full", "lora"):
            trained = Encoder(EncoderSpec(name=frozen.name, adaptation=adaptation))
            assert any(p.requires_grad for p in trained.parameters())
            theirs = {p.data_ptr() for p in trained.parameters()}
            assert theirs.isdisjoint(p.data_ptr() for p in shared.parameters())
        assert not any(p.requires_grad for p in shared.parameters())


def test_an_adapter_is_not_put_into_the_shared_network(
    frozen: EncoderSpec, reviews: Path, tmp_path: Path
) -> None:
    settings = {"encoder.name": frozen.name, "train.epochs": 1}
    spec = make_spec("lora", DataSpec(name=str(reviews)), settings=settings)
    fit_spec(spec, load_dataset(spec.data, seed=1).without_test()).model.save(tmp_path / "model")
    with frozen_encoders_loaded_once():
        shared = Encoder(frozen)
        before = [name for name, _ in shared.named_parameters()]
        for _ in range(2):
            assert load_model(tmp_path / "model").trainable_parameters > 0
        assert [name for name, _ in Encoder(frozen).named_parameters()] == before


def test_what_draws_random_numbers_is_loaded_every_time() -> None:
    with frozen_encoders_loaded_once():
        torch.manual_seed(1)
        first, second = (loaded_once("drawn", lambda: torch.rand(1).item()) for _ in range(2))
        assert first != second
        assert loaded_once("same", object) is loaded_once("same", object)


def test_nothing_is_shared_where_models_move_to_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "pick_device", lambda _: "cuda")
    with frozen_encoders_loaded_once():
        assert loaded_once("network", object) is not loaded_once("network", object)
