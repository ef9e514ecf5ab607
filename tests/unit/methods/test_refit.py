"""Refitting on training and validation rows: when, and whose scores are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import make_reviews
from valence.config.data import DataSpec
from valence.config.sections import RefitSpec
from valence.data.examples import Examples
from valence.data.sources import load_dataset
from valence.errors import ModelError
from valence.evaluation.task import Classification
from valence.methods.base import FitResult
from valence.methods.fit import fit_spec
from valence.methods.refit import choose_refit
from valence.methods.registry import make_spec
from valence.models.baselines import MajorityModel
from valence.models.held_out import HELD_OUT_FILE, read_held_out, write_held_out
from valence.runs.runner import run
from valence.runs.store import RunStore

LABELS = np.array([0, 1] * 50)
SHARES = np.array([0.5, 0.5])


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "reviews.csv"
    make_reviews(200, seed=4).to_csv(path, index=False)
    return path


def right(count: int) -> np.ndarray:
    """Logits that are right for the first rows alone."""
    truth = np.where(np.arange(100) < count, LABELS, 1 - LABELS)
    return np.eye(2)[truth]


@pytest.mark.parametrize(
    ("before", "after", "is_taken"), [(60, 70, True), (60, 59, True), (80, 50, False)]
)
def test_it_is_taken_unless_it_is_clearly_worse(before: int, after: int, is_taken: bool) -> None:
    choice = choose_refit(RefitSpec(when="auto"), right(before), right(after), LABELS, SHARES)
    assert choice.is_taken is is_taken
    assert f"0.{before}" in choice.note
    assert choose_refit(
        RefitSpec(when="always"), right(before), right(after), LABELS, SHARES
    ).is_taken


def fitted(method: str, path: Path, encoder: Path, when: str) -> FitResult:
    settings = {"encoder.name": str(encoder), "refit.when": when}
    spec = make_spec(method, DataSpec(name=str(path)), settings=settings)
    return fit_spec(spec, load_dataset(spec.data, seed=45).without_test())


@pytest.mark.parametrize("method", ["kernel-ridge", "linear-probe"])
def test_refit_weights_have_seen_validation_rows_and_their_scores_have_not(
    method: str, reviews: Path, tiny_encoder: Path
) -> None:
    data = load_dataset(DataSpec(name=str(reviews)), seed=45)
    plain, again = (fitted(method, reviews, tiny_encoder, when) for when in ("never", "always"))
    assert plain.held_out is None
    assert again.held_out is not None
    assert again.out_of_fold is not None
    assert again.held_out.shape == (len(data.validation), len(data.classes))
    assert again.out_of_fold.shape == (len(data.train), len(data.classes))
    seen = again.model.predict(Examples(data.validation.texts)).logits
    assert np.abs(seen - again.held_out).max() > 1e-3
    other = plain.model.predict(Examples(data.validation.texts)).logits
    assert np.abs(seen - other).max() > 1e-3
    assert any(note.startswith("refit on training and validation rows") for note in again.notes)


def test_a_refit_member_of_many_rows_comes_from_the_same_recipe(
    reviews: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from valence.training import ridge_members

    monkeypatch.setattr(ridge_members, "DUAL_ROWS", 130)  # below the rows of both splits together
    spec = make_spec(
        "kernel-ridge", DataSpec(name=str(reviews)),
        settings={"encoder.name": str(tiny_encoder), "refit.when": "always"},
    )  # fmt: skip
    result = fit_spec(spec, load_dataset(spec.data, seed=45).without_test())
    assert result.held_out is not None
    assert np.isfinite(result.held_out).all()


def test_a_run_scores_validation_by_models_without_it_and_calibration_reads_these(
    reviews: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    store = RunStore(tmp_path / "runs")
    spec = make_spec(
        "linear-probe", DataSpec(name=str(reviews)),
        settings={"encoder.name": str(tiny_encoder), "refit.when": "always"},
    )  # fmt: skip
    result = run(spec, store=store, keep_model=True)
    table: pd.DataFrame = store.predictions(result.key)
    rows = table[table["split"] == "validation"]
    folder = store.path(result.key) / "model"
    kept = read_held_out(folder, rows["id"].to_numpy(), len(result.classes))
    assert kept is not None
    np.testing.assert_allclose(kept, rows.filter(like="logit_").to_numpy(), atol=1e-6)


def test_rows_that_are_not_in_the_file_are_an_error(tmp_path: Path) -> None:
    task = Classification(("a", "b"), (1, 1), ())
    MajorityModel(task, {}).save(tmp_path)
    assert read_held_out(tmp_path, np.array(["a"]), 2) is None
    write_held_out(tmp_path, np.array(["a", "b"]), np.eye(2))
    np.testing.assert_array_equal(read_held_out(tmp_path, np.array(["b", "a"]), 2), np.eye(2)[::-1])
    with pytest.raises(ModelError, match="no out-of-fold scores of row 'c'"):
        read_held_out(tmp_path, np.array(["a", "c"]), 2)
    with pytest.raises(ModelError, match="3 finite numbers"):
        read_held_out(tmp_path, np.array(["a"]), 3)
    (tmp_path / HELD_OUT_FILE).write_bytes(b"PK\x03\x04 half")
    with pytest.raises(ModelError, match=HELD_OUT_FILE):
        read_held_out(tmp_path, np.array(["a"]), 2)
