"""``encoder.name=auto``: the run holds the encoder that was chosen, and says why."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from valence.comparison import grid
from valence.config.data import DataSpec
from valence.config.sections import BUILT_IN_ENCODER, MULTILINGUAL_ENCODER
from valence.methods.registry import make_spec
from valence.models import encoder_choice
from valence.models.encoder_choice import EncoderChoice
from valence.runs.runner import run
from valence.runs.store import RunStore

AUTO = {"encoder.name": "auto"}


def test_key_and_notes_hold_the_chosen_encoder(reviews: Path, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    rows = DataSpec(name=str(reviews))
    chosen = run(make_spec("linear-probe", rows, settings=AUTO), store=store)
    assert chosen.encoder == BUILT_IN_ENCODER
    assert any("it can read 100% of the texts" in note for note in chosen.notes)
    named = run(
        make_spec("linear-probe", rows, settings={"encoder.name": BUILT_IN_ENCODER}), store=store
    )
    assert named.key == chosen.key


def test_groups_that_are_only_tested_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_encoder: Path
) -> None:
    seen: list[list[str]] = []

    def choose(texts: list[str]) -> EncoderChoice:
        seen.append(list(texts))
        return EncoderChoice(str(tiny_encoder), "as the test says")

    monkeypatch.setattr(encoder_choice, "choose_encoder", choose)
    frame = pd.DataFrame({
        "text": [f"{word} {i}" for i in range(60) for word in ("good", "gut")],
        "label": [("yes", "no")[i % 2] for i in range(60) for _ in range(2)],
        "language": ["en", "de"] * 60,
    })  # fmt: skip
    frame.to_csv(tmp_path / "rows.csv", index=False)
    for groups in (None, ("en",)):
        spec = make_spec(
            "linear-probe", DataSpec(name=str(tmp_path / "rows.csv"), train_groups=groups),
            settings=AUTO,
        )  # fmt: skip
        run(spec, store=RunStore(tmp_path / "runs"))
    assert any(text.startswith("gut") for text in seen[-1])


def test_own_data_is_compared_with_the_encoder_that_reads_it() -> None:
    comparison = grid.Comparison(methods=("linear-probe",), settings=AUTO, seeds=(1,))
    (spec,) = grid.plan(comparison)
    assert spec.get("encoder.name") == "auto"
    (named,) = grid.plan(comparison, {"encoder.name": MULTILINGUAL_ENCODER})
    assert named.get("encoder.name") == MULTILINGUAL_ENCODER
