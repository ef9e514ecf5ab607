"""Token states of a frozen encoder: the same logits, computed once, whole or absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models import untrained
from valence.config.data import DataSpec
from valence.config.spec import RunSpec
from valence.data.dataset import Dataset
from valence.data.examples import Examples
from valence.data.sources import load_dataset
from valence.methods.registry import make_spec
from valence.models import frozen
from valence.models.encoder import Encoder
from valence.models.frozen import FrozenStates
from valence.models.output_keys import weights_key
from valence.models.torch_model import TorchModel
from valence.runs.runner import run
from valence.runs.store import RunStore
from valence.storage import cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VALENCE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def data(reviews: Path) -> Dataset:
    return load_dataset(DataSpec(name=str(reviews)), seed=45)


@pytest.fixture
def spec(reviews: Path, tiny_settings: dict[str, object]) -> RunSpec:
    sizes = {"head.hidden_size": 16, "head.layers": 1}
    return make_spec("lstm-roberta", DataSpec(name=str(reviews)), settings=tiny_settings | sizes)


@pytest.fixture
def model(spec: RunSpec, data: Dataset) -> TorchModel:
    return untrained(spec, data.without_test())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Texts that encoders were given."""
    seen: list[int] = []
    original = Encoder.forward

    def counting(self: Encoder, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append(len(input_ids))
        return original(self, input_ids, mask)

    monkeypatch.setattr(Encoder, "forward", lambda self, input_ids, attention_mask: counting(
        self, input_ids, attention_mask))  # fmt: skip
    return seen


def test_logits_are_the_same_with_and_without(
    model: TorchModel, data: Dataset, calls: list[int]
) -> None:
    plain = model.predict(Examples(data.train.texts))
    model.enable_hidden_state_cache()
    kept = model.predict(Examples(data.train.texts))
    np.testing.assert_allclose(kept.logits, plain.logits, atol=1e-5)
    np.testing.assert_allclose(kept.features, plain.features, atol=1e-5)
    calls.clear()
    assert np.array_equal(model.predict(Examples(data.train.texts)).logits, kept.logits)
    assert calls == []


def test_other_cuts_and_orders_find_the_texts_they_share(
    model: TorchModel, data: Dataset, calls: list[int]
) -> None:
    model.enable_hidden_state_cache()
    texts = data.train.texts
    model.predict(Examples(texts[:40]))
    calls.clear()
    model.predict(Examples([*texts[20:50], texts[0], texts[20]]))
    assert sum(calls) == len(set(texts[20:50]) - set(texts[:40]))


def test_training_is_the_same_with_cold_warm_and_no_cache(
    spec: RunSpec, data: Dataset, tmp_path: Path, calls: list[int]
) -> None:
    found, encoded = [], []
    for number, setting in enumerate(("auto", "auto", "off")):
        own = spec.override({"train.cache": setting})
        store = RunStore(tmp_path / str(number))
        result = run(own, store=store, dataset=data)
        found.append(store.predictions(result.key)["logit_0"].to_numpy())
        encoded.append(sum(calls))
        calls.clear()
    np.testing.assert_allclose(found[0], found[2], atol=1e-4)
    np.testing.assert_array_equal(found[0], found[1])
    assert encoded[1] < encoded[0] < encoded[2]
    assert spec.override({"train.cache": "off"}).digest() == spec.digest()


def test_other_weights_are_another_entry(model: TorchModel) -> None:
    before = weights_key(model.classifier.encoder)
    with torch.no_grad():
        next(model.classifier.encoder.parameters()).add_(1e-3)
    assert weights_key(model.classifier.encoder) != before


def test_second_views_of_a_frozen_encoder(data: Dataset, spec: RunSpec, tmp_path: Path) -> None:
    own = spec.override({"view.name": "edits", "loss.contrast": "supcon"})
    assert run(own, store=RunStore(tmp_path), dataset=data).test["macro_f1"] is not None


def test_no_room_means_no_cache_and_the_same_scores(
    model: TorchModel, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = model.predict(Examples(data.test.texts)).logits
    monkeypatch.setattr(cache, "room_bytes", lambda: 10)
    model.enable_hidden_state_cache()
    assert np.array_equal(model.predict(Examples(data.test.texts)).logits, plain)
    assert cache.entries() == []


def test_chunks_are_bounded(
    model: TorchModel, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "CHUNK", 16)
    told: list[tuple[int, int]] = []
    states = FrozenStates(model.classifier.encoder, model.tokenizer.pad_id)
    encoded = model.tokenizer(data.train.texts)
    attached = states.attach(encoded, progress=lambda done, total: told.append((done, total)))
    assert attached.states is not None
    assert all(len(attached.row(i)) == len(encoded.input_ids[i]) for i in range(len(encoded)))
    different = len({tuple(ids) for ids in encoded.input_ids})
    assert told[-1] == (different, different)
    assert len(cache.entries()) == -(-different // 16)


@pytest.mark.slow
def test_a_kill_while_writing_loses_one_chunk_at_most(
    own_cache: Path, tiny_encoder: Path, model: TorchModel, data: Dataset
) -> None:
    program = f"""
        import time
        from valence.models import frozen
        from valence.models.encoder import Encoder, TextTokenizer
        from valence.config.sections import EncoderSpec
        frozen.CHUNK = 50
        spec = EncoderSpec(name={str(tiny_encoder)!r}, adaptation="frozen")
        texts = [f"good film {{'very ' * (i % 30)}} {{'not ' * (i // 30)}}" for i in range(900)]
        encoder, tokenizer = Encoder(spec), TextTokenizer(spec)
        original = encoder.forward
        def slow(**inputs):
            time.sleep(0.02)
            return original(**inputs)
        encoder.forward = slow
        frozen.FrozenStates(encoder, 0).attach(tokenizer(texts))
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], env={**os.environ})
    while len(cache.folders(cache.STATES)) < 3:
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    whole = len(cache.entries())
    assert whole >= 3
    states = FrozenStates(model.classifier.encoder, 0)
    texts = [f"good film {'very ' * (i % 30)} {'not ' * (i // 30)}" for i in range(900)]
    encoded = model.tokenizer(texts)
    attached = states.attach(encoded)
    for i in (0, 451, 899):
        ids = torch.tensor([encoded.input_ids[i]])
        with torch.inference_mode():
            expected = model.classifier.encoder(ids, torch.ones_like(ids))[0].numpy()
        np.testing.assert_allclose(attached.row(i), expected, atol=1e-5)
    assert len(cache.entries()) > whole
    assert cache.clear() > 0
    assert not list(own_cache.rglob(".valence-*"))
