"""Static embeddings are a frozen encoder: a vector per token, without context."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from tests.static import WIDTH, write_static
from valence.config.data import DataSpec
from valence.config.sections import EncoderSpec
from valence.data.dataset import TrainingData
from valence.data.examples import Examples
from valence.data.sources import load_dataset
from valence.errors import ModelError
from valence.inference.export.export import export_model
from valence.llm.retrieval import Embedder
from valence.methods.fit import fit_spec
from valence.methods.registry import make_spec
from valence.models.encoder import Encoder, TextTokenizer
from valence.models.layer_features import LayerFeatures
from valence.models.loader import load_model
from valence.models.torch_model import TorchModel

TEXTS = ["good film", "a zebra of good food", "zebra", ""]


@pytest.fixture
def rows(reviews: Path) -> TrainingData:
    return load_dataset(DataSpec(name=str(reviews)), seed=45).without_test()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_static(tmp_path / "static")


def probe(folder: Path, rows: TrainingData, **settings: object) -> TorchModel:
    named = {"encoder.name": str(folder), "train.cache": "off", **settings}
    return fit_spec(make_spec("linear-probe", DataSpec(), settings=named), rows).model.text_model()


@pytest.mark.parametrize("quantized", [False, True])
def test_features_are_those_of_model2vec(
    quantized: bool, tmp_path: Path, rows: TrainingData
) -> None:
    model2vec = pytest.importorskip("model2vec", reason="model2vec is not installed")
    folder = write_static(tmp_path / "static", quantized=quantized)
    expected = model2vec.StaticModel.from_pretrained(folder, normalize=False).encode(TEXTS)
    features = probe(folder, rows).predict(Examples(TEXTS)).features
    assert features.shape == (4, WIDTH)
    np.testing.assert_allclose(features, expected, atol=1e-6)
    assert not features[2:].any(), "a text without a known token is zero"


def test_layout_of_sentence_transformers_is_read(tmp_path: Path, folder: Path) -> None:
    other = tmp_path / "other"
    (other / "0_StaticEmbedding").mkdir(parents=True)
    table = load_file(folder / "model.safetensors")["embeddings"]
    save_file({"embedding.weight": table}, other / "0_StaticEmbedding" / "model.safetensors")
    tokenizer = (folder / "tokenizer.json").read_bytes()
    (other / "0_StaticEmbedding" / "tokenizer.json").write_bytes(tokenizer)
    module = {"type": "sentence_transformers.models.StaticEmbedding", "path": "0_StaticEmbedding"}
    (other / "modules.json").write_text(json.dumps([module]))
    vectors = [Embedder(EncoderSpec(name=str(f)), device="cpu")(TEXTS) for f in (folder, other)]
    np.testing.assert_array_equal(*vectors)


def test_saved_probe_says_the_same_and_names_its_words(
    folder: Path, rows: TrainingData, tmp_path: Path
) -> None:
    pytest.importorskip("captum", reason="the extra explain is not installed")
    model = probe(folder, rows)
    assert model.config.head.pooling == "mean"
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    probs = model.predict(Examples(TEXTS)).probs
    np.testing.assert_allclose(loaded.predict(Examples(TEXTS)).probs, probs, atol=1e-6)
    attribution = loaded.attribute(TEXTS[1], 0)
    assert [TEXTS[1][a:b] for (a, b), _ in attribution.pieces] == ["a", "good", "food"]
    assert loaded.attribute("zebra", 0).pieces == []


def test_features_of_all_layers_are_mean_and_maximum(folder: Path) -> None:
    layers = LayerFeatures(EncoderSpec(name=str(folder), adaptation="frozen"), cached=False)
    vectors, _ = layers.vectors(["good"])
    assert vectors.shape == (1, layers.size) == (1, 2 * WIDTH)
    np.testing.assert_array_equal(vectors[0, :WIDTH], vectors[0, WIDTH:])


def test_long_texts_are_read_in_windows(folder: Path, rows: TrainingData) -> None:
    model = probe(folder, rows, **{"encoder.max_length": 8})
    assert [len(p.split()) for p in model.windows(["good food but a cold room " * 2])[0]] == [8, 8]
    assert model.predict(Examples(["good food but a cold room " * 2])).truncated == 1


def test_heads_are_trained_on_the_frozen_table(folder: Path, rows: TrainingData) -> None:
    settings = {"encoder.name": str(folder), "encoder.adaptation": "frozen", "train.epochs": 1}
    result = fit_spec(make_spec("cross-entropy", DataSpec(), settings=settings), rows)
    assert result.model.text_model().config.head.pooling == "mean"


@pytest.mark.parametrize("adaptation", ["lora", "dora", "full"])
def test_training_it_is_refused(adaptation: str, folder: Path) -> None:
    with pytest.raises(ModelError, match="static embeddings, which cannot be trained"):
        Encoder(EncoderSpec(name=str(folder), adaptation=adaptation))


@pytest.mark.parametrize("pooling", ["cls", "last"])
def test_poolings_of_one_token_are_refused(pooling: str, folder: Path, rows: TrainingData) -> None:
    with pytest.raises(ModelError, match="would use a single word"):
        probe(folder, rows, **{"head.pooling": pooling})


def test_export_is_refused_with_advice(
    folder: Path, rows: TrainingData, reviews: Path, tmp_path: Path
) -> None:
    probe(folder, rows).save(tmp_path / "model")
    with pytest.raises(ModelError, match="static embeddings"):
        export_model(
            tmp_path / "model",
            tmp_path / "onnx",
            load_dataset(DataSpec(name=str(reviews)), seed=45),
        )


def test_broken_table_is_one_clear_error(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="has no static embeddings"):
        Encoder(EncoderSpec(name=str(folder), adaptation="frozen"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="of the static embeddings"):
        TextTokenizer(EncoderSpec(name=str(folder)))
