"""Model folders that ``pipeline("text-classification")`` loads as they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.architectures import CONFIGS, save_encoder
from tests.conftest import make_reviews
from valence.config.data import DataSpec
from valence.config.sections import EncoderSpec, HeadSpec
from valence.data.examples import Examples
from valence.errors import ModelError
from valence.evaluation.task import Classification
from valence.inference.predictor import Predictor
from valence.models.build import build_model
from valence.models.classifier import NetworkConfig
from valence.models.loader import load_model
from valence.models.stock_head import STOCK_HEADS, stock_classifier, stock_refusal
from valence.models.torch_model import TorchModel
from valence.training.continue_training import content_hash

TEXTS = [*make_reviews(30, seed=3)["text"], "good", "the film was " * 40]
TASK = Classification(("bad", "good", "meh"), (10, 20, 5), (2,))
NO_TANH = ("electra", "distilbert", "modernbert", "eurobert")


def model_of(
    encoder: Path, adaptation: str = "full", *, head: str = "linear", pooling: str = "cls",
    prompt: str = "",
) -> TorchModel:  # fmt: skip
    """A model whose logits are as large as those of trained ones."""
    import torch

    torch.manual_seed(5)
    spec = EncoderSpec(
        name=str(encoder),
        max_length=24,
        adaptation=adaptation,
        lora_targets=("query",),
        prompt=prompt,
    )
    config = NetworkConfig(encoder=spec, head=HeadSpec(name=head, pooling=pooling))
    provenance = {"method": "full", "data": DataSpec(name="demo").model_dump(mode="json")}
    model = build_model(config, TASK, provenance)
    with torch.no_grad():
        for name, parameter in model.classifier.named_parameters():
            if name.startswith("head.linear"):
                parameter.normal_(std=0.8)
            elif "lora_B" in name:
                parameter.normal_(std=0.1)
    model.classifier.eval()
    return model


def piped(folder: Path, texts: list[str] = TEXTS) -> np.ndarray:
    """(N, C) probabilities as the pipeline of transformers gives them."""
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(folder), device="cpu")
    rows = classify(texts, top_k=None, truncation=True)
    return np.array([[{r["label"]: r["score"] for r in row}[n] for n in TASK.names]
                     for row in rows])  # fmt: skip


CASES = [
    (kind, head, pooling)
    for kind, stock in STOCK_HEADS.items()
    for head in ("linear", "dense")
    for pooling in stock.poolings
    if head == "linear" or kind not in NO_TANH
]


def test_every_stock_head_has_a_case() -> None:
    assert {kind for kind, _, _ in CASES} == set(STOCK_HEADS) <= set(CONFIGS)


@pytest.mark.parametrize(("kind", "head", "pooling"), CASES)
def test_saved_folder_is_one_of_transformers(
    kind: str, head: str, pooling: str, tmp_path: Path
) -> None:
    model = model_of(save_encoder(kind, tmp_path / "encoder"), head=head, pooling=pooling)
    model.save(tmp_path / "model")
    outputs = model.predict(Examples(TEXTS))
    assert np.abs(outputs.logits).max() > 2, "as large as those of trained models"
    assert outputs.logits.std(axis=0).max() > 0.1, "and not the same for all texts"
    np.testing.assert_allclose(piped(tmp_path / "model"), outputs.probs, atol=1e-5)
    again = Predictor(tmp_path / "model").model.predict(Examples(TEXTS))
    np.testing.assert_allclose(again.logits, outputs.logits, atol=1e-5)
    np.testing.assert_allclose(again.features, outputs.features, atol=1e-5)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["architectures"][0].endswith("ForSequenceClassification")
    assert config["id2label"] == {"0": "bad", "1": "good", "2": "meh"}
    assert not (tmp_path / "model" / "encoder").exists()


def test_more_classes_than_hidden_units_are_refused(tmp_path: Path) -> None:
    names = tuple(f"c{i}" for i in range(20))
    many = Classification(names, (5,) * 20, ())
    spec = EncoderSpec(name=str(save_encoder("bert", tmp_path)), adaptation="full")
    model = build_model(NetworkConfig(encoder=spec), many, {"method": "full"})
    assert stock_refusal(model) == "its 20 classes do not fit into 32 hidden units"
    with pytest.raises(ModelError, match="20 classes do not fit into 32 hidden units; use"):
        stock_classifier(model)


def test_a_logit_shift_is_in_the_stock_head(tmp_path: Path) -> None:
    model = model_of(save_encoder("roberta", tmp_path / "encoder"))
    shifted = replace(model, logit_shift=(1.0, 0.0, -2.0))
    shifted.save(tmp_path / "model")
    expected = shifted.predict(Examples(TEXTS)).probs
    np.testing.assert_allclose(piped(tmp_path / "model"), expected, atol=1e-5)
    np.testing.assert_allclose(
        load_model(tmp_path / "model").predict(Examples(TEXTS)).probs, expected, atol=1e-5
    )


def test_the_hash_of_a_model_knows_its_encoder(tmp_path: Path) -> None:
    model_of(save_encoder("bert", tmp_path / "encoder")).save(tmp_path / "model")
    before = content_hash(tmp_path / "model")
    with (tmp_path / "model/model.safetensors").open("ab") as stream:
        stream.write(b"0")
    assert content_hash(tmp_path / "model") != before
