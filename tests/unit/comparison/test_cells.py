"""One cell of a comparison, as every executor runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from valence.comparison.executors.base import RunEvent
from valence.comparison.executors.cells import CellRunner
from valence.config.data import DataSpec
from valence.data import pretrained
from valence.errors import ModelError
from valence.methods.registry import make_spec
from valence.models.built_in import encoder_location
from valence.runs.store import RunStore


def test_an_encoder_is_chosen_before_its_files_are_looked_up(
    reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []
    original = pretrained.read_json

    def read_json(where: str, name: str) -> object:
        looked_up.append(where)
        return original(where, name)

    monkeypatch.setattr(pretrained, "read_json", read_json)
    monkeypatch.setattr("valence.models.encoder_files.read_json", read_json, raising=False)
    settings = {"encoder.name": "auto", "encoder.max_length": 16}
    spec = make_spec("linear-probe", DataSpec(name=str(reviews), sample=60), settings=settings)
    events: list[RunEvent] = []
    cells = CellRunner(tmp_path / "runs", None)
    cells.run(spec, events.append)
    cells.run(spec, events.append)
    assert [event.status for event in (events[-2], events[-1])] == ["done", "cached"]
    assert looked_up
    assert "auto" not in looked_up
    (result,) = RunStore(tmp_path / "runs").all()
    assert result.spec.get("encoder.name") == "all-MiniLM-L6-v2"


def test_auto_is_no_place() -> None:
    with pytest.raises(ModelError, match="No encoder was chosen; instead of auto, name all-MiniLM"):
        encoder_location("auto")
