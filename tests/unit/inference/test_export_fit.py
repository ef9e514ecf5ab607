"""Exports of the models of ``valence fit``: both views and every member, without PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_reviews
from valence.config.data import DataSpec
from valence.data.dataset import Dataset
from valence.data.examples import Examples
from valence.data.sources import load_dataset
from valence.distributed.device import Hardware
from valence.errors import ModelError
from valence.inference.calibration import no_calibration, read_calibration, write_calibration
from valence.inference.export.export import export_model
from valence.inference.export.job import ExportOptions
from valence.inference.predictor import Predictor
from valence.methods.fit import fit_spec
from valence.methods.registry import make_spec
from valence.models.base import Model
from valence.models.config_file import read_config
from valence.models.ensemble import EnsembleModel
from valence.models.loader import load_model

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
TEXTS = [*make_reviews(40, seed=9)["text"], "good", "", "the film was " * 40]

WITHOUT_TORCH = """
import sys
from valence.inference.predictor import Predictor
probs = Predictor(sys.argv[1]).predict_proba(["the food was good", "not good"])
assert probs.shape == (2, 3)
heavy = {"torch", "transformers", "peft", "onnx"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.fixture(scope="module")
def data(reviews: Path) -> Dataset:
    return load_dataset(DataSpec(name=str(reviews)), seed=1)


def fitted(method: str, data: Dataset, encoder: Path, **settings: object) -> Model:
    named = {"encoder.name": str(encoder), "encoder.max_length": 24}
    given = {path.replace("__", "."): value for path, value in settings.items()}
    spec = make_spec(method, DataSpec(name=data.name), settings={**named, **given})
    return fit_spec(spec, data.without_test()).model.uncached()


@pytest.fixture(scope="module")
def ridge(data: Dataset, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ridge") / "model"
    fitted("kernel-ridge", data, tiny_encoder, encoder__prompt="the ").save(folder)
    return folder


@pytest.fixture(scope="module")
def auto(data: Dataset, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mean of three models, each of a kind that auto tries."""
    folder = tmp_path_factory.mktemp("auto") / "model"
    members = [
        fitted("kernel-ridge", data, tiny_encoder), fitted("linear-probe", data, tiny_encoder),
        fitted("lora-balanced", data, tiny_encoder, train__epochs=1),
    ]  # fmt: skip
    spec = make_spec("auto", DataSpec(name=data.name))
    EnsembleModel(data.task, spec.model_dump(mode="json"), members, [0.6, 0.5, 0.2]).save(folder)
    return folder


def assert_same(source: Path, exported: Path, *, windows: bool = True) -> None:
    before, after = Predictor(source, hardware=Hardware(device="cpu")), Predictor(exported)
    expected, outputs = (one.outputs(Examples(TEXTS)) for one in (before, after))
    np.testing.assert_allclose(outputs.probs, expected.probs, atol=1e-4)
    np.testing.assert_allclose(outputs.features, expected.features, atol=1e-3)
    assert outputs.truncated == expected.truncated == 1
    if not windows:  # their mean is taken before a calibration, or after one in the graph
        return
    before.long = after.long = "windows"
    np.testing.assert_allclose(after.predict_proba(TEXTS), before.predict_proba(TEXTS), atol=1e-4)


def test_both_views_are_exported(ridge: Path, data: Dataset, tmp_path: Path) -> None:
    checks = export_model(ridge, tmp_path / "onnx", data)
    assert checks["largest_difference"] < 1e-4
    assert any("n-gram logits" in note for note in checks["notes"])
    assert_same(ridge, tmp_path / "onnx")
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "onnx")], check=True)
    load_model(tmp_path / "onnx").save(tmp_path / "copy")
    assert_same(ridge, tmp_path / "copy")


def test_the_encoder_alone_is_exported(data: Dataset, tiny_encoder: Path, tmp_path: Path) -> None:
    model = fitted("kernel-ridge-encoder", data, tiny_encoder)
    model.save(tmp_path / "model")
    checks = export_model(tmp_path / "model", tmp_path / "onnx", data)
    assert "notes" not in checks
    assert_same(tmp_path / "model", tmp_path / "onnx")


def test_a_calibration_goes_into_both_views(ridge: Path, data: Dataset, tmp_path: Path) -> None:
    load_model(ridge).save(tmp_path / "model")
    fitted_to = {"temperature": 2.5, "bias": (0.5, -0.25, 0.0)}
    calibration = no_calibration(read_config(ridge)).model_copy(update=fitted_to)
    write_calibration(calibration, tmp_path / "model")
    export_model(tmp_path / "model", tmp_path / "onnx", data)
    assert_same(tmp_path / "model", tmp_path / "onnx", windows=False)
    assert not (tmp_path / "onnx" / "calibration.json").exists()


def test_n_grams_alone_need_no_export(data: Dataset, tiny_encoder: Path, tmp_path: Path) -> None:
    fitted("kernel-ridge-text", data, tiny_encoder).save(tmp_path / "model")
    with pytest.raises(ModelError, match="already runs without PyTorch"):
        export_model(tmp_path / "model", tmp_path / "onnx", data)
    assert not (tmp_path / "onnx").exists()


def test_every_member_of_a_mean_is_exported(auto: Path, data: Dataset, tmp_path: Path) -> None:
    count = len(load_model(auto).averaged())
    assert count >= 2
    checks = export_model(auto, tmp_path / "onnx", data)
    assert checks["largest_difference"] < 1e-4
    assert len(load_model(tmp_path / "onnx").averaged()) == count
    assert_same(auto, tmp_path / "onnx")
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "onnx")], check=True)
    export_model(auto, tmp_path / "onnx", data)


@pytest.mark.slow
def test_the_calibration_of_a_mean_stays_with_it(auto: Path, data: Dataset, tmp_path: Path) -> None:
    load_model(auto).save(tmp_path / "model")
    calibration = no_calibration(read_config(auto)).model_copy(update={"temperature": 2.5})
    write_calibration(calibration, tmp_path / "model")
    export_model(tmp_path / "model", tmp_path / "onnx", data)
    own = read_calibration(tmp_path / "onnx", read_config(tmp_path / "onnx"))
    assert own.temperature == 2.5
    assert_same(tmp_path / "model", tmp_path / "onnx")


@pytest.mark.parametrize("name", ["ridge", "auto"])
@pytest.mark.parametrize("form", ["transformers", "sentence-transformers"])
def test_what_other_tools_cannot_hold_is_refused(
    name: str, form: str, data: Dataset, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = request.getfixturevalue(name)
    with pytest.raises(ModelError) as refused:
        export_model(source, tmp_path / "out", data, options=ExportOptions(format=form))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_an_export_without_its_terms_is_one_clear_error(
    ridge: Path, data: Dataset, tmp_path: Path
) -> None:
    export_model(ridge, tmp_path / "onnx", data)
    (tmp_path / "onnx" / "terms.json").unlink()
    with pytest.raises(ModelError, match=r"terms\.json is missing"):
        load_model(tmp_path / "onnx")
