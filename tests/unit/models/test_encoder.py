"""Encoders that cannot be read are refused in one line; what they do not say is asked of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.tiny_encoders import write_encoder
from valence.config.sections import EncoderSpec
from valence.errors import ModelError
from valence.llm.retrieval import Embedder
from valence.models.adapters import lora_targets
from valence.models.encoder import Encoder, TextTokenizer


def changed_config(tiny_encoder: Path, folder: Path, **changes: object) -> Path:
    shutil.copytree(tiny_encoder, folder)
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(config))
    return folder


@pytest.fixture
def own_code(tiny_encoder: Path, tmp_path: Path) -> Path:
    """An encoder of an architecture of its own, with Python code that must not run."""
    folder = changed_config(
        tiny_encoder, tmp_path / "e", model_type="own",
        auto_map={"AutoConfig": "code.OwnConfig", "AutoModel": "code.OwnModel"},
    )  # fmt: skip
    (folder / "code.py").write_text("raise SystemExit('code of the folder was run')")
    return folder


def test_code_of_a_folder_is_never_run(own_code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    spec = EncoderSpec(name=str(own_code), adaptation="frozen")
    for load in (Encoder, TextTokenizer):
        with pytest.raises(ModelError, match="needs Python code from its own folder"):
            load(spec)


def test_an_encoder_that_names_code_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = changed_config(tiny_encoder, tmp_path / "e", auto_map={"AutoModel": "code.OwnModel"})
    (folder / "code.py").write_text("raise SystemExit('code of the folder was run')")
    spec = EncoderSpec(name=str(folder), adaptation="frozen")
    for load in (Encoder, TextTokenizer):
        with pytest.raises(ModelError, match=r"Python code .* \(auto_map in config.json\)"):
            load(spec)


def test_unknown_architecture_is_named(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = changed_config(tiny_encoder, tmp_path / "e", model_type="berd")
    with pytest.raises(ModelError, match="architecture 'berd', which the installed transformers"):
        Encoder(EncoderSpec(name=str(folder)))


def test_models_that_write_text_are_refused_with_advice(tiny_encoder: Path, tmp_path: Path) -> None:
    from transformers import BartConfig, BartModel

    shutil.copytree(tiny_encoder, tmp_path / "e")
    sizes = {f"{side}_{what}": 2 for side in ("encoder", "decoder")
             for what in ("layers", "attention_heads", "ffn_dim")}  # fmt: skip
    config = BartConfig(vocab_size=40, d_model=16, max_position_embeddings=40, **sizes)
    BartModel(config).save_pretrained(tmp_path / "e")
    with pytest.raises(ModelError, match="an encoder-decoder, bart"):
        Encoder(EncoderSpec(name=str(tmp_path / "e")))


def test_damaged_folder_says_what_to_do(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "e"
    shutil.copytree(tiny_encoder, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="lacks files or they are broken; copy it again"):
        Encoder(EncoderSpec(name=str(folder)))
    with pytest.raises(ModelError, match="hf download no/encoder"):
        Encoder(EncoderSpec(name="no/encoder"))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w_q, self.w_k, self.w_v, self.out = (nn.Linear(4, 4) for _ in range(4))


class Network(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.self_attn = inner
        self.query = nn.Linear(4, 4)  # outside of any attention


def test_projections_are_found_by_the_structure() -> None:
    assert lora_targets(Network(Attention()), "new", encoder="new") == ("w_k", "w_q", "w_v")
    assert lora_targets(Network(Attention()), "gpt2", encoder="new") == ("c_attn",)
    with pytest.raises(ModelError, match=r"set encoder\.lora_targets to some of: 0, query"):
        lora_targets(Network(nn.Sequential(nn.Linear(4, 4))), "new", encoder="new")


def test_layers_of_the_setting_come_first_and_unknown_ones_are_named(tiny_encoder: Path) -> None:
    encoder = Encoder(EncoderSpec(name=str(tiny_encoder), lora_targets=("dense",)))
    adapted = {n.split(".lora_A")[0].rpartition(".")[2] for n, _ in encoder.named_parameters()
               if "lora_A" in n}  # fmt: skip
    assert adapted == {"dense"}
    with pytest.raises(ModelError, match="no layers named nope; set encoder"):
        Encoder(EncoderSpec(name=str(tiny_encoder), lora_targets=("nope",)))


def test_texts_without_a_token_are_read_too(tmp_path: Path) -> None:
    spec = EncoderSpec(name=str(write_encoder("qwen3", tmp_path)), adaptation="frozen")
    assert TextTokenizer(spec)(["", "good"]).input_ids[0] == [0]
    embed = Embedder(spec, "last", device="cpu")
    vectors = embed(["", "good", "bad"])
    assert np.isfinite(vectors).all()
    assert np.abs(vectors[1] - vectors[2]).max() > 1e-3
    with pytest.raises(ModelError, match="the same vector"):
        Embedder(spec, "cls", device="cpu")


def test_encoder_in_training_mode_draws_nothing_while_it_is_asked(tiny_encoder: Path) -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    Encoder(EncoderSpec(name=str(tiny_encoder), adaptation="full"))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_frozen_encoder_needs_no_peft(tiny_encoder: Path) -> None:
    """Importing it takes as long as importing PyTorch."""
    code = (
        "import sys; from valence.config.sections import EncoderSpec\n"
        "from valence.models.layer_features import LayerFeatures\n"
        f"LayerFeatures(EncoderSpec(name={str(tiny_encoder)!r}), cached=False).vectors(['good'])\n"
        "print('torch' in sys.modules, 'peft' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
