"""Folders that released versions wrote still load, and say what they said then.

``tests/fixtures/<version>`` holds small model and run folders, and ``expected.json`` what that
version made of them; ``tests/fixtures/make_folders.py`` makes such a set for a new release.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from valence.inference.predictor import Predictor
from valence.runs.store import RunStore

FIXTURES = Path(__file__).parents[1] / "fixtures"
RELEASES = sorted(path.name for path in FIXTURES.iterdir() if (path / "expected.json").exists())
EXTRAS = {"onnx": "onnxruntime", "openvino": "openvino"}


def expected(release: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / release / "expected.json").read_text())
    return found


def test_there_is_a_release() -> None:
    assert "v0.1.0" in RELEASES


@pytest.mark.parametrize(
    ("release", "name"), [(r, name) for r in RELEASES for name in expected(r)["models"]]
)
def test_model_folder_predicts_as_it_did(
    release: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name], reason=f"{EXTRAS[name]} is not installed")
    monkeypatch.chdir(FIXTURES / release)  # the models name their encoder by a relative path
    told = expected(release)
    columns = Predictor(Path("models") / name).columns(told["texts"])
    assert columns.keys() == told["models"][name].keys()
    for column, values in told["models"][name].items():
        for value, before in zip(columns[column], values, strict=True):
            if isinstance(before, float):
                assert math.isclose(value, before, abs_tol=2e-6), (column, value, before)
            else:
                assert value == before


@pytest.mark.parametrize("release", RELEASES)
def test_run_folders_are_read_as_they_were(release: str) -> None:
    store = RunStore(FIXTURES / release / "runs")
    told = expected(release)["runs"]
    runs = {result.key: result for result in store.all()}
    assert runs.keys() == told.keys()
    for key, result in runs.items():
        assert result.spec.method == told[key]["method"]
        assert result.test == told[key]["test"]
        rows = store.predictions(key)
        assert (rows["split"] == "test").sum() == result.sizes["test"]
