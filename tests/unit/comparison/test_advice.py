"""What would help most: the learning curve, and the words made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_reviews
from valence.comparison.advice import LearningCurve, advice_of, learning_curve
from valence.config.data import DataSpec
from valence.data.sources import load_dataset
from valence.evaluation.classification import expected_macro_f1
from valence.methods.registry import make_spec
from valence.runs.runner import run
from valence.runs.store import RunResult, RunStore


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "reviews.csv"
    make_reviews(300, seed=7).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return RunStore(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def result(reviews: Path, store: RunStore) -> RunResult:
    spec = make_spec("kernel-ridge-text", DataSpec(name=str(reviews)), seed=45)
    return run(spec, store=store)


def test_the_curve_is_that_of_half_of_every_class(
    result: RunResult, reviews: Path, store: RunStore
) -> None:
    data = load_dataset(DataSpec(name=str(reviews)), seed=45)
    curve = learning_curve(result.key, data, store)
    assert isinstance(curve, LearningCurve)
    assert curve.rows == len(data.train)
    halves = [one for one in store.all() if one.sizes["train"] < len(data.train)]
    assert len(halves) == 1
    assert halves[0].sizes["validation"] == len(data.validation)
    assert all(
        abs(half - whole / 2) <= 0.5
        for half, whole in zip(halves[0].train_counts, result.train_counts, strict=True)
    )
    assert curve.scored == halves[0].sizes["train"] + len(data.validation)
    assert 0 < curve.half <= 1
    assert curve.error > 0
    seen = store.predictions(result.key).query("split != 'test'")
    half = store.predictions(halves[0].key).query("split == 'train'")["id"]
    rows = seen[seen["id"].isin(half) | (seen["split"] == "validation")]
    logits = rows.filter(like="logit_").to_numpy()
    shares = np.bincount(data.validation.labels) / len(data.validation)
    assert curve.full == expected_macro_f1(logits, rows["label"].to_numpy(), shares)


def test_runs_without_rows_in_common_have_no_curve(
    result: RunResult, reviews: Path, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = store.predictions(result.key)
    tables = iter([table[table["split"] == name] for name in ("train", "validation")])
    monkeypatch.setattr(RunStore, "predictions", lambda *_: next(tables))
    data = load_dataset(DataSpec(name=str(reviews)), seed=45)
    assert learning_curve(result.key, data, store) == "its runs have no unseen rows in common"


def test_few_rows_have_no_curve(result: RunResult, reviews: Path, store: RunStore) -> None:
    data = load_dataset(DataSpec(name=str(reviews)), seed=45)
    small = type(data)(**{**vars(data), "train": data.train.take(range(10))})
    assert learning_curve(result.key, small, store) == "it needs 20 to 20,000 training rows"
    assert learning_curve("no-such-run", data, store) == "run no-such-run is missing"


@pytest.mark.parametrize(
    ("curve", "start"),
    [
        ("", "more labels of '"),
        ("it needs 20 rows", "more labels of '"),
        (LearningCurve("linear-probe", 200, 150, 0.5, 0.6, 0.02), "more labels, above all of '"),
        (LearningCurve("linear-probe", 200, 150, 0.6, 0.61, 0.02), "a check of the labels of '"),
    ],
)
def test_words_follow_the_curve(result: RunResult, curve: LearningCurve | str, start: str) -> None:
    words = advice_of(result, curve)
    assert words.startswith(start)
    assert "training rows" in words
    if isinstance(curve, LearningCurve):
        assert f"± {curve.error:.3f}" in words
        assert "macro-F1 of linear-probe on 150 rows it was not fitted on" in words
    else:
        assert words.endswith(f"No learning curve: {curve}" if curve else "reviews.csv")
