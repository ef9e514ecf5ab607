"""The scikit-learn estimator: its own checks that apply to text, cloning, pickling, labels."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.utils import estimator_checks

import valence
from tests.conftest import make_reviews
from valence.errors import DataError, SpecError

TABLE = make_reviews(120)
TEXTS, LABELS = TABLE["text"].tolist(), TABLE["label"].tolist()


@pytest.mark.parametrize(
    "check",
    [
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_get_params_invariance",
        "check_set_params",
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_valid_tag_types",
        "check_estimator_get_tags_default_keys",
        "check_mixin_order",
    ],
)
def test_checks_of_scikit_learn_that_need_no_numbers(check: str) -> None:
    if not hasattr(estimator_checks, check):
        pytest.skip(f"this scikit-learn has no {check}")
    getattr(estimator_checks, check)("SentimentClassifier", valence.SentimentClassifier())


@pytest.mark.parametrize("method", ["tfidf-lr", "hy-mora"])
def test_fit_predict_score_clone_and_pickle(method: str, tiny_settings: dict[str, object]) -> None:
    model = valence.SentimentClassifier(method, settings=tiny_settings)
    assert model.fit(TEXTS, LABELS) is model
    assert model.classes_.tolist() == ["bad", "good", "meh"]
    shares = model.predict_proba(TEXTS[:9])
    assert shares.shape == (9, 3)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    assert model.predict(TEXTS[:9]).tolist() == model.classes_[shares.argmax(1)].tolist()
    right = np.mean(model.predict(TEXTS) == np.array(LABELS))
    assert model.score(TEXTS, LABELS) == pytest.approx(right)
    assert right > 0.7 or method != "tfidf-lr"
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_allclose(copy.predict_proba(TEXTS[:9]), shares, atol=1e-6)
    fresh = clone(model)
    assert fresh.get_params()["method"] == method
    with pytest.raises(Exception, match="not fitted"):
        fresh.predict(TEXTS)


def test_labels_of_any_type_and_cross_validation(tmp_path: Path) -> None:
    numbers = [{"good": 7, "bad": -1, "meh": 0}[label] for label in LABELS]
    model = valence.SentimentClassifier("tfidf-lr").fit(TEXTS, numbers)
    assert set(model.predict(TEXTS)) <= {7, -1, 0}
    assert len(cross_val_score(valence.SentimentClassifier("tfidf-lr"), TEXTS, LABELS, cv=3)) == 3
    model.save(tmp_path / "model")
    assert valence.Predictor(tmp_path / "model").classes == ("-1", "0", "7")


@pytest.mark.parametrize(
    ("texts", "labels", "words"),
    [
        ("one text", ["a"], "a list of texts"),
        (["a", 3], ["x", "y"], "Text 1 is int"),
        (["a", "b"], ["x"], "2 texts and 1 labels"),
        (["a", "b"], ["x", "x"], "at least two classes"),
        (["a", "b"], ["x", None], "missing"),
        ([], [], "no texts"),
    ],
)
def test_bad_input(texts: object, labels: list[object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        valence.SentimentClassifier("tfidf-lr").fit(texts, labels)


def test_a_method_that_rests_on_another_fits_that_one_too(
    tiny_settings: dict[str, object],
) -> None:
    model = valence.SentimentClassifier("lora-posthoc", settings=tiny_settings).fit(TEXTS, LABELS)
    assert model.model_.logit_shift is not None
    assert model.predict_proba(TEXTS[:5]).shape == (5, 3)


def test_a_method_that_reads_more_than_texts_says_so() -> None:
    with pytest.raises(SpecError, match="reads audio and vision beside the text"):
        valence.SentimentClassifier("almt").fit(TEXTS, LABELS)


def test_a_saved_model_names_no_data_it_was_not_trained_on(tmp_path: Path) -> None:
    valence.SentimentClassifier("tfidf-lr").fit(TEXTS, LABELS).save(tmp_path / "model")
    predictor = valence.Predictor(tmp_path / "model")
    assert predictor.config.data is None
    assert predictor.predict(["a good film"]) == ["good"]


def test_public_names_are_sorted_and_there() -> None:
    assert valence.__all__ == sorted(valence.__all__)
    for name in valence.__all__:
        assert getattr(valence, name).__doc__
