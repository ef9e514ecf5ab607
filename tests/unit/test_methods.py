"""Settings that a method does not read do not make another run of it."""

from __future__ import annotations

import pytest

from valence.errors import UnknownNameError
from valence.methods import make_spec
from valence.spec import DataSpec


@pytest.mark.parametrize("method", ["majority", "tfidf-lr", "linear-probe"])
def test_training_settings_do_not_touch_what_is_fitted_without_training(method: str) -> None:
    plain = make_spec(method, DataSpec())
    more = make_spec(method, DataSpec(), settings={"train.epochs": 6, "loss.gamma": 5})
    assert more == plain
    assert make_spec(method, DataSpec(), settings={"encoder.max_length": 64}) != plain


def test_an_unknown_setting_is_refused_even_where_it_would_not_be_read() -> None:
    with pytest.raises(UnknownNameError, match="did you mean"):
        make_spec("majority", DataSpec(), settings={"train.epoch": 6})
