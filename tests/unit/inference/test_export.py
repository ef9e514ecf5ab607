"""Exports: every head and pooling gives what PyTorch gives, and what is not good is refused."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_reviews
from tests.models import fitted, untrained
from valence.config.data import DataSpec
from valence.data.dataset import Dataset
from valence.data.examples import Examples
from valence.data.sources import load_dataset
from valence.distributed.device import Hardware
from valence.errors import DataError, ModelError, RunError
from valence.inference.export import export, runtimes
from valence.inference.export.export import export_model
from valence.inference.export.job import ExportOptions
from valence.inference.export.onnx_network import write_onnx
from valence.inference.predictor import Predictor
from valence.methods.registry import make_spec
from valence.models.config_file import read_fields, seal_again
from valence.models.exported import DISABLED_OPTIMIZERS, ExportedModel, OnnxRunner
from valence.models.heads import HEADS
from valence.models.pooling import POOLINGS
from valence.models.torch_model import load_torch_model

pytest.importorskip("onnxruntime")
TEXTS = [*make_reviews(40, seed=9)["text"], "good", "the film was " * 40]


@pytest.fixture(scope="module")
def data(reviews: Path) -> Dataset:
    return load_dataset(DataSpec(name=str(reviews)), seed=1)


def save(folder: Path, data: Dataset, encoder: Path, **settings: object) -> Path:
    """A model of random weights; its adapter and its gate are moved from where they begin."""
    import torch

    given = {"encoder.name": str(encoder), "encoder.max_length": 24, **settings}
    spec = make_spec("lora", DataSpec(name=data.name), settings=given)
    model = untrained(spec, data.without_test())
    with torch.no_grad():
        for name, parameter in model.classifier.named_parameters():
            if "lora_B" in name or name.startswith("head.extra"):
                parameter.normal_(std=0.2)
    model.save(folder)
    return folder


# Every head and every pooling once. Exporting one costs seconds, so the gate, which has all
# poolings in it, and one recurrent head stand for the others in the quick tests.
QUICK = [("gated", "ahsp", "lora"), ("han", "cls", "frozen")]
SLOW = [
    ("dense", "mean", "full"), ("unit", "max", "dora"), ("lstm", "cls", "frozen"),
    ("linear", "cls", "frozen"), ("linear", "last", "lora"),
]  # fmt: skip
PAIRS = [*QUICK, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW)]


def test_every_head_and_pooling_is_exported() -> None:
    assert {head for head, _, _ in QUICK + SLOW} == set(HEADS)
    assert {pooling for _, pooling, _ in QUICK + SLOW} == set(POOLINGS)


@pytest.mark.parametrize(("head", "pooling", "adaptation"), PAIRS)
def test_export_equals_the_model(
    data: Dataset, tiny_encoder: Path, tmp_path: Path, head: str, pooling: str, adaptation: str
) -> None:
    settings = {"head.name": head, "head.pooling": pooling, "encoder.adaptation": adaptation}
    sizes = {"head.hidden_size": 8}
    source = save(tmp_path / "model", data, tiny_encoder, **settings, **sizes)
    checks = export_model(source, tmp_path / "onnx", data)
    assert checks["rows"] == len(data.validation)
    assert checks["largest_difference"] < 1e-5
    expected = Predictor(source, hardware=Hardware(device="cpu"))
    found = Predictor(tmp_path / "onnx")
    want = expected.model.predict(Examples(TEXTS))
    for batch_tokens in (None, 24, 4096):
        speed = Hardware(batch_tokens=batch_tokens)
        have = Predictor(tmp_path / "onnx", hardware=speed).model.predict(Examples(TEXTS))
        np.testing.assert_allclose(have.probs, want.probs, atol=1e-5)
        np.testing.assert_allclose(have.features, want.features, atol=1e-4)
        assert have.truncated == want.truncated == 1
    for predictor in (expected, found):
        predictor.long = "windows"
    np.testing.assert_allclose(found.predict_proba(TEXTS), expected.predict_proba(TEXTS), atol=1e-5)
    assert found.truncated == 0


@pytest.fixture(scope="module")
def model(data: Dataset, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("linear") / "model", data, tiny_encoder)


@pytest.fixture
def traced_once(
    model: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracing a network costs seconds; tests of one model share what the first of them traced."""
    ready = tmp_path_factory.getbasetemp() / "traced-linear.onnx"
    if not ready.exists():
        write_onnx(load_torch_model(model), ready)
    monkeypatch.setattr(runtimes, "write_onnx", lambda _, path, *__: shutil.copyfile(ready, path))


def as_run(path: Path, scratch: Path) -> Counter[str]:
    """How many nodes of each kind ONNX Runtime really runs."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it warns that the file is good for this machine only
    options.optimized_model_filepath = str(scratch / "as-run.onnx")
    onnxruntime.InferenceSession(
        str(path),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=DISABLED_OPTIMIZERS,
    )
    return Counter(node.op_type for node in onnx.load(scratch / "as-run.onnx").graph.node)


def test_int8_is_smaller_checked_and_a_model_folder(
    data: Dataset, model: Path, tmp_path: Path, traced_once: None
) -> None:
    whole, small = tmp_path / "fp32", tmp_path / "int8"
    export_model(model, whole, data)
    checks = export_model(model, small, data, options=ExportOptions(int8=True, max_drop=100))
    sizes = [sum(f.stat().st_size for f in (x / "onnx").iterdir()) for x in (small, whole)]
    assert sizes[0] < sizes[1]
    assert 0 < checks["largest_difference"] < 0.2
    kinds = as_run(small / "onnx/model_quantized.onnx", tmp_path)
    assert kinds["MatMulIntegerToFloat"] == 12, "six in each layer run in 8 bits"
    assert kinds["MatMul"] + kinds["FusedMatMul"] + kinds["Gemm"] == 5, "attention and head"
    assert kinds["DequantizeLinear"] == 0, "no table is made into floats as a whole"
    together = Predictor(small).predict_proba(TEXTS)
    alone = np.concatenate([Predictor(small).predict_proba([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert json.loads((small / "export.json").read_text())["checks"] == checks
    expected = {**read_fields(model), "kind": "onnx", "format": 3}
    others = ("model_type", "digests")
    fields = {n: v for n, v in read_fields(small).items() if n != "digests"}
    assert fields == {n: v for n, v in expected.items() if n not in others}
    assert set(Predictor(small).evaluate(data.test)) == set(Predictor(model).evaluate(data.test))
    moved = shutil.copytree(small, tmp_path / "moved")
    shutil.rmtree(small)
    assert len(Predictor(moved).predict(TEXTS)) == len(TEXTS)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_what_cannot_be_made_8_bit_is_said(
    runtime: str, data: Dataset, model: Path, tmp_path: Path, traced_once: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def refused(*_: object) -> None:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(runtimes, "quantize", refused)
    options = ExportOptions(runtime, int8=True)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"quantized \(no kernel\); export it without --int8"):
        export_model(model, tmp_path / "out", data, options=options)
    assert not (tmp_path / "out").exists()


def test_onnx_by_several_threads_changes_nothing(
    data: Dataset, model: Path, tmp_path: Path, traced_once: None
) -> None:
    export_model(model, tmp_path / "onnx", data)
    alone = Predictor(tmp_path / "onnx", hardware=Hardware(threads=1))
    fast = Predictor(tmp_path / "onnx", hardware=Hardware(threads=3, batch_tokens=16))
    texts = [*TEXTS, *(f"{'very ' * (n % 5)}good food {n}" for n in range(24))]
    np.testing.assert_allclose(fast.predict_proba(texts), alone.predict_proba(texts), atol=1e-5)
    assert isinstance(fast.model, ExportedModel)
    assert isinstance(fast.model.runner, OnnxRunner)
    assert fast.model.runner.bulk is not None
    assert alone.predict_proba(texts[:1]).shape == (1, 3)


def test_openvino_int8_streams_in_order(
    data: Dataset, model: Path, tmp_path: Path, traced_once: None
) -> None:
    pytest.importorskip("nncf")
    options = ExportOptions("openvino", int8=True, max_drop=100)
    checks = export_model(model, tmp_path / "ov", data, options=options)
    assert checks["largest_difference"] < 0.2
    fast = Predictor(tmp_path / "ov", hardware=Hardware(threads=3, batch_tokens=48))
    alone = np.concatenate([fast.predict_proba([text]) for text in TEXTS])
    np.testing.assert_allclose(fast.predict_proba(TEXTS), alone, atol=1e-5)
    exact = Predictor(model, hardware=Hardware(device="cpu")).predict_proba(TEXTS)
    np.testing.assert_allclose(fast.predict_proba(TEXTS), exact, atol=0.1)


def test_what_loses_too_much_is_not_kept(
    data: Dataset, model: Path, tmp_path: Path, traced_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        export, "compare_scores",
        lambda labels, *_: {
            "rows": len(labels), "largest_difference": 0.01, "flips": 0.1,
            "macro_f1": (0.8, 0.8), "worst_f1": (0.70, 0.69),
        },
    )  # fmt: skip
    out = tmp_path / "out"
    options = ExportOptions(int8=True)
    with pytest.raises(ModelError, match=r"loses 1\.00 points of the worst class's F1"):
        export_model(model, out, data, options=options)
    assert not out.exists()
    with pytest.raises(ModelError, match="different probabilities"):
        export_model(model, out, data)
    export_model(model, out, data, options=replace(options, max_drop=1.01))
    (out / "onnx/model_quantized.onnx").write_bytes(b"broken")
    seal_again(out)
    with pytest.raises(ModelError, match="cannot be run"):
        Predictor(out)
    (out / "onnx/model_quantized.onnx").unlink()
    with pytest.raises(ModelError, match="is missing"):
        Predictor(out)


def test_wrong_use_is_told(data: Dataset, model: Path, tmp_path: Path) -> None:
    other = replace(data, classes=("x", "y", "z"))
    with pytest.raises(DataError, match="rows with the model's classes with --data"):
        export_model(model, tmp_path / "out", other)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(RunError, match="not empty"):
        export_model(model, tmp_path / "mine", data)
    spec = make_spec("majority", DataSpec(name=data.name))
    fitted(spec, data.without_test()).save(tmp_path / "majority")
    with pytest.raises(ModelError, match="no network to export"):
        export_model(tmp_path / "majority", tmp_path / "out", data)
