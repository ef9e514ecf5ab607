"""Features of the lower half of an encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from valence.audit.encoder_features import lower_half_features, remove_upper_half
from valence.config.sections import EncoderSpec
from valence.data.collate import pad
from valence.models.encoder import Encoder, TextTokenizer

TEXTS = ["good food", "a really awful room", "it was fine"]


def test_features_are_the_means_of_the_middle_layer(tiny_encoder: Path) -> None:
    spec = EncoderSpec(name=str(tiny_encoder), adaptation="frozen")
    done: list[float] = []
    features = lower_half_features(spec, TEXTS, done.append)
    encoder, tokenizer = Encoder(spec).eval(), TextTokenizer(spec)
    rows = tokenizer(TEXTS).input_ids
    batch = pad(rows, tokenizer.pad_id)
    with torch.no_grad():
        middle = encoder.layers(**batch)[1]
    expected = np.stack([middle[i, : len(ids)].mean(0).numpy() for i, ids in enumerate(rows)])
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    assert done[-1] == 1.0


@pytest.mark.parametrize(("layers", "left"), [(1, 1), (2, 1), (5, 3), (6, 3)])
def test_half_of_the_layers_stay(layers: int, left: int) -> None:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "vocab_size": 9}
    network = BertModel(BertConfig(num_hidden_layers=layers, **sizes))
    assert remove_upper_half(network) == left
    assert len(network.encoder.layer) == left
    ids = torch.ones(1, 2, dtype=torch.long)
    assert network(input_ids=ids).last_hidden_state.shape == (1, 2, 8)


def test_a_network_without_a_list_of_layers_stays_whole() -> None:
    from transformers import AlbertConfig, AlbertModel

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "vocab_size": 9}
    network = AlbertModel(AlbertConfig(num_hidden_layers=4, embedding_size=8, **sizes))
    assert remove_upper_half(network) == 4
    assert isinstance(network.encoder, nn.Module)
