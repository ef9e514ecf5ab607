"""Cleaning of texts: the table :data:`CLEANERS`, and :func:`clean_text`, which applies them.

The cleaners run in the order of the table whatever the order in which they are named, so that
one never takes away what a later one needs (the full stop at which a negation ends).
"""

from __future__ import annotations

import functools
import html
import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html.entities import html5

from valence.errors import DataError, UnknownNameError


@dataclass(frozen=True)
class Cleaner:
    """One way to clean a text.

    Attributes:
        title: What it does, in one line.
        apply: From a text to the cleaned one; never raises on a text.
    """

    title: str
    apply: Callable[[str], str]


_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{0,40});")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<!--[^<>]*-->|<![A-Za-z][^<>]*>")
# The last character is one with which addresses end, so that a full stop stays in the text.
_URL = re.compile(
    r"(?:https?://|(?<!\w)www\.)[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*[A-Za-z0-9\-_~/#@$&*+=%]",
    re.IGNORECASE,
)
_MENTION = re.compile(r"(?<!\w)(?:@\w+)+")
_HASHTAG = re.compile(r"(?<!\w)#+(?=\w)")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_WORD = re.compile(r"\w+(?:['’]\w+)*")
_LONE_APOSTROPHE = re.compile(r"(?<!\w)['’]|['’](?!\w)")

_CONTRACTIONS = (
    (r"\b(w)on['’]t\b", r"\1ill not"),
    (r"\b(c)an['’]t\b", r"\1annot"),
    (r"\b(sh)an['’]t\b", r"\1all not"),
    (r"\b(l)et['’]s\b", r"\1et us"),
    (r"(?<=[a-z])n['’]t\b", " not"),
    (r"(?<=[a-z])['’]re\b", " are"),
    (r"(?<=[a-z])['’]ve\b", " have"),
    (r"(?<=[a-z])['’]ll\b", " will"),
    (r"\b(i)['’]m\b", r"\1 am"),
    # 'd is mostly would; 's is is only after these words, elsewhere it may be possession.
    (r"\b(i|you|he|she|it|we|they|who|that|there)['’]d\b", r"\1 would"),
    (r"\b(he|she|it|that|there|here|what|who|where|how)['’]s\b", r"\1 is"),
)
_CONTRACTED = tuple((re.compile(p, re.IGNORECASE), r) for p, r in _CONTRACTIONS)

NEGATIONS = frozenset(
    {"no", "not", "nor", "never", "none", "nobody", "nothing", "nowhere", "neither", "cannot"}
    | {"cant", "hardly", "without"}
)
MARK = "NOT_"
_SCOPE = re.compile(r"\w+(?:['’]\w+)*|[.,:;!?…。，！？；]")


def _html(text: str) -> str:
    # Until nothing changes: some texts are escaped twice (&amp;lt;).
    before = ""
    while before != text and ("&" in text or "<" in text):
        before = text
        text = _TAG.sub(" ", _ENTITY.sub(_character, text))
    return text


def _character(entity: re.Match[str]) -> str:
    name = entity.group()
    return html.unescape(name) if name[1] == "#" else html5.get(name[1:], name)


# Looking for a character is many times faster than for a pattern, and most texts have none.
def _urls(text: str) -> str:
    return _URL.sub(" ", text) if "://" in text or "www." in text.lower() else text


def _mentions(text: str) -> str:
    return _MENTION.sub(" ", text) if "@" in text else text


def _hashtags(text: str) -> str:
    return _HASHTAG.sub("", text) if "#" in text else text


def _contractions(text: str) -> str:
    for pattern, whole in _CONTRACTED:
        text = pattern.sub(whole, text)
    return text


def _negates(word: str) -> bool:
    bare = word.lower().replace("’", "'")
    return bare in NEGATIONS or bare.endswith("n't")


def _negation(text: str) -> str:
    marking = False

    def mark(match: re.Match[str]) -> str:
        nonlocal marking
        word = match.group()
        if not (word[0].isalnum() or word[0] == "_"):
            marking = False
            return word
        if _negates(word):
            marking = True
            return word
        return f"{MARK}{word}" if marking and not word.startswith(MARK) else word

    return _SCOPE.sub(mark, text)


@functools.cache
def _punctuation_table() -> dict[int, str]:
    kinds = {"Pd", "Ps", "Pe", "Pi", "Pf", "Po"}  # not Pc: the low line of NOT_
    every = range(sys.maxunicode + 1)
    table = {code: " " for code in every if unicodedata.category(chr(code)) in kinds}
    return {code: space for code, space in table.items() if chr(code) not in "'’"}


def _punctuation(text: str) -> str:
    # Within a word an apostrophe stays: don't is neither dont nor don t.
    return _LONE_APOSTROPHE.sub(" ", text.translate(_punctuation_table()))


@functools.cache
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS) - NEGATIONS


def _drop_stop_words(text: str) -> str:
    words = _stop_words()
    return _WORD.sub(
        lambda match: "" if match.group().removeprefix(MARK).lower() in words else match.group(),
        text,
    )


def _lemmas(text: str) -> str:
    try:
        import simplemma
    except ImportError:
        raise DataError("The cleaner lemmas needs an extra: pip install 'valence[text]'") from None

    def lemma(match: re.Match[str]) -> str:
        word = match.group()
        bare = word.removeprefix(MARK)
        head = word[: len(word) - len(bare)]
        if not bare or _negates(bare):  # the dictionary form of don't is do
            return word
        return head + simplemma.lemmatize(bare, lang="en")

    return _WORD.sub(lemma, text)


CLEANERS: dict[str, Cleaner] = {
    "html": Cleaner("HTML entities become characters, tags a space", _html),
    "urls": Cleaner("web addresses become a space", _urls),
    "mentions": Cleaner("@names become a space", _mentions),
    "hashtags": Cleaner("the sign # goes, its word stays", _hashtags),
    "contractions": Cleaner("English contractions are written out", _contractions),
    "negation": Cleaner("words after a negation, up to punctuation, get NOT_", _negation),
    "digits": Cleaner("numbers become a space", lambda text: _NUMBER.sub(" ", text)),
    "punctuation": Cleaner("punctuation becomes a space", _punctuation),
    "stop-words": Cleaner("English stop words go, negations stay", _drop_stop_words),
    "lemmas": Cleaner("English words become their dictionary form (simplemma)", _lemmas),
    "whitespace": Cleaner("runs of white space become one space", lambda t: " ".join(t.split())),
}
DEFAULT = ("html", "urls", "mentions", "hashtags", "whitespace")


def clean_text(text: str, names: Sequence[str] = DEFAULT) -> str:
    """A text after the named cleaners, in the order of the table.

    Args:
        text: Any text.
        names: Names of :data:`CLEANERS`, in any order.

    Returns:
        The cleaned text; empty where nothing is left of it.

    Raises:
        UnknownNameError: if a name is not in the table.
        DataError: if the extra of a cleaner is not installed.
    """
    for cleaner in _chosen(tuple(names)):
        text = cleaner.apply(text)
    return text


def parse_cleaners(text: str) -> tuple[str, ...]:
    """``"default"``, ``"none"`` or ``"urls,mentions"`` → names in the order of the table.

    ``default`` may stand among other names: ``"default,lemmas"``.

    Raises:
        UnknownNameError: if a name is not in the table.
    """
    names: set[str] = set()
    for name in (part.strip() for part in text.split(",") if part.strip()):
        if name == "default":
            names.update(DEFAULT)
        elif name != "none":
            names.add(name)
    _chosen(tuple(names))
    return tuple(name for name in CLEANERS if name in names)


@functools.cache
def _chosen(names: tuple[str, ...]) -> tuple[Cleaner, ...]:
    for name in names:
        if name not in CLEANERS:
            raise UnknownNameError("cleaner", name, ["default", "none", *CLEANERS])
    return tuple(cleaner for name, cleaner in CLEANERS.items() if name in names)
