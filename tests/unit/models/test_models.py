"""Scores do not depend on the batch; the built-in encoder loads, pads and cuts as it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from valence.methods.fitting import build_seeded

from valence.config.data import DataSpec
from valence.config.sections import EncoderSpec
from valence.data.dataset import Split, TrainingData
from valence.methods.registry import METHODS, make_spec
from valence.models import classifier
from valence.models.encoder import TextTokenizer

ROWS = Split(
    ["good", "bad", "good food", "not bad"], np.array([0, 1, 0, 1]), np.arange(4).astype(str)
)
DATA = TrainingData(("good", "bad"), (1,), ROWS, ROWS)
TORCH = [name for name, method in METHODS.items() if method.kind == "torch"]


@pytest.mark.parametrize("method", TORCH)
def test_batch_size_and_order_change_nothing(
    method: str, tiny_settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_seeded(make_spec(method, DataSpec(), common=tiny_settings), DATA)
    texts = ["good", "the food was not very good but the staff was", "awful", "we loved it " * 9]
    whole = model.score(texts).logits
    monkeypatch.setitem(classifier.TOKEN_BUDGET, "cpu", 1)
    np.testing.assert_allclose(model.score(texts).logits, whole, atol=1e-5)
    np.testing.assert_allclose(model.score(texts[::-1]).logits, whole[::-1], atol=1e-5)
    assert model.score([]).logits.shape == (0, 2)


@pytest.mark.parametrize("method", TORCH)
def test_threads_with_batches_of_their_own_change_nothing(
    method: str, tiny_settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_seeded(make_spec(method, DataSpec(), common=tiny_settings), DATA)
    texts = [f"{'very ' * (n % 5)}good food {n}" for n in range(24)]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = model.score(texts)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    monkeypatch.setitem(classifier.TOKEN_BUDGET, "cpu", 16)
    seen: list[tuple[int, int]] = []
    found = model.score(texts, lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose(found.logits, alone.logits, atol=1e-5)
    np.testing.assert_allclose(found.features, alone.features, atol=1e-5)
    assert told[-2:] == [1, 3]
    assert seen[-1] == (24, 24)


def test_same_seed_same_weights(tiny_settings: dict[str, object]) -> None:
    spec = make_spec("hy-mora", DataSpec(), common=tiny_settings)
    one, two, other = (build_seeded(spec.model_copy(update={"seed": s}), DATA) for s in (1, 1, 2))
    texts = ["good food", "bad"]
    np.testing.assert_array_equal(one.score(texts).logits, two.score(texts).logits)
    assert (one.score(texts).logits != other.score(texts).logits).all()


def test_frozen_encoder_stays_as_it_is_and_out_of_training_mode(
    tiny_settings: dict[str, object],
) -> None:
    settings = {**tiny_settings, "encoder.adaptation": "frozen"}
    model = build_seeded(make_spec("lora", DataSpec(), settings=settings), DATA).classifier
    model.train()
    assert not model.encoder.training
    assert model.head.training
    assert not [
        n for n, p in model.named_parameters() if n.startswith("encoder") and p.requires_grad
    ]


def test_built_in_encoder_pads_to_the_longest_and_counts_what_it_cuts() -> None:
    tokenizer = TextTokenizer(EncoderSpec(max_length=16))
    encoded = tokenizer(["short", "a little longer than that", "word " * 50, "word " * 900])
    assert [len(ids) for ids in encoded.input_ids] == [3, 7, 16, 16]
    assert encoded.truncated == 2
    assert tokenizer(["word " * 14]).truncated == 0


def test_tokens_after_a_cut_text_stay_with_their_own(tiny_encoder: Path) -> None:
    tokenizer = TextTokenizer(EncoderSpec(name=str(tiny_encoder), max_length=4))
    texts = ["good bad good bad good bad", "bad", "good good", "awful " * 30]
    alone = [tokenizer([text]).input_ids[0] for text in texts]
    assert tokenizer(texts).input_ids == alone
    assert tokenizer(texts).truncated == 2
