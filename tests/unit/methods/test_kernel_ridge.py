"""``kernel-ridge`` from rows to a saved model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_reviews
from valence.config.data import DataSpec
from valence.data.examples import Examples
from valence.data.sources import load_dataset
from valence.errors import ModelError, SpecError
from valence.methods import kernel_ridge
from valence.methods.fit import fit_spec
from valence.methods.registry import make_spec
from valence.models.linear_views import LinearViewsModel
from valence.models.loader import load_model


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "reviews.csv"
    make_reviews(240, seed=1).to_csv(path, index=False)
    return path


def fitted(path: Path, encoder: Path, **settings: object) -> tuple[LinearViewsModel, list[str]]:
    named = {"encoder.name": str(encoder), **{f"ridge.{k}": v for k, v in settings.items()}}
    spec = make_spec("kernel-ridge", DataSpec(name=str(path)), settings=named)
    data = load_dataset(spec.data, seed=45).without_test()
    result = fit_spec(spec, data)
    assert isinstance(result.model, LinearViewsModel)
    return result.model, list(result.notes)


@pytest.mark.parametrize("reads", ["both", "text", "encoder"])
def test_saved_model_gives_the_same_probabilities(
    reviews: Path, tiny_encoder: Path, tmp_path: Path, reads: str
) -> None:
    model, notes = fitted(reviews, tiny_encoder, views=reads)
    texts = ["the food was not good", "really very good staff", ""]
    before = model.predict(Examples(texts))
    model.save(tmp_path / "model")
    after = load_model(tmp_path / "model").predict(Examples(texts))
    np.testing.assert_allclose(before.probs, after.probs, atol=1e-5)
    assert (after.features.shape[1] > 0) == (reads != "text")
    assert any(note.startswith("members: ") for note in notes)


def test_probabilities_are_calibrated(reviews: Path, tiny_encoder: Path) -> None:
    model, _ = fitted(reviews, tiny_encoder)
    data = load_dataset(DataSpec(name=str(reviews)), seed=45)
    probs = model.predict(Examples(data.test.texts)).probs
    accuracy = (probs.argmax(axis=1) == data.test.labels).mean()
    assert abs(probs.max(axis=1).mean() - accuracy) < 0.2


def test_n_grams_alone_need_no_torch(reviews: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    model, _ = fitted(reviews, tiny_encoder, views="text")
    model.save(tmp_path / "model")
    code = (
        "import sys\n"
        "from valence.models.loader import load_model\n"
        "from valence.data.examples import Examples\n"
        f"model = load_model({str(tmp_path / 'model')!r})\n"
        "assert model.predict(Examples(['the food was good'])).probs.shape == (1, 3)\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules), 'imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_target_prior_must_name_every_class(reviews: Path, tiny_encoder: Path) -> None:
    with pytest.raises(SpecError, match="must have a fraction for every class"):
        fitted(reviews, tiny_encoder, views="text", target_prior={"good": 1.0 - 1e-9})


def test_broken_folder_is_one_clear_error(
    reviews: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    model, _ = fitted(reviews, tiny_encoder)
    model.save(tmp_path)
    weights = tmp_path / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="broken"):
        load_model(tmp_path)
    weights.write_bytes(whole)
    (tmp_path / "terms.json").unlink()
    with pytest.raises(ModelError, match=r"terms\.json is missing"):
        load_model(tmp_path)


def test_upper_layers_leave_the_lower_ones_unread(reviews: Path, tiny_encoder: Path) -> None:
    model, _ = fitted(reviews, tiny_encoder, views="encoder", layers="upper")
    assert model.layers is not None
    assert model.encoder is not None
    start = model.layers.start_of("upper")
    assert 0 < start < model.layers.size
    assert not model.encoder[:start].any()
    assert model.encoder[start:].all()
    whole, _ = fitted(reviews, tiny_encoder, views="encoder")
    assert whole.encoder is not None
    assert whole.encoder[:start].any()


def test_deviations_are_those_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_ridge, "CHUNK_ROWS", 7)
    rows = np.random.default_rng(3).normal(5, 2, (50, 4)).astype(np.float32)
    deviations = kernel_ridge._deviation(rows, rows.mean(axis=0))
    np.testing.assert_allclose(deviations, rows.std(axis=0), rtol=1e-5)
