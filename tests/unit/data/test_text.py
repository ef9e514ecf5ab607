from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valence.data.text import CLEANERS, DEFAULT, clean_text, parse_cleaners
from valence.errors import DataError, UnknownNameError

ANY = st.text(st.characters(exclude_categories=()))  # halves of surrogate pairs too
MARKUP = st.lists(
    st.sampled_from(
        ["&amp;", "amp;", "&", "lt;", "&#38;", "#38;", "<", ">", "b", "/", "!--", "--", "https://",
         "http", "://", "www.", "w", "@", "a", "é", "很", ".", ")", " ", "\u00a0", "#", "1", "_",
         "not", "n't", "'", "’", "\0", "\ud800"]
    ),
    max_size=14,
).map("".join)  # fmt: skip
AGAIN = ("html", "urls", "mentions", "whitespace")


@pytest.mark.parametrize("name", CLEANERS)
@settings(max_examples=60, deadline=None)
@given(text=ANY | MARKUP)
def test_no_cleaner_raises(name: str, text: str) -> None:
    assert isinstance(CLEANERS[name].apply(text), str)
    assert isinstance(clean_text(text, tuple(CLEANERS)), str)


@pytest.mark.parametrize("name", AGAIN)
@settings(max_examples=200, deadline=None)
@given(text=ANY | MARKUP)
def test_cleaning_twice_is_cleaning_once(name: str, text: str) -> None:
    once = CLEANERS[name].apply(text)
    assert CLEANERS[name].apply(once) == once


@pytest.mark.parametrize(
    ("names", "text", "cleaned"),
    [
        ("html", "Tom &amp;amp; Ann&nbsp;<b class='x'>said</b> 1 < 2 <3 &#33; this&nothing",
         "Tom & Ann\u00a0 said  1 < 2 <3 ! this&nothing"),
        ("html", "&#" + "9" * 6000 + ";", "&#" + "9" * 6000 + ";"),
        ("urls", "see (https://a.b/c?d=1&e=2). www.x.org, 看https://t.co/a很好 awww.cute",
         "see ( ).  , 看 很好 awww.cute"),
        ("mentions", "@a_b hi @c@d a@b.org", "  hi   a@b.org"),
        ("hashtags", "#sun ##day C# # 1", "sun day C# # 1"),
        ("whitespace", " a\t\u3000b\n ", "a b"),
        ("default", "RT @you: &lt;3 #love https://t.co/x", "RT : <3 love"),
        ("none", " @you ", " @you "),
        ("contractions", "I don't, can't, WON’T; it's Ann's",
         "I do not, cannot, Will not; it is Ann's"),
        ("digits", "at 10:30 for 1,000.50 or v2", "at   for   or v "),
        ("punctuation,whitespace", "well... it's (so) 'good'! 好。", "well it's so good 好"),
        ("stop-words,whitespace", "this is not the best of them", "not best"),
        ("lemmas", "better films were shown", "good film be show"),
        ("negation", "not a good film, but fine", "not NOT_a NOT_good NOT_film, but fine"),
        ("punctuation,negation,stop-words,lemmas,whitespace", "I don't like the films. Nice!",
         "don't NOT_like NOT_film Nice"),
    ],
)  # fmt: skip
def test_what_cleaners_do(names: str, text: str, cleaned: str) -> None:
    assert clean_text(text, parse_cleaners(names)) == cleaned


def test_names_are_put_into_the_order_of_the_table() -> None:
    assert parse_cleaners("default") == DEFAULT
    assert parse_cleaners("none") == ()
    assert parse_cleaners("whitespace, lemmas,urls") == ("urls", "lemmas", "whitespace")
    assert clean_text("@a  b", ("whitespace", "mentions")) == "b"
    with pytest.raises(UnknownNameError, match="did you mean 'mentions'"):
        parse_cleaners("mention")


def test_lemmas_without_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simplemma", None)
    with pytest.raises(DataError, match=r"pip install 'valence\[text\]'"):
        clean_text("films", ("lemmas",))
