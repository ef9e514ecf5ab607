"""Linear models on the same frozen encoder are added up into one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from valence.config.data import DataSpec
from valence.data.examples import Examples
from valence.data.sources import load_dataset
from valence.methods.fit import fit_spec
from valence.methods.registry import make_spec
from valence.models.base import Model
from valence.models.ensemble import EnsembleModel, average
from valence.models.linear_views import LinearViewsModel
from valence.models.loader import load_model

ROWS = Examples(["the food was not good", "really very good staff", "", "terrible"])


def fitted(name: str, reviews: Path, encoder: Path | None, **settings: str) -> Model:
    own = {} if encoder is None else {"encoder.name": str(encoder)}
    named = {path.replace("__", "."): value for path, value in settings.items()}
    spec = make_spec(name, DataSpec(name=str(reviews)), settings={**own, **named})
    return fit_spec(spec, load_dataset(spec.data, seed=45).without_test()).model


@pytest.fixture
def ridge(reviews: Path, tiny_encoder: Path) -> Model:
    return fitted("kernel-ridge", reviews, tiny_encoder)


@pytest.fixture
def probe(reviews: Path, tiny_encoder: Path) -> Model:
    return fitted("linear-probe", reviews, tiny_encoder)


def test_linear_models_on_the_same_encoder_become_one(
    ridge: Model, probe: Model, tmp_path: Path
) -> None:
    separate = EnsembleModel(ridge.task, {"method": "auto"}, [ridge, probe], [0.7, 1.5])
    model = average(separate.task, separate.provenance, [ridge, probe], separate.weights)
    assert isinstance(model, LinearViewsModel)
    assert model.provenance == separate.provenance
    expected = separate.predict(ROWS).logits
    np.testing.assert_allclose(model.predict(ROWS).logits, expected, atol=1e-4)
    separate.shifted([0.0] * len(separate.classes), separate.provenance).save(tmp_path / "m")
    assert isinstance(load_model(tmp_path / "m"), LinearViewsModel)
    np.testing.assert_allclose(load_model(tmp_path / "m").predict(ROWS).logits, expected, atol=1e-4)


def test_a_shifted_member_keeps_its_shift_in_the_sum(ridge: Model, probe: Model) -> None:
    shifted = probe.shifted([0.5, -0.5, 0.25], probe.provenance)
    sums = [average(ridge.task, {}, [ridge, one], [1.0, 2.0]) for one in (shifted, probe)]
    moved, plain = (model.predict(ROWS).logits for model in sums)
    expected = np.tile([1.0, -1.0, 0.5], (len(ROWS), 1))
    np.testing.assert_allclose(moved - plain, expected, atol=1e-4)


def test_other_prompts_and_other_models_stay_apart(
    reviews: Path, tiny_encoder: Path, probe: Model
) -> None:
    prompted = fitted("linear-probe", reviews, tiny_encoder, encoder__prompt="query: ")
    members = [probe, prompted, fitted("tfidf-lr", reviews, None)]
    model = average(probe.task, {}, members, [1.0, 2.0, 3.0])
    assert isinstance(model, EnsembleModel)
    assert list(model.members) == members
    assert list(model.weights) == [1.0, 2.0, 3.0]


def test_two_that_read_n_grams_stay_apart(
    reviews: Path, tiny_encoder: Path, ridge: Model, probe: Model
) -> None:
    members = [ridge, fitted("kernel-ridge", reviews, tiny_encoder), probe]
    model = average(ridge.task, {}, members, [1.0, 1.0, 1.0])
    assert isinstance(model, EnsembleModel)
    assert len(model.members) == 2
    expected = sum(member.predict(ROWS).logits for member in members)
    np.testing.assert_allclose(model.predict(ROWS).logits, expected, atol=1e-4)
