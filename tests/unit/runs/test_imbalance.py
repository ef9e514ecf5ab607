"""The workbench around rare classes: extreme ratios, wrong labels, second views, diagnostics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import make_reviews
from valence.config.data import DataSpec
from valence.data.sources import load_dataset
from valence.methods.registry import METHODS, make_spec
from valence.reports.html import write_report
from valence.runs.runner import run
from valence.runs.store import RunStore


@pytest.fixture(scope="module")
def plenty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts with a column of second views, enough for a ratio of 200."""
    frame = make_reviews(700, seed=3)
    frame["aug_text"] = [" ".join(reversed(text.split())) for text in frame["text"]]
    path = tmp_path_factory.mktemp("plenty") / "plenty.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("adaptation", ["full", "lora"])
@pytest.mark.parametrize("method", ["sharprecl", "supcon", "cross-entropy"])
def test_ratio_200_with_a_class_of_one_row(
    method: str, adaptation: str, plenty: Path, tmp_path: Path, tiny_settings: dict[str, object]
) -> None:
    rows = DataSpec(name=str(plenty), imbalance_ratio=200, head_count=200)
    common = {**tiny_settings, "encoder.adaptation": adaptation}
    store = RunStore(tmp_path)
    result = run(make_spec(method, rows, common=common), store=store)
    assert min(result.train_counts) == 1
    assert any("has one training row" in note for note in result.notes)
    assert all(value is None or np.isfinite(value) for value in result.test.values())
    losses = [record["loss"] for record in store.history(result.key) if "loss" in record]
    assert np.isfinite(losses).all()
    page = write_report(store, [result], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "has one training row" in page


NEW = [name for name in METHODS if name.startswith(("sharprecl-", "balanced", "class-"))]


@pytest.mark.parametrize("method", NEW)
def test_methods_work_with_full_fine_tuning_too(
    method: str, reviews: Path, tmp_path: Path, tiny_settings: dict[str, object]
) -> None:
    common = {**tiny_settings, "encoder.adaptation": "full", "train.epochs": 1}
    result = run(make_spec(method, DataSpec(name=str(reviews)), common=common),
                 store=RunStore(tmp_path))  # fmt: skip
    assert result.spec.config.encoder.adaptation == "full"
    assert result.test["macro_f1"] is not None


def test_label_noise_is_exact_seeded_and_leaves_validation_and_test(plenty: Path) -> None:
    clean = load_dataset(DataSpec(name=str(plenty)), seed=45)
    for kind in ("symmetric", "confusable"):
        spec = DataSpec(name=str(plenty), noise_share=0.1, noise=kind)
        noisy = load_dataset(spec, seed=45)
        changed = int((noisy.train.labels != clean.train.labels).sum())
        assert changed == round(0.1 * len(clean.train))
        assert noisy.train.texts == clean.train.texts
        assert np.array_equal(noisy.validation.labels, clean.validation.labels)
        assert np.array_equal(noisy.test.labels, clean.test.labels)
        assert any(f"({kind}) added to {changed} of" in note for note in noisy.notes)
        assert noisy.fingerprint == load_dataset(spec, seed=45).fingerprint != clean.fingerprint


def test_second_views_count_in_what_the_data_is(plenty: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(plenty)
    frame["aug_text"] = "other words"
    other = tmp_path / plenty.name
    frame.to_csv(other, index=False)
    specs = [DataSpec(name=str(path)) for path in (plenty, other)]
    assert len({load_dataset(spec, seed=45).fingerprint for spec in specs}) == 2


def test_diagnostics_are_in_the_history_and_on_the_page(
    plenty: Path, tmp_path: Path, tiny_settings: dict[str, object]
) -> None:
    spec = make_spec("sharprecl", DataSpec(name=str(plenty)), common=tiny_settings)
    store = RunStore(tmp_path)
    result = run(spec, store=store)
    records = [r for r in store.history(result.key) if "diagnostics/prototype_cosine" in r]
    assert len(records) >= 2
    assert len(records[0]["diagnostics/prototype_cosine"]) == 3
    assert 0 <= records[0]["diagnostics/diversity"][0] <= 2
    assert "second views: column" in result.notes
    page = write_report(store, [result], tmp_path / "report.html").read_text(encoding="utf-8")
    for caption in ("Prototypes: ", "F1 by class size", "Accuracy minus macro-F1"):
        assert f"<figcaption>{caption}" in page


def test_a_dropout_view_differs_and_an_edit_is_noted(
    reviews: Path, tmp_path: Path, tiny_settings: dict[str, object]
) -> None:
    store = RunStore(tmp_path)
    for name, note in (("dropout", "second views: dropout"), ("auto", "second views: edits")):
        settings = {**tiny_settings, "view.name": name}
        spec = make_spec("supcon", DataSpec(name=str(reviews)), settings=settings)
        assert note in " ".join(run(spec, store=store).notes)
