"""The table of methods: what a method does not read makes no other run; families are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from valence import methods
from valence.config.data import DataSpec
from valence.errors import UnknownNameError
from valence.methods.registry import METHODS, make_spec, trained_part, unread


@pytest.mark.parametrize("method", ["majority", "tfidf-lr", "linear-probe"])
def test_training_settings_do_not_touch_what_is_fitted_without_training(method: str) -> None:
    plain = make_spec(method, DataSpec())
    more = make_spec(method, DataSpec(), settings={"train.epochs": 6, "loss.gamma": 5})
    assert more == plain
    other = make_spec(method, DataSpec(), settings={"encoder.max_length": 64})
    assert (other != plain) == (method == "linear-probe"), "the others read no encoder"


def test_settings_that_are_not_read_are_named() -> None:
    given = {"train.epochs": 6, "loss.class_weights": "balanced", "data.sample": 5}
    assert unread("tfidf-lr", given) == ("train.epochs",)
    assert unread("majority", given) == ("train.epochs", "loss.class_weights")
    assert unread("lora", given) == ()


def test_an_unknown_setting_is_refused_even_where_it_would_not_be_read() -> None:
    with pytest.raises(UnknownNameError, match="did you mean"):
        make_spec("majority", DataSpec(), settings={"train.epoch": 6})


def test_adapters_of_the_built_in_encoder_learn_faster_unless_a_rate_is_given() -> None:
    def scale(name: str, **settings: object) -> float | None:
        given = {path.replace("__", "."): value for path, value in settings.items()}
        return make_spec(name, DataSpec(), settings=given).get("train.lr_scale")

    assert scale("lora") == scale("lora-posthoc") == scale("hy-mora") == 10
    assert scale("lora", encoder__name="xlm-roberta-base") == 1
    assert scale("lora", train__learning_rate=3e-3) == 1
    assert scale("lora", train__lr_scale=2) == 2
    assert scale("full") == scale("lstm-roberta") == 1
    assert scale("linear-probe") is None, "nothing is trained at a rate"
    rested = trained_part(make_spec("lora-posthoc", DataSpec()))
    assert rested.digest() == make_spec("lora", DataSpec()).digest()


def test_every_module_with_entries_is_a_family() -> None:
    """A new family of methods is one new file."""
    folder = Path(methods.__path__[0])
    families = [p.stem for p in folder.glob("*.py") if "\nENTRIES" in p.read_text()]
    assert len(families) == len({m.family for m in METHODS.values()}) == 7
    assert all(method.name == name for name, method in METHODS.items())
