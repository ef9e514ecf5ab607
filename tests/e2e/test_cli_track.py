"""``--track`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("tensorboard", reason="pip install tensorboard")


def test_train_compare_and_tune_log_their_runs(valence, reviews: Path, tmp_path: Path) -> None:
    track = ("--track", "tensorboard", "--json")
    code, out, err = valence("train", reviews, "--method", "tfidf-lr", "--out", "m", *track)
    assert code == 0, err
    assert "macro_f1" in json.loads(out)
    folder = tmp_path / "runs" / "tracking" / "tensorboard"
    assert f"Tracked: {folder}" in err
    assert any(folder.glob("*-tfidf-lr-s45-*/events*"))

    grid = ("--methods", "majority,tfidf-lr", "--seeds", "45,46", "--out", "report")
    code, _, err = valence("compare", reviews, *grid, *track)
    assert code == 0, err
    names = {path.parent.name for path in folder.glob("*/events*")}
    assert sum("-majority-" in name for name in names) == 2
    assert sum(name.startswith("compare-reviews-") for name in names) == 1

    code, _, err = valence("tune", reviews, "--method", "tfidf-lr", "--trials", "2", *track)
    assert code == 0, err
    assert any(path.name.startswith("tune-") for path in folder.iterdir())


def test_a_tool_that_is_not_there_is_named_before_any_work(
    valence, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = valence("compare", reviews, "--track", "tensorbord")
    assert code == 1
    assert "did you mean 'tensorboard'" in err
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    code, _, err = valence("train", reviews, "--out", "m", "--track", "mlflow")
    assert code == 1
    assert err.splitlines()[-1] == "Error: --track mlflow needs mlflow: pip install mlflow-skinny"
    assert not list(tmp_path.iterdir())
