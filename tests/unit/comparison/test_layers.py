"""A comparison that extends another: merged setting by setting, its differences told."""

from __future__ import annotations

from pathlib import Path

import pytest

from valence.comparison.grid import read_comparison
from valence.comparison.layers import SetupDifference, change_text, differences
from valence.config.data import DataSpec
from valence.errors import SpecError

PAPER = """
title: Reviews
data: {name: demo, imbalance_ratio: 10}
methods: [lora, hy-mora]
seeds: [45, 123]
settings: {encoder.name: roberta-base, train.epochs: 20, loss.weight_clamp: 10}
encoder_settings:
  small: {train.lr_scale: 10}
method_settings:
  lora: {train.patience: 8, train.epochs: 3}
  hy-mora: {train.patience: 8}
published: {hy-mora: {macro_f1: 0.5}}
scaled_down: {seeds: a reason of its own}
"""
SMALL = """
extends: paper.yaml
scaled_down:
  encoder.name: no network
seeds: [45]
settings: {encoder.name: small, loss.weight_clamp: null}
method_settings:
  lora: {train.patience: 2}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "paper.yaml").write_text(PAPER)
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path / "small.yaml"


def test_settings_are_merged_and_other_fields_replaced(small: Path) -> None:
    comparison = read_comparison(small)
    assert comparison.title == "Reviews"
    assert comparison.data == (DataSpec(name="demo", imbalance_ratio=10),)
    assert comparison.seeds == (45,)
    assert comparison.settings == {
        "encoder.name": "small", "train.epochs": 20, "loss.weight_clamp": None,
    }  # fmt: skip
    assert comparison.method_settings["lora"] == {"train.patience": 2, "train.epochs": 3}
    assert comparison.method_settings["hy-mora"] == {"train.patience": 8}
    assert comparison.published == {"hy-mora": {"macro_f1": 0.5}}
    assert comparison.scaled_down == {"encoder.name": "no network"}, "reasons are not inherited"


def test_every_difference_is_named_with_its_reason(small: Path) -> None:
    paper = read_comparison(small.parent / "paper.yaml")
    found = {one.name: one for one in differences(paper, read_comparison(small))}
    assert found["encoder.name"] == SetupDifference(
        "encoder.name", "roberta-base", "small", "no network"
    )
    assert (found["seeds"].published, found["seeds"].here) == ((45, 123), (45,))
    assert found["train.lr_scale"].here == 10, "the settings of the encoder in use count"
    assert found["loss.weight_clamp"].here is None
    assert found["train.patience"].published == 8
    assert found["train.patience"].here == {"lora": 2, "hy-mora": 8}
    assert set(found) == {
        "encoder.name", "seeds", "train.lr_scale", "loss.weight_clamp", "train.patience",
    }  # fmt: skip
    assert differences(paper, paper) == []


def test_a_file_that_extends_itself_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml")
    (tmp_path / "b.yaml").write_text("extends: a.yaml")
    with pytest.raises(SpecError, match="extends itself; use another file"):
        read_comparison(tmp_path / "a.yaml")
    (tmp_path / "c.yaml").write_text("extends: gone.yaml")
    with pytest.raises(SpecError, match=r"gone\.yaml cannot be read"):
        read_comparison(tmp_path / "c.yaml")
    (tmp_path / "d.yaml").write_text("extends: [a.yaml]")
    with pytest.raises(SpecError, match="extends must be a file name"):
        read_comparison(tmp_path / "d.yaml")


def test_differences_as_people_read_them() -> None:
    rows = (DataSpec(name="trec", imbalance_ratio=20, head_count=600), DataSpec(name="cr"))
    assert change_text(SetupDifference("data", (DataSpec(name="trec"), rows[1]), rows)) == (
        "without trec; with trec (imbalance_ratio 20, head_count 600)"
    )
    few = (DataSpec(name="cr", test_per_class=20, groups=("de", "en")),)
    assert change_text(SetupDifference("data", (rows[1],), few)) == (
        "groups – → de,en, test_per_class – → 20"
    )
    assert change_text(SetupDifference("seeds", (45, 123), (45,))) == "without 123"
    assert change_text(SetupDifference("methods", ("a@x/big", "b"), ("b", "a@y/small"))) == (
        "without a@big; with a@small"
    )
    assert change_text(SetupDifference("methods", ("a", "b"), ("b", "a"))) == "another order"
    assert change_text(SetupDifference("train.epochs", 20, 6)) == "20 → 6"
    assert change_text(SetupDifference("train.lr_scale", None, 10)) == "– → 10"
