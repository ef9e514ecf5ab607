"""The scikit-learn estimator: its own checks that apply to text, cloning, pickling, labels."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils import estimator_checks

import valence
from tests.conftest import make_reviews
from valence.errors import DataError, SpecError
from valence.inference.calibration import no_calibration, write_calibration
from valence.models.config_file import read_config

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
        (["a", "b"], ["x"], "2 texts but 1 labels"),
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
    with pytest.raises(SpecError, match="needs audio and vision besides texts"):
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


def test_a_grid_search_over_settings_and_methods() -> None:
    given = {"loss.class_weights": "none"}
    grid = GridSearchCV(
        valence.SentimentClassifier("tfidf-lr", settings=given),
        {"settings__loss__class_weights": ["none", "balanced"], "validation_share": [0.1, 0.2]},
        cv=2, scoring="f1_macro", error_score="raise",
    ).fit(TEXTS, LABELS)  # fmt: skip
    assert set(grid.best_params_) == {"settings__loss__class_weights", "validation_share"}
    chosen = grid.best_estimator_.settings
    assert chosen == {"loss.class_weights": grid.best_params_["settings__loss__class_weights"]}
    assert given == {"loss.class_weights": "none"}, "what was given is not changed"
    one = valence.SentimentClassifier(settings={"train.epochs": 2})
    assert one.get_params()["settings__train__epochs"] == 2
    assert "settings__train__epochs" not in one.get_params(deep=False)
    assert one.set_params(settings__train__epochs=3, seed=1).settings == {"train.epochs": 3}
    assert clone(one).get_params() == one.get_params()
    wrong = valence.SentimentClassifier("tfidf-lr").set_params(settings__train__epoch=3)
    with pytest.raises(SpecError, match=r"train\.epoch"):
        wrong.fit(TEXTS, LABELS)


def test_auto_is_an_estimator_too(tiny_encoder: Path, tmp_path: Path) -> None:
    settings = {"portfolio.fine_tuned": ("ldam",), "portfolio.epochs": 1}
    model = valence.SentimentClassifier("auto", encoder=str(tiny_encoder), settings=settings)
    shares = model.fit(TEXTS, LABELS).predict_proba(TEXTS[:9])
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    model.save(tmp_path / "model")
    loaded = valence.SentimentClassifier.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.predict_proba(TEXTS[:9]), shares, atol=1e-5)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_allclose(copy.predict_proba(TEXTS[:9]), shares, atol=1e-5)


def test_a_loaded_estimator_has_the_parameters_of_its_training(tmp_path: Path) -> None:
    given = {"loss.class_weights": "none"}
    model = valence.SentimentClassifier("tfidf-lr", settings=given, seed=7).fit(TEXTS, LABELS)
    model.save(tmp_path / "model")
    loaded = valence.SentimentClassifier.load(tmp_path / "model")
    assert loaded.get_params(deep=False) == model.get_params(deep=False)
    assert loaded.predict(TEXTS[:20]).tolist() == model.predict(TEXTS[:20]).tolist()
    assert loaded.score(TEXTS, LABELS) == model.score(TEXTS, LABELS)
    again = clone(loaded).fit(TEXTS, LABELS)
    np.testing.assert_allclose(again.predict_proba(TEXTS), model.predict_proba(TEXTS), atol=1e-6)


def test_a_loaded_estimator_is_calibrated_as_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    valence.SentimentClassifier("tfidf-lr").fit(TEXTS, LABELS).save(folder)
    before = valence.SentimentClassifier.load(folder).predict_proba(TEXTS[:9])
    calibration = no_calibration(read_config(folder)).model_copy(update={"temperature": 0.1})
    write_calibration(calibration, folder)
    loaded = valence.SentimentClassifier.load(folder)
    after = loaded.predict_proba(TEXTS[:9])
    assert np.abs(after - before).max() > 0.05
    np.testing.assert_allclose(after, valence.load_model(folder).predict_proba(TEXTS[:9]))
    loaded.save(tmp_path / "again")
    for copy in (pickle.loads(pickle.dumps(loaded)), valence.load_model(tmp_path / "again")):
        np.testing.assert_allclose(copy.predict_proba(TEXTS[:9]), after, atol=1e-6)


@pytest.mark.parametrize("method", ["tfidf-lr", "linear-probe", "kernel-ridge"])
def test_row_weights_move_the_model(method: str, tiny_encoder: Path) -> None:
    encoder = None if method == "tfidf-lr" else str(tiny_encoder)
    model = valence.SentimentClassifier(method, encoder=encoder, validation_share=0.2)
    texts, labels = ["a good film", "a bad film"] * 30, ["yes", "no", "no", "yes"] * 15
    heavy = np.array([20.0, 20.0, 1.0, 1.0] * 15)
    same = model.fit(texts, labels, np.ones(60)).predict_proba(texts[:2])
    np.testing.assert_allclose(model.fit(texts, labels).predict_proba(texts[:2]), same, atol=1e-6)
    assert model.fit(texts, labels, heavy).predict(texts[:2]).tolist() == ["yes", "no"]
    light = model.fit(texts, labels, 21 - heavy)
    assert light.predict(texts[:2]).tolist() == ["no", "yes"]


def test_rows_of_weight_zero_are_left_out() -> None:
    weights = [1.0] * len(TEXTS) + [0.0] * 3
    texts, labels = [*TEXTS, "other", "rows", "here"], [*LABELS, "new", "new", "new"]
    model = valence.SentimentClassifier("tfidf-lr").fit(texts, labels, sample_weight=weights)
    assert model.classes_.tolist() == ["bad", "good", "meh"]
    plain = valence.SentimentClassifier("tfidf-lr").fit(TEXTS, LABELS)
    np.testing.assert_allclose(model.predict_proba(TEXTS), plain.predict_proba(TEXTS), atol=1e-6)


@pytest.mark.parametrize("method", ["hy-mora", "auto", "majority"])
def test_a_method_that_cannot_weigh_rows_says_so(method: str) -> None:
    with pytest.raises(SpecError, match=r"cannot weight rows.*kernel-ridge"):
        valence.SentimentClassifier(method).fit(TEXTS, LABELS, np.ones(len(TEXTS)))


@pytest.mark.parametrize("weights", [[1.0], "abc", [-1.0] * 120, [np.nan] * 120, [[1.0]] * 120])
def test_weights_that_are_none(weights: object) -> None:
    with pytest.raises(DataError, match="sample_weight"):
        valence.SentimentClassifier("tfidf-lr").fit(TEXTS, LABELS, weights)
