"""Specs: overrides, hashes, YAML, and errors a person can act on."""

from __future__ import annotations

import pytest

from valence.config.data import DataSpec
from valence.config.overrides import parse_axis, parse_setting
from valence.config.spec import RunSpec, setting_paths
from valence.errors import SpecError, UnknownNameError
from valence.methods.registry import METHODS, find_method, make_spec, trained_part


def test_yaml_round_trip() -> None:
    spec = make_spec("hy-mora", DataSpec(name="sst5", train_counts={"a": 3}), seed=7)
    assert RunSpec.from_yaml(spec.to_yaml()) == spec


def test_hash_follows_settings_and_data_but_not_the_device() -> None:
    spec = RunSpec()
    assert spec.hash("a") != spec.hash("b")
    assert spec.override({"train.epochs": 3}).hash() != spec.hash()
    assert spec.override({"train.device": "cpu"}).hash() == spec.hash()
    assert spec.override({"train.epochs": spec.train.epochs}).hash() == spec.hash()


def test_unknown_setting_names_the_closest() -> None:
    with pytest.raises(UnknownNameError, match=r"'train.epochs'"):
        RunSpec().override({"train.epoch": 3})
    with pytest.raises(UnknownNameError, match=r"'loss.temperature'"):
        parse_axis("loss.temprature=1,2")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"train.epochs": 0}, "train.epochs = 0"),
        ({"encoder.adaptation": "qlora"}, "encoder.adaptation"),
        ({"data.train_counts": {"a": 1}, "data.train_total": 5}, "not both"),
    ],
)
def test_wrong_value_says_which_and_why(setting: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        RunSpec().override(setting)
    assert "\n" not in str(caught.value)


def test_settings_read_numbers_words_and_nothing() -> None:
    assert parse_setting("train.learning_rate=1e-4") == ("train.learning_rate", 1e-4)
    assert parse_setting("loss.weight_clamp=null") == ("loss.weight_clamp", None)
    assert parse_setting("loss.name=focal") == ("loss.name", "focal")
    assert parse_axis("loss.temperature=.05,.1") == ("loss.temperature", (0.05, 0.1))
    with pytest.raises(SpecError, match=r"name=value"):
        parse_setting("train.epochs")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_makes_a_spec_and_says_what_it_is(name: str) -> None:
    method = find_method(name)
    assert method.title
    assert set(method.settings) <= set(setting_paths())
    spec = make_spec(name, DataSpec(), common={"train.epochs": 3}, settings={"train.patience": 2})
    trains = method.kind != "sklearn"  # what does not train keeps the defaults
    epochs = method.settings.get("train.epochs", 3)  # a method's own setting wins
    expected = (epochs, 2) if trains else (RunSpec().train.epochs, RunSpec().train.patience)
    assert (spec.train.epochs, spec.train.patience, spec.kind) == (*expected, method.kind)
    assert trained_part(spec).kind != "posthoc"


def test_what_makes_a_method_wins_over_common_settings() -> None:
    spec = make_spec("full", DataSpec(), common={"train.learning_rate": 1.0})
    assert spec.train.learning_rate == 2e-5
    assert (
        make_spec("full", DataSpec(), settings={"train.learning_rate": 1.0}).train.learning_rate
        == 1
    )


def test_posthoc_trains_the_spec_of_its_base() -> None:
    posthoc, base = (make_spec(n, DataSpec(), seed=3) for n in ("lora-posthoc", "lora"))
    assert trained_part(posthoc).hash() == base.hash()
