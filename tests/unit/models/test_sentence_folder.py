"""Pooling and Dense layers of a folder of sentence-transformers, as that library has them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.tiny_encoders import write_encoder
from valence.config.data import DataSpec
from valence.config.sections import BUILT_IN_ENCODER, EncoderSpec, HeadSpec
from valence.data.dataset import Dataset
from valence.data.examples import Examples
from valence.data.sources import load_dataset
from valence.errors import ModelError
from valence.evaluation.task import Classification
from valence.methods.base import FitResult
from valence.methods.fit import fit_spec
from valence.methods.registry import make_spec
from valence.models.build import build_model
from valence.models.classifier import NetworkConfig
from valence.models.loader import load_model
from valence.models.sentence_folder import read_sentence_folder
from valence.models.torch_model import TorchModel
from valence.runs.store import result_key

H, WIDE = 32, 20
PREFIX = "sentence_transformers.models"
TASK = Classification(("bad", "good", "meh"), (3, 3, 3), ())
TEXTS = ["good film", "the plot was really not very good but fine", "awful"]


@pytest.fixture
def rows(reviews: Path) -> Dataset:
    return load_dataset(DataSpec(name=str(reviews)), seed=45)


def sentence_folder(
    base: Path, folder: Path, pooling: Mapping[str, Any], dense: Mapping[str, Any] | None = None
) -> Path:
    """A copy of an encoder with a pooling, and a Dense layer of random weights where given."""
    shutil.copytree(base, folder)
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    configs: dict[str, Mapping[str, Any]] = {"1_Pooling": pooling}
    if dense is not None:
        modules.append(("Dense", "2_Dense"))
        configs["2_Dense"] = {"in_features": H, "out_features": WIDE, "bias": True, **dense}
    modules.append(("Normalize", "3_Normalize"))
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"{PREFIX}.{kind}"}
        for i, (kind, path) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    for path, config in configs.items():
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(config))
    if dense is not None:
        draw = torch.Generator().manual_seed(1)
        weights = {
            "linear.weight": torch.randn(WIDE, H, generator=draw),
            "linear.bias": torch.randn(WIDE, generator=draw),
        }
        save_file(weights, folder / "2_Dense" / "model.safetensors")
    return folder


def model_of(folder: Path, *, default: str = "mean", **encoder: Any) -> TorchModel:
    spec = EncoderSpec(name=str(folder), **{"adaptation": "frozen", **encoder})
    return build_model(NetworkConfig(encoder=spec), TASK, {}, default_pooling=default)


def fitted(folder: Path, method: str, rows: Dataset, **settings: Any) -> FitResult:
    named = {"encoder.name": str(folder), "train.epochs": 1, **settings}
    return fit_spec(make_spec(method, DataSpec(), settings=named), rows.without_test())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "max"}, "max"),
        ({"pooling_mode": ["lasttoken"]}, "last"),
        ({}, "mean"),
        ({"pooling_mode": "weightedmean"}, None),
        ({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, None),
    ],
)
def test_pooling_is_read(
    config: dict[str, Any], expected: str | None, tiny_encoder: Path, tmp_path: Path
) -> None:
    folder = read_sentence_folder(str(sentence_folder(tiny_encoder, tmp_path / "e", config)))
    assert folder.pooling == expected
    assert bool(folder.notes) == (expected is None)
    assert folder.include_prompt


@pytest.mark.parametrize("mode", ["cls", "mean", "max", "lasttoken"])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_features_are_those_of_sentence_transformers(
    mode: str, include_prompt: bool, tiny_encoder: Path, tmp_path: Path
) -> None:
    library = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed"
    )
    pooling = {
        "embedding_dimension": H, "pooling_mode": mode, "include_prompt": include_prompt,
    }  # fmt: skip
    dense = {"activation_function": "torch.nn.modules.activation.Tanh"}
    folder = sentence_folder(tiny_encoder, tmp_path / "e", pooling, dense)
    prompts = {"prompts": {"query": "film plot "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    theirs = library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    vectors = theirs.encode(TEXTS, normalize_embeddings=True)
    model = model_of(folder)
    features = model.predict(Examples(TEXTS)).features
    assert features.shape == (3, WIDE)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, vectors, atol=1e-5)
    model.save(tmp_path / "model")
    (folder / "modules.json").unlink()  # what the folder says later changes nothing
    loaded = load_model(tmp_path / "model")
    np.testing.assert_allclose(loaded.predict(Examples(TEXTS)).features, features, atol=1e-6)


def test_dense_layers_are_for_frozen_features(
    tiny_encoder: Path, tmp_path: Path, rows: Dataset
) -> None:
    dense = {"activation_function": "torch.nn.modules.linear.Identity"}
    folder = sentence_folder(tiny_encoder, tmp_path / "e", {"pooling_mode": "cls"}, dense)
    probe = fitted(folder, "linear-probe", rows)
    assert probe.model.text_model().classifier.feature_size == WIDE
    assert any("Dense layers of the encoder's folder are used" in note for note in probe.notes)
    assert any(
        note.startswith("pooling cls, as set in the encoder's folder") for note in probe.notes
    )
    trained = fitted(folder, "lora", rows)
    assert trained.model.text_model().classifier.feature_size == H
    assert any("are for frozen features and were not used" in note for note in trained.notes)
    plain = fitted(folder, "linear-probe", rows, **{"head.pooling": "mean"})
    assert plain.model.text_model().classifier.feature_size == H, "a setting comes first"


def test_cached_features_of_other_dense_weights_are_not_taken(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    dense = {"activation_function": "torch.nn.Tanh"}
    folder = sentence_folder(tiny_encoder, tmp_path / "e", {"pooling_mode": "mean"}, dense)
    features = []
    for scale in (1.0, 2.0):
        weights = {"linear.weight": torch.eye(WIDE, H) * scale, "linear.bias": torch.zeros(WIDE)}
        save_file(weights, folder / "2_Dense" / "model.safetensors")
        model = model_of(folder)
        model.enable_feature_cache()
        features.append(model.predict(Examples(TEXTS)).features)
    assert np.abs(features[0] - features[1]).max() > 0.01


def test_activation_is_never_imported(tiny_encoder: Path, tmp_path: Path) -> None:
    dense = {"activation_function": "os.system"}
    folder = sentence_folder(tiny_encoder, tmp_path / "e", {"pooling_mode": "mean"}, dense)
    with pytest.raises(ModelError, match=r"'os\.system', which is not one of"):
        model_of(folder)


@pytest.mark.parametrize(
    ("dense", "reason"),
    [
        ({"use_residual": True}, "it has a residual"),
        ({"module_input_name": "token_embeddings"}, "it reads tokens"),
        (None, "no model.safetensors"),
    ],
)
def test_layers_that_are_not_read_are_named(
    dense: dict[str, Any] | None, reason: str, tiny_encoder: Path, tmp_path: Path
) -> None:
    folder = sentence_folder(tiny_encoder, tmp_path / "e", {"pooling_mode": "mean"}, dense or {})
    if dense is None:
        (folder / "2_Dense" / "model.safetensors").unlink()
    notes = model_of(folder).notes
    assert any("layer 2_Dense of the encoder's folder was ignored" in note for note in notes)
    assert any(reason in note for note in notes)


def test_auto_is_the_default_of_the_method_without_a_folder_of_layers(
    tiny_encoder: Path, rows: Dataset
) -> None:
    for method, pooling in (("linear-probe", "mean"), ("lora", "cls"), ("hy-mora", "ahsp")):
        result = fitted(tiny_encoder, method, rows)
        assert result.model.text_model().config.head.pooling == pooling
        assert not any("pooling" in note for note in result.notes)


def test_built_in_encoder_keeps_the_poolings_of_published_results() -> None:
    for default in ("cls", "mean"):
        spec = EncoderSpec(name=BUILT_IN_ENCODER, adaptation="frozen")
        model = build_model(NetworkConfig(encoder=spec), TASK, {}, default_pooling=default)
        assert model.config.head.pooling == default
        assert model.notes == ()


@pytest.mark.parametrize("head", ["linear", "unit", "dense"])
def test_first_token_of_a_causal_encoder_is_refused(head: str, tmp_path: Path) -> None:
    folder = write_encoder("qwen3", tmp_path)
    spec = EncoderSpec(name=str(folder))
    with pytest.raises(ModelError, match="every text the same vector; use head"):
        build_model(NetworkConfig(encoder=spec, head=HeadSpec(name=head, pooling="cls")), TASK, {})
    for pooling in ("last", "mean"):
        head_spec = HeadSpec(name=head, pooling=pooling)
        build_model(NetworkConfig(encoder=spec, head=head_spec), TASK, {})
    model = build_model(NetworkConfig(encoder=spec, head=HeadSpec(name=head)), TASK, {})
    assert model.config.head.pooling == "last"
    assert "see only earlier ones" in model.notes[0]


def test_gated_head_is_refused_where_the_first_token_sees_nothing(tmp_path: Path) -> None:
    spec = EncoderSpec(name=str(write_encoder("qwen3", tmp_path)))
    config = NetworkConfig(encoder=spec, head=HeadSpec(name="gated", pooling="ahsp"))
    with pytest.raises(ModelError, match="Head 'gated' reads the state of the first token"):
        build_model(config, TASK, {})


def test_what_an_encoder_decides_is_a_part_of_the_key(
    tiny_encoder: Path, tmp_path: Path, rows: Dataset, reviews: Path
) -> None:
    def choices(folder: Path, method: str) -> tuple[str, ...]:
        named = {"encoder.name": str(folder)}
        spec = make_spec(method, DataSpec(name=str(reviews)), settings=named)
        return result_key(spec, rows).content[1:]

    mean = sentence_folder(tiny_encoder, tmp_path / "mean", {"pooling_mode": "mean"})
    causal = write_encoder("qwen3", tmp_path / "causal")
    for method in ("linear-probe", "lora", "lstm-roberta"):
        assert choices(tiny_encoder, method) == (), "older results stay valid"
    assert choices(mean, "linear-probe") == ()
    assert choices(mean, "lora") == ("pooling mean True ()",)
    assert choices(mean, "lstm-roberta") == ()
    assert choices(causal, "lora") == choices(causal, "linear-probe") == ("pooling last",)
