"""``--encoder auto`` takes the encoder that reads the texts."""

from __future__ import annotations

import pandas as pd
import pytest

from valence.config.sections import BUILT_IN_ENCODER, MULTILINGUAL_ENCODER
from valence.models.encoder_choice import choose_encoder, unread_fraction

ENGLISH = [
    "The room was clean and the staff were helpful, but breakfast was over-priced.",
    "@user check this out https://t.co/aBcDeFgH #worstdayever not happy at all",
    "Randomized controlled trial of methylprednisolone in acute spinal cord injury",
]
OTHERS = {
    "es": "La habitación estaba limpia pero el desayuno era demasiado caro y el café estaba frío.",
    "de": "Das Zimmer war sauber, aber das Frühstück war viel zu teuer und der Kaffee schmeckte.",
    "pl": "Pokój był czysty, ale śniadanie było zdecydowanie za drogie, a kawa zupełnie zimna.",
    "zh": "房间很干净，但是早餐太贵了，咖啡也是冷的。",
    "ar": "الغرفة كانت نظيفة لكن الفطور كان غاليا جدا والقهوة باردة",
    "sw": "Chumba kilikuwa safi lakini kifungua kinywa kilikuwa ghali sana na kahawa baridi.",
}


def test_english_texts_take_the_english_encoder() -> None:
    choice = choose_encoder(ENGLISH * 20)
    assert choice.name == BUILT_IN_ENCODER
    assert "100%" in choice.reason


@pytest.mark.parametrize("language", OTHERS)
def test_other_languages_take_the_multilingual_encoder(language: str) -> None:
    choice = choose_encoder([OTHERS[language]] * 20)
    assert choice.name == MULTILINGUAL_ENCODER
    assert "cannot read" in choice.reason


def test_a_third_in_another_language_is_enough() -> None:
    assert choose_encoder([*ENGLISH[:2], OTHERS["de"]] * 10).name == MULTILINGUAL_ENCODER


@pytest.mark.parametrize("texts", [[], ["", "  ", "!!! 😀"], ["\ud800"]])
def test_texts_without_words_are_no_reason_for_another(texts: list[str]) -> None:
    assert choose_encoder(texts).name == BUILT_IN_ENCODER


@pytest.mark.parametrize(
    ("corpus", "column", "reads"),
    [
        ("sst5", "text", True),
        ("tweeteval", "text", True),
        ("ohsumed", "text", True),
        ("multiemo/fr", "text", False),
        ("umsab/spanish", "text", False),
        ("afrisenti/yor", "text", False),
        ("smp2020", "text", False),
    ],
)
def test_real_corpora(real_data, corpus: str, column: str, reads: bool) -> None:  # type: ignore[no-untyped-def]
    frame = pd.read_csv(real_data / corpus / "train.csv", nrows=2000)
    column = next(name for name in frame.columns if name in (column, "tweet", "content"))
    share = unread_fraction(frame[column].astype(str).tolist())
    assert share < 0.08 if reads else share > 0.5
