"""Settings that a method does not read do not make another run of it."""

from __future__ import annotations

import pytest

from valence.config.data import DataSpec
from valence.errors import UnknownNameError
from valence.methods.registry import make_spec, trained_part


@pytest.mark.parametrize("method", ["majority", "tfidf-lr", "linear-probe"])
def test_training_settings_do_not_touch_what_is_fitted_without_training(method: str) -> None:
    plain = make_spec(method, DataSpec())
    more = make_spec(method, DataSpec(), settings={"train.epochs": 6, "loss.gamma": 5})
    assert more == plain
    assert make_spec(method, DataSpec(), settings={"encoder.max_length": 64}) != plain


def test_an_unknown_setting_is_refused_even_where_it_would_not_be_read() -> None:
    with pytest.raises(UnknownNameError, match="did you mean"):
        make_spec("majority", DataSpec(), settings={"train.epoch": 6})


def test_adapters_of_the_built_in_encoder_learn_faster_unless_a_rate_is_given() -> None:
    def scale(name: str, **settings: object) -> float:
        given = {path.replace("__", "."): value for path, value in settings.items()}
        return make_spec(name, DataSpec(), settings=given).train.lr_scale

    assert scale("lora") == scale("lora-posthoc") == scale("hy-mora") == 10
    assert scale("lora", encoder__name="xlm-roberta-base") == 1
    assert scale("lora", train__learning_rate=3e-3) == 1
    assert scale("lora", train__lr_scale=2) == 2
    assert scale("full") == scale("lstm-roberta") == scale("linear-probe") == 1
    rested = trained_part(make_spec("lora-posthoc", DataSpec()))
    assert rested.hash() == make_spec("lora", DataSpec()).hash()
