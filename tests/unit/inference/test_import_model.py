"""Classifiers of other tools: the same probabilities here, under every verb."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.architectures import save_classifier
from tests.conftest import make_reviews
from valence.cli import app
from valence.errors import SpecError
from valence.inference.import_model import import_model
from valence.inference.predictor import Predictor

KINDS = ("bert", "distilbert", "modernbert", "xlm-roberta", "qwen3")
LABELS = ("negative", "neutral", "positive")
TEXTS = [*make_reviews(20, seed=4)["text"], "good", "the film was " * 40]


def piped(folder: Path, labels: tuple[str, ...] = LABELS) -> np.ndarray:
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(folder), device="cpu")
    rows = classify(TEXTS, top_k=None, truncation=True)
    return np.array([[{r["label"]: r["score"] for r in row}[n] for n in labels]
                     for row in rows])  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def folders(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A foreign folder and the model made of it."""
    base = tmp_path_factory.mktemp(request.param)
    theirs = save_classifier(request.param, base / "theirs")
    import_model(theirs, base / "ours")
    return theirs, base / "ours"


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labeled") / "rows.csv"
    rows = make_reviews(140, seed=8)
    names = {"bad": "negative", "meh": "neutral", "good": "positive"}
    rows.assign(label=rows["label"].map(names)).to_csv(path, index=False)
    return path


def valence(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_probabilities_are_those_of_the_pipeline(folders: tuple[Path, Path]) -> None:
    theirs, ours = folders
    expected = piped(theirs)
    predictor = Predictor(ours)
    np.testing.assert_allclose(predictor.predict_proba(TEXTS), expected, atol=1e-5)
    assert predictor.classes == LABELS
    assert predictor.truncated == 1
    np.testing.assert_allclose(piped(ours), expected, atol=1e-5, err_msg="still theirs to load")


def test_every_verb_serves_it(folders: tuple[Path, Path], labeled: Path, tmp_path: Path) -> None:
    from tests.serving import serving

    ours = shutil.copytree(folders[1], tmp_path / "model")
    valence("predict", str(ours), str(labeled), "--out", str(tmp_path / "scored.csv"), "--quiet")
    with (tmp_path / "scored.csv").open() as stream:
        assert set(next(csv.DictReader(stream))) >= {"label", "prob_negative", "prob_positive"}
    scores = json.loads(valence("evaluate", str(ours), str(labeled), "--json", "--quiet"))
    assert scores["macro_f1"] is not None
    assert scores["head_f1"] is None, "how large its classes were is not known"
    told = valence("explain", str(ours), "the film was good", "--json", "--quiet")
    assert "integrated gradients" in told
    valence("audit", str(labeled), "--fast", "--quiet")
    plain = Predictor(ours).predict_proba(TEXTS)
    valence("export", str(ours), "--data", str(labeled), "--out", str(tmp_path / "onnx"), "--quiet")
    np.testing.assert_allclose(Predictor(tmp_path / "onnx").predict_proba(TEXTS), plain, atol=1e-4)
    with serving(ours) as running:
        answer = running.ask("/predict", {"inputs": TEXTS[0]}).json
    scores = {one["label"]: one["score"] for one in answer[0]}
    assert scores == pytest.approx(dict(zip(LABELS, plain[0], strict=True)), abs=1e-5)
    with pytest.raises(SpecError, match="trained elsewhere; run valence calibrate"):
        Predictor(ours).calibration.with_target_prior(dict.fromkeys(LABELS, 1 / 3))
    valence("calibrate", str(ours), "--data", str(labeled), "--quiet")
    assert not np.allclose(Predictor(ours).predict_proba(TEXTS), plain, atol=1e-3)
