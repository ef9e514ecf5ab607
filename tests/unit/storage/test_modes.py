"""Other users can read what is written: a container runs under another name than the training."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.features import mmsa, write_mmsa
from valence.config.spec import DataSpec
from valence.data.features.convert import convert
from valence.data.sources import load_dataset
from valence.estimator import SentimentClassifier
from valence.inference.explain.neighbors import build_index
from valence.inference.predictor import Predictor
from valence.methods.registry import make_spec
from valence.reports.files import write_tables
from valence.reports.records import record_run
from valence.runs.runner import run
from valence.runs.store import RunStore

METHODS = ("majority", "tfidf-lr", "linear-probe", "full", "lora", "lstm-roberta", "lora-posthoc")


@pytest.fixture(autouse=True)
def umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("VALENCE_CACHE", str(tmp_path / "cache"))
    before = os.umask(0o022)
    yield
    os.umask(before)


def check(folder: Path, least: int) -> None:
    """All files below are 0644, and all folders 0755."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= least
    for path in [folder, *folder.rglob("*")]:
        expected = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


@pytest.mark.parametrize("method", METHODS)
def test_a_run_its_model_its_report_and_the_cache(
    method: str, reviews: Path, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    settings = tiny_settings | ({"head.hidden_size": 16} if "lstm" in method else {})
    spec = make_spec(method, DataSpec(name=str(reviews)), settings=settings)
    store = RunStore(tmp_path / "runs")
    result = run(spec, store=store, keep_model=True)
    check(store.path(result.key), least=7)
    record_run(store, result, tmp_path / "report", mode="train")
    write_tables(store, [result], tmp_path / "report")
    check(tmp_path / "report", least=5)
    if method in ("linear-probe", "lstm-roberta"):
        check(tmp_path / "cache", least=3)
    if method == "linear-probe":
        predictor = Predictor(store.path(result.key) / "model")
        build_index(predictor, load_dataset(spec.data, seed=spec.seed).train, keep=True)
        check(store.path(result.key) / "model", least=4)


def test_a_multimodal_run_and_its_archive(tiny_encoder: Path, tmp_path: Path) -> None:
    source = write_mmsa(tmp_path / "talks.pkl", mmsa(24))
    convert(source, tmp_path / "archive")
    check(tmp_path / "archive", least=8)
    settings = {"encoder.name": str(tiny_encoder), "fusion.dim": 16, "train.epochs": 1}
    spec = make_spec("almt", DataSpec(name=str(tmp_path / "archive")), settings=settings)
    store = RunStore(tmp_path / "runs")
    check(store.path(run(spec, store=store, keep_model=True).key), least=8)


def test_a_model_that_is_saved_by_hand(tiny_settings: dict[str, object], tmp_path: Path) -> None:
    texts, labels = ["good film", "bad plot"] * 10, ["up", "down"] * 10
    for method in ("lora", "full"):
        model = SentimentClassifier(method, settings=tiny_settings).fit(texts, labels)
        model.save(tmp_path / method)
        check(tmp_path / method, least=3)
        model.model_.save(tmp_path / f"{method}-directly")
        check(tmp_path / f"{method}-directly", least=3)
