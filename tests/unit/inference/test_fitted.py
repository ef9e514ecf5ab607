"""``valence.fit`` from Python: DataFrames in and out, scores, the report, a saved model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import valence
from tests.conftest import make_reviews
from valence.errors import DataError, RunError, SpecError, ValenceError
from valence.methods.portfolio import Candidate, PortfolioSearch

QUICK = {"portfolio.fine_tuned": ()}
NEW = ["the food was good", "not good at all"]


def frame_of(rows: int, seed: int) -> pd.DataFrame:
    frame = make_reviews(rows, seed=seed)
    return pd.DataFrame({"stars": frame["label"], "review": frame["text"], "id": range(rows)})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fit") / "runs"


@pytest.fixture(scope="module")
def fitted(runs: Path, tiny_encoder: Path) -> valence.Fitted:
    frame = frame_of(240, seed=3)
    return valence.fit(
        frame, text="review", label="stars", encoder=str(tiny_encoder), runs=runs, settings=QUICK
    )


def test_labels_and_probabilities_of_texts(fitted: valence.Fitted) -> None:
    labels = fitted.predict(NEW)
    assert isinstance(labels, list)
    assert set(labels) <= set(fitted.classes) == {"bad", "good", "meh"}
    probs = fitted.predict_proba(NEW)
    assert isinstance(probs, np.ndarray)
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)
    assert labels == [fitted.classes[i] for i in probs.argmax(axis=1)]


def test_a_frame_gives_frames_with_its_index(fitted: valence.Fitted) -> None:
    frame = pd.DataFrame({"review": NEW, "shop": ["a", "b"]}, index=[7, 3])
    labels = fitted.predict(frame)
    assert isinstance(labels, pd.Series)
    assert labels.tolist() == fitted.predict(NEW)
    assert labels.index.tolist() == [7, 3]
    probs = fitted.predict_proba(frame)
    assert isinstance(probs, pd.DataFrame)
    assert probs.columns.tolist() == list(fitted.classes)
    np.testing.assert_allclose(probs.to_numpy(), fitted.predict_proba(NEW), atol=1e-5)
    table = fitted.table(frame)
    assert table.columns[:3].tolist() == ["review", "shop", "label"]
    assert table.index.tolist() == [7, 3]


def test_score_is_macro_f1_of_labeled_rows(fitted: valence.Fitted) -> None:
    from sklearn.metrics import f1_score

    frame = frame_of(60, seed=9)
    expected = f1_score(frame["stars"], fitted.predict(frame), average="macro")
    assert fitted.score(frame) == pytest.approx(expected)
    assert fitted.evaluate(frame)["accuracy"] is not None
    with pytest.raises(DataError, match="excellent"):
        fitted.score(frame.assign(stars="excellent"))


def test_the_report_is_what_the_command_prints(fitted: valence.Fitted) -> None:
    text = fitted.report()
    assert "kernel-ridge" in text
    assert "95% interval" in text
    assert "Compared with always predicting the largest class" in text
    assert "What would help most" in text
    assert "dataframe-" not in text.partition("What would help most")[2]


def test_the_saved_model_gives_the_same(fitted: valence.Fitted, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    loaded = valence.load_model(tmp_path / "model")
    assert isinstance(loaded, valence.Predictor)
    np.testing.assert_allclose(loaded.predict_proba(NEW), fitted.predict_proba(NEW), atol=1e-6)
    fitted.save(tmp_path / "model")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    with pytest.raises(RunError, match="is not empty"):
        fitted.save(tmp_path / "mine")


def test_the_same_call_is_done_once(fitted: valence.Fitted, runs: Path, tiny_encoder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("result.json")}
    again = valence.fit(
        frame_of(240, seed=3), "review", "stars", encoder=str(tiny_encoder), runs=runs,
        settings=QUICK,
    )  # fmt: skip
    assert again.result.key == fitted.result.key
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("result.json")} == before


def test_a_file_without_named_columns(tmp_path: Path, tiny_encoder: Path) -> None:
    frame_of(120, seed=1).to_csv(tmp_path / "shop.csv", index=False)
    seen: list[tuple[float, str]] = []
    fitted = valence.fit(
        tmp_path / "shop.csv", encoder=str(tiny_encoder), runs=tmp_path / "runs", settings=QUICK,
        budget=30, progress=lambda fraction, words: seen.append((fraction, words)),
    )  # fmt: skip
    assert fitted.is_complete
    assert all(0 <= fraction <= 1 for fraction, _ in seen)
    assert any("kernel-ridge" in words for _, words in seen)
    assert fitted.result.spec.get("portfolio.budget_seconds") == 30
    assert len(fitted.predict(NEW)) == 2


@pytest.mark.parametrize("budget", ["0s", "soon", -3, True])
def test_a_budget_that_is_none(budget: Any) -> None:
    with pytest.raises(SpecError, match="not a duration"):
        valence.fit(frame_of(30, seed=1), budget=budget)


def test_a_column_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValenceError, match="nonsense") as refused:
        valence.fit(frame_of(30, seed=1), text="nonsense", runs=tmp_path)
    assert "\n" not in str(refused.value)


def test_an_interrupt_returns_the_best_so_far(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PortfolioSearch.try_method

    def strike(
        self: PortfolioSearch, method: str, encoder: str, settings: dict[str, Any]
    ) -> Candidate:
        if method == "linear-probe":
            raise KeyboardInterrupt
        return original(self, method, encoder, settings)

    monkeypatch.setattr(PortfolioSearch, "try_method", strike)
    fitted = valence.fit(frame_of(90, seed=1), encoder=str(tiny_encoder), runs=tmp_path)
    assert not fitted.is_complete
    assert "stopped: linear-probe" in fitted.report()
    assert len(fitted.predict(NEW)) == 2


def test_the_import_is_light() -> None:
    code = (
        "import sys, valence\n"
        "valence.fit, valence.load_model\n"
        "assert not {'torch', 'pandas', 'numpy', 'pydantic'} & set(sys.modules), 'imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
