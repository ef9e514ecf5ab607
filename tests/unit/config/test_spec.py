"""Specs: overrides, digests, YAML, older files, and errors a person can act on."""

from __future__ import annotations

import pytest

from valence.config.data import DataSpec
from valence.config.overrides import parse_axis, parse_setting
from valence.config.spec import RunSpec, setting_paths
from valence.errors import SpecError, UnknownNameError
from valence.methods.registry import (
    METHODS,
    find_method,
    make_spec,
    parse_spec,
    read_spec,
    trained_part,
)


def lora(**settings: object) -> RunSpec:
    return make_spec("lora", DataSpec(), settings=settings)


@pytest.mark.parametrize("name", METHODS)
def test_yaml_round_trip(name: str) -> None:
    spec = make_spec(name, DataSpec(name="sst5", train_counts={"a": 3}), seed=7)
    assert read_spec(spec.to_yaml()) == spec
    assert parse_spec(spec.model_dump(mode="json")) == spec


def test_digest_follows_settings_but_not_what_decides_speed() -> None:
    spec = lora()
    assert spec.override({"train.epochs": 3}).digest() != spec.digest()
    assert spec.override({"train.device": "cpu"}).digest() == spec.digest()
    assert spec.override({"train.epochs": spec.config.train.epochs}).digest() == spec.digest()
    assert spec.override({"seed": 2}).digest() != spec.digest()


def test_unknown_setting_names_the_closest() -> None:
    with pytest.raises(UnknownNameError, match=r"'train.epochs'"):
        lora().override({"train.epoch": 3})
    with pytest.raises(UnknownNameError, match=r"'loss.temperature'"):
        parse_axis("loss.temprature=1,2")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"train.epochs": 0}, "train.epochs = 0"),
        ({"encoder.adaptation": "qlora"}, "encoder.adaptation"),
        ({"data.train_counts": {"a": 1}, "data.train_total": 5}, "use either train_counts"),
    ],
)
def test_wrong_value_says_which_and_why(setting: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        lora().override(setting)
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
    reads = "train.epochs" in spec.paths()
    epochs = method.settings.get("train.epochs", 3)  # a method's own setting wins
    expected = (epochs, 2) if reads else (None, None)
    assert (spec.get("train.epochs"), spec.get("train.patience")) == expected
    assert method.reads(spec.config) <= set(type(spec.config).paths())
    base = trained_part(spec)
    assert trained_part(base) == base


def test_what_makes_a_method_wins_over_common_settings() -> None:
    spec = make_spec("full", DataSpec(), common={"train.learning_rate": 1.0})
    assert spec.get("train.learning_rate") == 2e-5
    spec = make_spec("full", DataSpec(), settings={"train.learning_rate": 1.0})
    assert spec.get("train.learning_rate") == 1


def test_posthoc_trains_the_spec_of_its_base() -> None:
    posthoc, base = (make_spec(n, DataSpec(), seed=3) for n in ("lora-posthoc", "lora"))
    assert trained_part(posthoc) == base


def test_settings_are_read_under_their_former_names() -> None:
    spec = make_spec("llm-zero-shot", DataSpec(), settings={"llm.quantisation": "none"})
    assert spec.get("llm.quantization") == "none"
    assert parse_setting("llm.quantisation=nf4") == ("llm.quantisation", "nf4")
    values = spec.model_dump(mode="json")
    values["config"]["llm"]["quantisation"] = values["config"]["llm"].pop("quantization")
    assert parse_spec(values) == spec
