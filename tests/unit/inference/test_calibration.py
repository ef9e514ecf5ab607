"""Fitted numbers are those of the model that made the rows; guarantees hold on new rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_reviews
from tests.models import fitted
from valence.config.data import DataSpec
from valence.data.dataset import Split, TrainingData
from valence.data.examples import Examples
from valence.errors import DataError, ModelError, SpecError, UnknownNameError
from valence.evaluation.calibration import (
    CALIBRATION_METRICS,
    calibration_curve,
    calibration_scores,
    fit_scale,
)
from valence.inference.calibrate import conformal_limit, fit
from valence.inference.calibration import (
    no_calibration,
    parse_prior,
    probabilities,
    write_calibration,
)
from valence.inference.predictor import Predictor
from valence.methods.registry import make_spec
from valence.models.config_file import ModelConfig

NAMES = ("bad", "good", "meh")
PRIOR = np.array([0.3, 0.6, 0.1])


def config(counts: tuple[int, ...] = (300, 600, 100)) -> ModelConfig:
    names = NAMES[: len(counts)]
    return ModelConfig(
        loader="majority", id2label=dict(enumerate(names)),
        label2id={n: i for i, n in enumerate(names)}, train_counts=counts,
        tail=(len(counts) - 1,), spec={},
    )  # fmt: skip


def world(rows: int, seed: int, prior: np.ndarray = PRIOR) -> tuple[np.ndarray, np.ndarray]:
    """Rows of three Gaussian classes, and the logits of their true posterior under PRIOR."""
    draw = np.random.default_rng(seed)
    labels = draw.choice(3, size=rows, p=prior)
    centres = np.array([[1.2, 0, 0], [0, 1.2, 0], [0, 0, 1.2]])
    points = centres[labels] + draw.normal(size=(rows, 3))
    return points @ centres.T + np.log(PRIOR), labels


def test_temperature_and_biases_are_found_again() -> None:
    true, labels = world(6000, 0)
    bias = np.array([0.5, -1.0, 0.5])
    temperature, found = fit_scale(true * 2.5 - bias * 2.5, labels, with_bias=True)
    assert temperature == pytest.approx(2.5, rel=0.08)
    np.testing.assert_allclose(found, bias, atol=0.12)
    assert fit_scale(true / 3, labels, with_bias=False)[0] == pytest.approx(1 / 3, rel=0.08)


def test_calibration_lowers_the_errors_on_other_rows() -> None:
    true, labels = world(2000, 1)
    found = fit(true * 3, labels, config())
    for name in CALIBRATION_METRICS:
        assert found.after[name] < found.before[name]
    assert found.after["ece"] < 0.04
    assert found.after["accuracy"] == pytest.approx(found.before["accuracy"], abs=0.02)
    fresh, truth = world(2000, 2)
    assert calibration_scores(truth, probabilities(found.calibration, fresh * 3))["ece"] < 0.04


def test_scores_of_calibration() -> None:
    labels = np.array([0, 0, 1, 1])
    perfect = calibration_scores(labels, np.eye(2)[labels])
    assert perfect == pytest.approx({"ece": 0, "classwise_ece": 0, "log_loss": 0, "brier": 0})
    sure_and_wrong = calibration_scores(labels, np.eye(2)[1 - labels])
    assert sure_and_wrong["ece"] == sure_and_wrong["classwise_ece"] == 1
    assert sure_and_wrong["brier"] == 2
    half = calibration_curve(np.array([0.5, 0.5]), np.array([True, False]))
    assert (half.gap, half.rows.tolist()) == (0, [2])


def test_a_score_that_is_not_defined_stays_so() -> None:
    """No row of the tail class, which is never predicted either: its F1 is not 0."""
    true, labels = world(600, 5)
    there = labels != 2
    logits = np.where(np.arange(3) == 2, -50.0, true)[there]
    found = fit(logits, labels[there], config())
    assert found.before["tail_f1"] is found.after["tail_f1"] is None
    assert (found.before["macro_f1"] or 0) > 0.5


@pytest.mark.parametrize("adjust", ["prior", "classes"])
def test_adjusting_lifts_macro_f1(adjust: str) -> None:
    true, labels = world(3000, 3)
    found = fit(true, labels, config(), adjust=adjust)  # type: ignore[arg-type]
    assert any(found.calibration.shift)
    assert found.after["macro_f1"] > found.before["macro_f1"] + 0.01
    plain = fit(true, labels, config())
    assert not any(plain.calibration.shift)


def test_few_rows_switch_it_off() -> None:
    true, labels = world(400, 4)
    labels[labels == 2] = 0
    labels[:5] = 2
    found = fit(true * 2, labels, config(), adjust="classes").calibration
    assert not any(found.bias)
    assert not any(found.shift)
    assert found.temperature > 1
    assert "'meh' have fewer than 20 rows" in found.notes[0]


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_too_few_rows_are_refused(rows: int) -> None:
    true, labels = world(400, 4)
    with pytest.raises(DataError, match=rf"{rows} rows are too few.*--min-rows"):
        fit(true[:rows], labels[:rows], config())


def test_rows_that_give_no_text_a_label_are_refused() -> None:
    true, labels = world(400, 4)
    with pytest.raises(DataError, match=r"All 50 rows .* have the class 'meh'"):
        fit(true[:50], np.full(50, 2), config())
    with pytest.raises(DataError, match="would leave every text without a label"):
        fit(true[:30], labels[:30], config(), abstain=0.01)
    few = labels.copy()
    few[:] = 0
    few[:12] = 1
    with pytest.raises(DataError, match="would leave every text without a label"):
        fit(true, few, config(), abstain=0.1)


def test_every_class_keeps_its_coverage() -> None:
    wrong, kept, answered = np.zeros(3), [], []
    for seed in range(20):
        true, labels = world(800, 100 + seed)
        fitted = fit(true * 2, labels, config(), abstain=0.1)
        found = fitted.calibration
        fresh, truth = world(3000, 500 + seed)
        shares = probabilities(found, fresh * 2)
        left = found.prediction_sets(shares)[np.arange(len(truth)), truth]
        kept.append([left[truth == c].mean() for c in range(3)])
        given = np.array(found.labels(shares))
        answered.append((given != "").mean())
        named = np.array(NAMES)[truth]
        wrong += [((given != named) & (given != ""))[truth == c].mean() / 20 for c in range(3)]
        assert fitted.answered == pytest.approx(answered[-1], abs=0.15)
    assert (np.mean(kept, axis=0) > 0.885).all()
    assert (wrong < 0.115).all()
    assert 0.1 < np.mean(answered) < 1


def test_limits_are_order_statistics() -> None:
    scores = np.arange(1, 20) / 20
    assert conformal_limit(scores, 0.1) == 18 / 20
    assert conformal_limit(scores[:9], 0.1) == 9 / 20
    assert conformal_limit(scores[:8], 0.1) is None
    assert conformal_limit(scores[:0], 0.5) is None


def test_target_prior_is_bayes_rule() -> None:
    target = np.array([0.1, 0.2, 0.7])
    true, labels = world(4000, 5)
    found = fit(true, labels, config(), abstain=0.1).calibration
    moved = found.with_target_prior(dict(zip(NAMES, target, strict=True)))
    fresh, truth = world(4000, 6, target)
    before = calibration_scores(truth, probabilities(found, fresh))
    after = calibration_scores(truth, probabilities(moved, fresh))
    assert after["ece"] < before["ece"] - 0.05
    assert after["log_loss"] < before["log_loss"]
    same = found.prediction_sets(probabilities(found, fresh))
    np.testing.assert_array_equal(moved.prediction_sets(probabilities(moved, fresh)), same)


def test_target_prior_as_it_is_written() -> None:
    plain = no_calibration(config())
    assert parse_prior("bad=0.2, very good=.8") == {"bad": 0.2, "very good": 0.8}
    for text in ("bad", "bad=x", ""):
        with pytest.raises(SpecError, match=r"good=0\.7"):
            parse_prior(text)
    with pytest.raises(UnknownNameError, match="did you mean 'good'"):
        plain.with_target_prior({"goood": 1})
    with pytest.raises(SpecError, match="'meh' has none"):
        plain.with_target_prior({"bad": 0.5, "good": 0.5})
    with pytest.raises(SpecError, match=r"sum to 1\.5"):
        plain.with_target_prior({"bad": 0.5, "good": 0.5, "meh": 0.5})


def test_what_cannot_be_is_refused() -> None:
    true, labels = world(50, 7)
    with pytest.raises(SpecError, match=r"write 0\.1"):
        fit(true, labels, config(), abstain=10)
    with pytest.raises(SpecError, match="none, prior, classes"):
        fit(true, labels, config(), adjust="both")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="--data"):
        fit(true[:0], labels[:0], config())


def test_predictor_applies_what_stands_in_the_folder(tmp_path: Path) -> None:
    table = make_reviews(140)
    ids = table["label"].map({n: i for i, n in enumerate(NAMES)}).to_numpy(np.int64)
    rows = Split(table["text"].tolist(), ids, np.arange(140).astype(str))
    data = TrainingData(NAMES, (2,), rows, rows)
    fitted(make_spec("tfidf-lr", DataSpec()), data).save(tmp_path)
    plain = Predictor(tmp_path)
    raw = plain.model.predict(Examples(rows.texts)).logits
    np.testing.assert_array_equal(
        plain.predict_proba(rows.texts), plain.model.predict(Examples(rows.texts)).probs
    )
    found = fit(raw, ids, plain.config, abstain=0.3).calibration
    write_calibration(found, tmp_path)
    done = Predictor(tmp_path)
    assert done.calibration == found
    np.testing.assert_allclose(done.predict_proba(rows.texts), probabilities(found, raw), atol=1e-6)
    assert done.predict(rows.texts) == found.labels(done.predict_proba(rows.texts))
    assert list(done.table(rows.texts)["label"]) == done.predict(rows.texts)
    assert set(done.predict(rows.texts)) <= {*NAMES, ""}
    for broken in ("{", found.model_copy(update={"classes": ("a", "b")}).model_dump_json()):
        (tmp_path / "calibration.json").write_text(broken)
        with pytest.raises(ModelError, match="calibrate"):
            Predictor(tmp_path)


def test_identity_changes_no_bit() -> None:
    true = world(20, 8)[0].astype(np.float32)
    np.testing.assert_array_equal(no_calibration(config()).logits(true), true)
