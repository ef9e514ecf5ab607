"""Exports in the hands of the tools they are for; each is really run where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.architectures import save_classifier, save_encoder
from tests.conftest import make_reviews
from tests.unit.models.test_stock_head import TASK, TEXTS, model_of, piped
from valence.cli import app
from valence.config.sections import BUILT_IN_ENCODER
from valence.data.dataset import Dataset, Split
from valence.errors import ModelError
from valence.inference.calibration import Calibration, write_calibration
from valence.inference.export.export import export_model
from valence.inference.export.job import ExportOptions
from valence.inference.import_model import import_model
from valence.inference.predictor import Predictor

SCRIPT = """
import { env, pipeline } from '@huggingface/transformers';
env.allowRemoteModels = false;
env.localModelPath = '';
const [folder, dtype, ...texts] = process.argv.slice(2);
const classify = await pipeline('text-classification', folder, { dtype });
console.log(JSON.stringify(await classify(texts, { top_k: null })));
"""


@pytest.fixture(scope="module")
def data() -> Dataset:
    rows = make_reviews(120, seed=2)
    ids = {name: i for i, name in enumerate(TASK.names)}
    split = Split(
        texts=rows["text"].tolist(), labels=rows["label"].map(ids).to_numpy(),
        ids=np.arange(len(rows)),
    )  # fmt: skip
    return Dataset("reviews", TASK.names, (), split, split, split.take([]))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder("bert", tmp_path_factory.mktemp("bert"))


def exported(model: Any, folder: Path, data: Dataset, kind: str, **options: Any) -> Path:
    """The export of a model, through its saved folder."""
    if not (folder / "model").exists():
        model.save(folder / "model")
    out = folder / kind
    export_model(folder / "model", out, data, options=ExportOptions(kind, **options))  # type: ignore[arg-type]
    return out


@pytest.mark.parametrize("adaptation", ["frozen", "lora", "dora", "full"])
def test_pipeline_gives_the_same(
    adaptation: str, encoder: Path, data: Dataset, tmp_path: Path
) -> None:
    model = model_of(encoder, adaptation)
    out = exported(model, tmp_path, data, "transformers")
    expected = Predictor(tmp_path / "model").predict_proba(TEXTS)
    np.testing.assert_allclose(piped(out), expected, atol=1e-5)
    np.testing.assert_allclose(Predictor(out).predict_proba(TEXTS), expected, atol=1e-5)


CALIBRATION = Calibration(
    classes=TASK.names, temperature=1.7, bias=(0.3, -0.2, 0.0), shift=(0.0, 0.4, 0.0),
    prior=(0.3, 0.4, 0.3), level=0.1, limits=(0.5, 0.5, 0.5),
)  # fmt: skip


@pytest.mark.parametrize("kind", ["transformers", "sentence-transformers", "onnx"])
def test_calibration_and_shift_are_in_the_export(
    kind: str, encoder: Path, data: Dataset, tmp_path: Path
) -> None:
    model = replace(model_of(encoder, "lora"), logit_shift=(0.5, -0.5, 0.1))
    model.save(tmp_path / "model")
    plain = Predictor(tmp_path / "model").predict_proba(TEXTS)
    write_calibration(CALIBRATION, tmp_path / "model")
    out = tmp_path / "out"
    checks = export_model(tmp_path / "model", out, data, options=ExportOptions(kind))  # type: ignore[arg-type]
    expected = Predictor(tmp_path / "model").predict_proba(TEXTS)
    assert np.abs(expected - plain).max() > 0.05
    np.testing.assert_allclose(Predictor(out).predict_proba(TEXTS), expected, atol=1e-5)
    assert "not abstaining" in checks["notes"][0]


def test_imported_models_are_exported_with_their_calibration(data: Dataset, tmp_path: Path) -> None:
    labels = {"id2label": dict(enumerate(TASK.names))}
    import_model(save_classifier("distilbert", tmp_path / "theirs", **labels), tmp_path / "model")
    write_calibration(CALIBRATION, tmp_path / "model")
    out = exported(None, tmp_path, data, "transformers")
    expected = Predictor(tmp_path / "model").predict_proba(TEXTS)
    np.testing.assert_allclose(piped(out), expected, atol=1e-5)
    import_model(save_classifier("qwen3", tmp_path / "causal", **labels), tmp_path / "other")
    write_calibration(CALIBRATION, tmp_path / "other")
    with pytest.raises(ModelError, match=r"last layer has no bias; use --format onnx"):
        export_model(
            tmp_path / "other", tmp_path / "no", data, options=ExportOptions("transformers")
        )


def test_calibrate_says_what_other_tools_do_not_read(encoder: Path, tmp_path: Path) -> None:
    rows = make_reviews(90, seed=6)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    for adaptation, said in (("full", True), ("frozen", False)):
        folder = tmp_path / adaptation
        model_of(encoder, adaptation).save(folder)
        words = ["calibrate", str(folder), "--data", str(tmp_path / "rows.csv")]
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0
        message = "Other tools ignore the calibration of this folder"
        assert (message in done.output.replace("\n", " ")) == said


@pytest.mark.parametrize(
    ("head", "pooling", "reason"),
    [
        ("linear", "mean", r"'bert' in transformers reads cls but the model uses mean pooling"),
        ("gated", "ahsp", r"no head like 'gated'"),
    ],
)
def test_what_transformers_cannot_hold_is_refused(
    head: str, pooling: str, reason: str, encoder: Path, data: Dataset, tmp_path: Path
) -> None:
    model = model_of(encoder, head=head, pooling=pooling)
    with pytest.raises(ModelError, match=rf"{reason}.*use --format onnx"):
        exported(model, tmp_path, data, "transformers")
    assert (tmp_path / "model/encoder/model.safetensors").exists(), "saved in our own layout"
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert config["model_type"] == "valence", "transformers does not load it with a random head"
    with pytest.raises(ModelError, match="--int8 is for --format onnx"):
        ExportOptions("transformers", int8=True)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
@pytest.mark.parametrize("adaptation", ["frozen", "lora"])
def test_sentence_transformers_gives_the_features(
    pooling: str, adaptation: str, encoder: Path, data: Dataset, tmp_path: Path
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from safetensors.numpy import load_file

    model = model_of(encoder, adaptation, pooling=pooling)
    out = exported(model, tmp_path, data, "sentence-transformers")
    library = sentence_transformers.SentenceTransformer(str(out), device="cpu")
    embeddings = library.encode(TEXTS)
    expected = Predictor(tmp_path / "model").model.predict(examples())
    np.testing.assert_allclose(embeddings, expected.features, atol=1e-5)
    labels = json.loads((out / "labels.json").read_text())
    head = load_file(out / "head.safetensors")
    scores = np.exp(embeddings @ head[labels["weight"]].T + head[labels["bias"]])
    probs = scores / scores.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probs, expected.probs, atol=1e-5)
    assert labels["labels"] == list(TASK.names)
    np.testing.assert_allclose(Predictor(out).predict_proba(TEXTS), expected.probs, atol=1e-5)


def examples() -> Any:
    from valence.data.examples import Examples

    return Examples(TEXTS)


def test_sentence_transformers_puts_the_prompt_in_front(
    encoder: Path, data: Dataset, tmp_path: Path
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = model_of(encoder, "frozen", pooling="mean", prompt="very good ")
    out = exported(model, tmp_path, data, "sentence-transformers")
    library = sentence_transformers.SentenceTransformer(str(out), device="cpu")
    features = model.predict(examples()).features
    plain = model_of(encoder, "frozen", pooling="mean").predict(examples()).features
    assert np.abs(features - plain).max() > 0.1, "the prompt changes them"
    np.testing.assert_allclose(library.encode(TEXTS), features, atol=1e-5)
    with pytest.raises(ModelError, match="does not put the prompt 'very good ' in front of texts"):
        exported(model, tmp_path, data, "transformers")


def test_sentence_transformers_pools_the_last_token(data: Dataset, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    causal = save_encoder("qwen3", tmp_path / "causal")
    model = model_of(causal, "frozen", pooling="last")
    out = exported(model, tmp_path, data, "sentence-transformers")
    library = sentence_transformers.SentenceTransformer(str(out), device="cpu")
    expected = model.predict(examples()).features
    np.testing.assert_allclose(library.encode(TEXTS), expected, atol=1e-5)
    with pytest.raises(ModelError, match="no classification head of transformers is known"):
        exported(model, tmp_path, data, "transformers")


def test_other_heads_are_no_sentence_transformers(
    encoder: Path, data: Dataset, tmp_path: Path
) -> None:
    model = model_of(encoder, head="dense", pooling="mean")
    with pytest.raises(ModelError, match="use --format onnx"):
        exported(model, tmp_path, data, "sentence-transformers")


@pytest.fixture(scope="module")
def onnx_folder(encoder: Path, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a head that transformers does not have."""
    pytest.importorskip("onnxscript")
    base = tmp_path_factory.mktemp("layout")
    model = model_of(encoder, "lora", pooling="mean")
    return exported(model, base, data, "onnx")


def test_layout_that_loaders_look_for(onnx_folder: Path) -> None:
    """Optimum: any ``**/model.onnx``; text-embeddings-inference: ``onnx/model.onnx``,
    ``tokenizer.json`` and in ``config.json`` an architecture that ends in Classification, sizes
    as integers, label maps with text keys; transformers.js: ``onnx/model.onnx`` and what the
    config says of external data."""
    import onnxruntime

    config = json.loads((onnx_folder / "config.json").read_text())
    assert config["model_type"] == "bert"
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {str(i): name for i, name in enumerate(TASK.names)}
    assert config["label2id"] == {name: i for i, name in enumerate(TASK.names)}
    sizes = ("max_position_embeddings", "pad_token_id", "hidden_size", "num_hidden_layers")
    assert all(isinstance(config[name], int) for name in sizes)
    assert "auto_map" not in config
    limit = json.loads((onnx_folder / "sentence_bert_config.json").read_text())
    about = json.loads((onnx_folder / "tokenizer_config.json").read_text())
    assert limit["max_seq_length"] == about["model_max_length"] == 24
    names = [path.relative_to(onnx_folder).as_posix() for path in onnx_folder.rglob("*.onnx*")]
    assert sorted(names) == ["onnx/model.onnx", "onnx/model.onnx_data"]
    external = config["transformers.js_config"]["use_external_data_format"]
    assert external == {"model.onnx": 1}
    session = onnxruntime.InferenceSession(str(onnx_folder / "onnx/model.onnx"))
    assert [one.name for one in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert {one.type for one in session.get_inputs()} == {"tensor(int64)"}
    assert session.get_outputs()[0].name == "logits"
    assert session.get_outputs()[0].type == "tensor(float)"


def test_tokenizer_and_graph_alone_give_the_same(onnx_folder: Path) -> None:
    """As Optimum does: the tokenizer of the folder, ONNX Runtime, and a softmax."""
    import onnxruntime
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(onnx_folder)
    batch = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="np")
    session = onnxruntime.InferenceSession(str(onnx_folder / "onnx/model.onnx"))
    given = {one.name: batch[one.name].astype(np.int64) for one in session.get_inputs()}
    scores = np.exp(session.run(["logits"], given)[0])
    expected = Predictor(onnx_folder.parent / "model").predict_proba(TEXTS)
    np.testing.assert_allclose(scores / scores.sum(axis=1, keepdims=True), expected, atol=1e-5)
    moved = onnx_folder.parent / "copy"
    Predictor(onnx_folder).model.save(moved)
    np.testing.assert_allclose(Predictor(moved).predict_proba(TEXTS), expected, atol=1e-5)


@pytest.fixture(scope="module")
def node_folder() -> Iterator[Path]:
    """A folder with transformers.js, as npm fetches it; half a gigabyte, gone at the end."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    with tempfile.TemporaryDirectory() as name:
        command = ["npm", "install", "--ignore-scripts", "--silent", "@huggingface/transformers@4"]
        done = subprocess.run(command, cwd=name, capture_output=True, timeout=250, check=False)
        if done.returncode:
            pytest.skip("npm cannot fetch @huggingface/transformers")
        (Path(name) / "classify.mjs").write_text(SCRIPT)
        yield Path(name)


@pytest.mark.slow
@pytest.mark.parametrize(("int8", "dtype"), [(False, "fp32"), (True, "q8")])
def test_transformers_js_gives_the_same(
    int8: bool, dtype: str, node_folder: Path, data: Dataset, tmp_path: Path
) -> None:
    """Of the built-in encoder: transformers.js knows no tokenizer of whole words.

    And of texts within the limit: of longer ones it cuts the closing token off too.
    """
    pytest.importorskip("nncf" if int8 else "onnxscript")
    model = model_of(Path(BUILT_IN_ENCODER), "lora", pooling="mean")
    out = exported(model, tmp_path, data, "onnx", int8=int8, max_drop=100.0)
    texts = ["I loved it! Great staff.", "Horrible, never again…", "Ça va, 不错 ok"]
    done = subprocess.run(
        ["node", "classify.mjs", str(out), dtype, *texts],
        cwd=node_folder, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    rows = [{one["label"]: one["score"] for one in row} for row in json.loads(done.stdout)]
    probs = np.array([[row[name] for name in TASK.names] for row in rows])
    expected = Predictor(out).predict_proba(texts)
    np.testing.assert_allclose(probs, expected, atol=0.02 if int8 else 1e-5)
