"""ALMT's published model and metrics, from recorded weights, inputs and outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig, BertModel

from tests.golden.almt_weights import load_official, official_encoder
from valence.models.multimodal import ALMT, FusionSettings, Stack


def recorded_settings(model: dict[str, int]) -> FusionSettings:
    """The published names of the sizes, in ours."""
    return FusionSettings(
        text_dim=model["l_input_dim"],
        audio_dim=model["a_input_dim"],
        vision_dim=model["v_input_dim"],
        text_length=model["l_input_length"],
        audio_length=model["a_input_length"],
        vision_length=model["v_input_length"],
        dim=model["token_dim"],
        tokens=model["token_len"],
        projection=Stack(
            depth=model["proj_depth"], heads=model["proj_heads"], mlp_dim=model["proj_mlp_dim"]
        ),
        language=Stack(
            depth=model["AHL_depth"] - 1,
            heads=model["l_enc_heads"],
            mlp_dim=model["l_enc_mlp_dim"],
        ),
        fusion=Stack(
            depth=model["fusion_layer_depth"],
            heads=model["fusion_heads"],
            mlp_dim=model["fusion_mlp_dim"],
        ),
        hyper_heads=model["ahl_heads"],
        hyper_head_dim=model["ahl_dim_head"],
        dropout=model["ahl_droup"],
    )


Recording = tuple[FusionSettings, dict[str, Tensor], dict[str, Tensor], Tensor]


@pytest.fixture(params=["almt_mosi", "almt_sims"])
def recording(request: pytest.FixtureRequest, golden: Path) -> Recording:
    """Settings, published weights, recorded tensors and the token states of the text."""
    model = json.loads((golden / f"{request.param}.json").read_text())["model"]
    tensors = load_file(golden / f"{request.param}.safetensors")
    weights = {
        name.removeprefix("weights."): tensor
        for name, tensor in tensors.items()
        if name.startswith("weights.")
    }
    bert = BertModel(BertConfig(**model["bert_pretrained"])).eval()
    bert.load_state_dict(official_encoder(weights), strict=False)
    ids, mask, types = tensors["text"].long().unbind(1)
    with torch.no_grad():
        states = bert(input_ids=ids, attention_mask=mask, token_type_ids=types)
    return recorded_settings(model), weights, tensors, states.last_hidden_state


@pytest.mark.parametrize("compat", ["reference", None])
def test_golden_almt(recording: Recording, compat: str | None) -> None:
    settings, weights, tensors, states = recording
    model = ALMT(settings, compat=compat).eval()
    load_official(model, weights)
    with torch.no_grad():
        output = model(states, tensors["audio"], tensors["vision"])
    torch.testing.assert_close(output.logits, tensors["output"], atol=1e-5, rtol=0)
    assert output.features.shape == (len(states), settings.dim)


def test_golden_almt_masked_padding_is_not_the_published_reading(recording: Recording) -> None:
    settings, weights, tensors, states = recording
    audio = tensors["audio"]
    half = torch.arange(audio.shape[1]).expand(len(audio), -1) < audio.shape[1] // 2
    outputs = []
    for compat in ("reference", None):
        model = ALMT(settings, compat=compat).eval()
        load_official(model, weights)
        with torch.no_grad():
            found = model(states, audio, tensors["vision"], audio_mask=half)
        outputs.append(found.logits)
    torch.testing.assert_close(outputs[0], tensors["output"], atol=1e-5, rtol=0)
    assert (outputs[1] - outputs[0]).abs().max() > 1e-4, "the mask changes the output"


def test_golden_almt_names_the_first_tensor_that_does_not_fit(recording: Recording) -> None:
    settings, weights, _, _ = recording
    model = ALMT(settings)
    wrong = dict(weights) | {"proj_a.0.weight": torch.zeros(1, 1)}
    with pytest.raises(ValueError, match=r"projections\.audio\.linear\.weight as \(1, 1\)"):
        load_official(model, wrong)
    missing = {name: tensor for name, tensor in weights.items() if name != "h_hyper"}
    with pytest.raises(ValueError, match="lack hyper_start"):
        load_official(model, missing)
    with pytest.raises(ValueError, match="have surplus"):
        load_official(model, dict(weights) | {"surplus": torch.zeros(1)})
