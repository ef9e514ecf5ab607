"""Cards of encoders: what is not known is None, and what is known is within its words."""

from __future__ import annotations

import pytest

from valence.models.built_in import BUILT_IN
from valence.models.encoder_cards import ENCODERS, USES, WORKS, XLM_R_LANGUAGES, EncoderCard


@pytest.mark.parametrize("name", ENCODERS)
def test_card_says_only_what_it_may(name: str) -> None:
    card = ENCODERS[name]
    assert card.source, "a fact without a source"
    assert card.use
    assert set(card.use) <= set(USES)
    assert (card.works or frozenset()) <= set(WORKS)
    assert card.hub_name.endswith(name) or not card.hub_name
    for number in (card.millions, card.max_tokens, card.width, card.texts_per_second):
        assert number is None or number > 0
    for code in card.languages or ():
        assert len(code) in (2, 3)
        assert code == code.lower()


def test_speeds_are_of_the_built_in_encoders_alone() -> None:
    measured = {name for name, card in ENCODERS.items() if card.texts_per_second is not None}
    assert measured == set(BUILT_IN)


def test_built_in_encoders_have_cards_that_agree_with_them() -> None:
    for name, built_in in BUILT_IN.items():
        assert ENCODERS[name].hub_name == built_in.hub_name
        assert ENCODERS[name].license == built_in.license


def test_languages_are_known_unknown_or_not_read() -> None:
    assert len(set(XLM_R_LANGUAGES)) == 93
    english = EncoderCard("a/b", 1, ("en",), "English", "MIT", 1, 1, ("CPU",))
    many = EncoderCard("a/b", 1, None, "many", "MIT", 1, 1, ("CPU",))
    assert english.reads_language("en") is True
    assert english.reads_language("sw") is False
    assert many.reads_language("sw") is None
