"""Every architecture: loaded, frozen, adapted, trained, saved, loaded, explained, exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import ROOT, WORDS
from tests.tiny_encoders import ARCHITECTURES, write_encoder
from valence.config.sections import EncoderSpec, HeadSpec
from valence.data.examples import Examples
from valence.errors import ModelError
from valence.evaluation.task import Classification
from valence.inference.export.onnx_network import write_onnx
from valence.models.adapters import LORA_TARGETS
from valence.models.build import build_model
from valence.models.classifier import NetworkConfig
from valence.models.layer_features import LayerFeatures
from valence.models.loader import load_model
from valence.models.torch_model import TorchModel

TASK = Classification(("bad", "good", "meh"), (3, 3, 3), ())
TEXTS = ["good film", "the plot was really not very good but fine", "awful", "cold room is bad"]
LABELS = torch.tensor([1, 1, 0, 0])
Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = write_encoder(name, tmp_path_factory.mktemp("encoder"))
        return folders[name]

    return folder


def new_model(folder: Path, adaptation: str) -> TorchModel:
    encoder = EncoderSpec(name=str(folder), adaptation=adaptation, lora_dropout=0.0, lora_rank=2)
    torch.manual_seed(0)
    return build_model(NetworkConfig(encoder=encoder, head=HeadSpec(dropout=0.0)), TASK, {})


def test_every_architecture_with_known_layers_has_a_row() -> None:
    assert set(LORA_TARGETS) <= set(ARCHITECTURES)


def test_page_lists_the_known_layers() -> None:
    page = (ROOT / "docs/train.md").read_text(encoding="utf-8")
    listed = {}
    for line in page.partition("| `model_type` |")[2].splitlines():
        if line.startswith("| `"):
            _, model_type, _, layers, _ = line.split("|")
            listed[model_type.strip(" `")] = tuple(layers.replace("`", "").split())
    assert listed == LORA_TARGETS


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_frozen_encoder_reads_texts_whatever_the_batch(name: str, folder_of: Folder) -> None:
    row, model = ARCHITECTURES[name], new_model(folder_of(name), "frozen")
    encoder = model.classifier.encoder
    assert (encoder.hidden_size, encoder.traits.causal) == (row.width, row.causal)
    assert model.config.head.pooling == ("last" if row.causal else "cls")
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    together = model.predict(Examples(TEXTS))
    alone = np.concatenate([model.predict(Examples([text])).features for text in TEXTS])
    np.testing.assert_allclose(together.features, alone, atol=2e-4, rtol=1e-3)
    assert np.abs(together.features[0] - together.features[1]).max() > 1e-4


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_long_texts_are_truncated_at_the_last_position(name: str, folder_of: Folder) -> None:
    model = new_model(folder_of(name), "frozen")
    assert model.max_tokens == ARCHITECTURES[name].max_length
    outputs = model.predict(Examples([" ".join(WORDS * 5)]))
    assert outputs.truncated == 1
    assert np.isfinite(outputs.logits).all()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_features_of_all_layers_are_as_wide_as_they_say(name: str, folder_of: Folder) -> None:
    layers = LayerFeatures(EncoderSpec(name=str(folder_of(name))), cached=False)
    vectors, _ = layers.vectors(TEXTS)
    assert vectors.shape == (len(TEXTS), layers.size)
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize("adaptation", ["lora", "dora", "full"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_one_step_trains_and_the_saved_model_says_the_same(
    name: str, adaptation: str, folder_of: Folder, tmp_path: Path
) -> None:
    model = new_model(folder_of(name), adaptation)
    before = model.predict(Examples(TEXTS)).probs
    network = model.classifier.train()
    trained = {n: p.detach().clone() for n, p in network.named_parameters() if p.requires_grad}
    assert any(n.startswith("encoder.") for n in trained)
    batch = model.inputs_of(model.encode(TEXTS)).batch(range(len(TEXTS)))
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):  # at first B of an adapter is zero, and A gets no gradient
        optimizer.zero_grad()
        loss = network(**batch, labels=LABELS)["loss"]
        loss.backward()
        optimizer.step()
    assert torch.isfinite(loss)
    changed = {n for n, p in network.named_parameters() if n in trained and (p != trained[n]).any()}
    assert any(n.startswith("encoder.") for n in changed)
    network.eval()
    probs = model.predict(Examples(TEXTS)).probs
    assert np.abs(probs - before).max() > 1e-5
    model.save(tmp_path)
    loaded = load_model(tmp_path)
    np.testing.assert_allclose(loaded.predict(Examples(TEXTS)).probs, probs, atol=1e-6)
    assert loaded.text_model().config == model.config


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_word_is_explained(name: str, folder_of: Folder) -> None:
    pytest.importorskip("captum", reason="the extra explain is not installed")
    attribution = new_model(folder_of(name), "frozen").attribute(TEXTS[1], 0, 8)
    words = [TEXTS[1][a:b].strip() for (a, b), _ in attribution.pieces]
    assert words == TEXTS[1].split()
    scores = np.array([score for _, score in attribution.pieces])
    assert np.isfinite(scores).all()
    assert scores.any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_export_gives_the_same_probabilities_or_says_why_not(
    name: str, folder_of: Folder, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    import onnxruntime

    model = new_model(folder_of(name), "lora")
    path = tmp_path / "model.onnx"
    if not ARCHITECTURES[name].exports:
        with pytest.raises(ModelError, match="cannot be exported"):
            write_onnx(model, path)
        return
    write_onnx(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for size in (1, 3):
        batch = model.inputs_of(model.encode(TEXTS)).batch(range(size))
        feed = {key: value.numpy() for key, value in batch.items()}
        logits = session.run(["logits"], feed)[0]
        expected = model.predict(Examples(TEXTS[:size])).logits
        np.testing.assert_allclose(logits, expected, atol=1e-4)
