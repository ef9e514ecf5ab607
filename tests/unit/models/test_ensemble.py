"""Several models as one: means of calibrated probabilities, saved and loaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from valence.data.examples import Examples
from valence.errors import ModelError
from valence.evaluation.task import Classification, softmax
from valence.models.baselines import MajorityModel
from valence.models.config_file import seal_again
from valence.models.ensemble import MEMBERS_FILE, EnsembleModel
from valence.models.loader import load_model

CLASSES = ("bad", "good", "meh")
TEXTS = ["one", "two"]


def majority(*counts: int) -> MajorityModel:
    return MajorityModel(Classification(CLASSES, counts, (2,)), {"method": "majority"})


@pytest.fixture
def ensemble() -> EnsembleModel:
    task = Classification(CLASSES, (5, 3, 2), (2,))
    members = [majority(8, 1, 1), majority(1, 8, 1)]
    return EnsembleModel(task, {"method": "auto"}, members, [1.0, 0.5])


def test_probabilities_are_the_geometric_mean_of_those_of_the_members(
    ensemble: EnsembleModel,
) -> None:
    outputs = ensemble.predict(Examples(TEXTS))
    first, second = (softmax(m.predict(Examples(TEXTS)).logits) for m in ensemble.members)
    product = first ** ensemble.weights[0] * second ** ensemble.weights[1]
    expected = product / product.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(outputs.probs, expected, atol=1e-6)


def test_saved_ensemble_gives_the_same(ensemble: EnsembleModel, tmp_path: Path) -> None:
    shifted = ensemble.shifted([0.5, 0.0, -0.5], ensemble.provenance)
    shifted.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    before, after = (model.predict(Examples(TEXTS)).probs for model in (shifted, loaded))
    np.testing.assert_allclose(before, after, atol=1e-7)
    assert not np.allclose(before, ensemble.predict(Examples(TEXTS)).probs)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([], "at least one"),
        ([{"folder": "../elsewhere", "weight": 1}], "beside it"),
        ([{"folder": "member-1", "weight": -1}], "negative"),
        ([{"folder": "member-1", "weight": float("nan")}], "broken"),
        ([{"folder": "member-1"}], "broken"),
        ("nothing", "broken"),
        ([{"folder": "member-9", "weight": 1}], "No model folder"),
    ],
)
def test_broken_list_of_members_is_one_clear_error(
    ensemble: EnsembleModel, tmp_path: Path, entries: object, reason: str
) -> None:
    ensemble.save(tmp_path)
    (tmp_path / MEMBERS_FILE).write_text(json.dumps(entries))
    seal_again(tmp_path)
    with pytest.raises(ModelError, match=reason):
        load_model(tmp_path)


def test_members_of_other_classes_are_refused(ensemble: EnsembleModel, tmp_path: Path) -> None:
    ensemble.save(tmp_path)
    other = MajorityModel(Classification(("a", "b"), (1, 1), ()), {})
    other.save(tmp_path / "member-2")
    seal_again(tmp_path)
    with pytest.raises(ModelError, match="other classes"):
        load_model(tmp_path)
