"""The encoding of a text file: by its byte order mark, or the likely one to name in an error.

Nothing here needs pandas.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from pathlib import Path

MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
"""Codecs by byte order mark; that of UTF-32 comes first, as it begins with that of UTF-16."""

GUESSED_BYTES, GUESSED_LINES = 1 << 18, 500
NUL_BYTES = 1 << 12
LATIN = ("cp1252", "cp1250", "cp1254", "cp1257", "iso8859_2", "mac_roman", "cp850")
SURE = 0.95
"""Share of the letters of one language above which other scripts need not be looked at."""
USUAL = (
    *LATIN, "cp1251", "cp1253", "cp1255", "cp1256", "cp874", "koi8_r", "cp866", "cp932", "gb18030",
    "big5", "cp949", "euc_jp",
)  # fmt: skip
ALPHABETS = (
    "äöüß", "àâæçéèêëîïôœùûüÿ", "áéíóúüñ", "àáâãçéêíóôõúü", "àèéìíîòóùú", "åäöæøé",
    "áéèëïíóöúü", "áðéíóúýþæö", "áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "ąćęłńóśźż",
    "áéíóöőúüű", "ăâîşţ", "čćđšž", "çğıöşüâîûi̇", "ąčęėįšųūž", "āčēģīķļņšūž", "äöõüšž",
)  # fmt: skip
"""Letters beside a to z of languages of Europe, a string for each."""
TYPOGRAPHIC = "’‘“”„–—…€£«»¿¡"
_OTHER_SIGN = re.compile("[^\\W\\d_][^\\w\\s!-/:-@\\[-`{-~’‘´–—-][^\\W\\d_]")
_HIRAGANA = re.compile("[\u3041-\u3096]")


def marked_encoding(path: Path) -> str | None:
    """The encoding that the first bytes of a file name: UTF-16 or UTF-32; None if they do not.

    Raises:
        OSError: if the file cannot be read.
        UnicodeError: if it looks like UTF-16 or UTF-32 without the mark.
    """
    with path.open("rb") as file:
        start = file.read(NUL_BYTES)
    for mark, encoding in MARKS.items():
        if start.startswith(mark):
            return encoding
    if _wide_encoding(start):
        raise UnicodeError("no byte order mark")
    return None


def likely_encoding(path: Path) -> str | None:
    """An encoding of spreadsheets in which the beginning of a file is text of a language."""
    from charset_normalizer import from_bytes

    with path.open("rb") as file:
        lines = file.readlines(GUESSED_BYTES)
    if wide := _wide_encoding(b"".join(lines)[:NUL_BYTES]):
        return wide
    raw = b"".join([line for line in lines if not line.isascii()][:GUESSED_LINES])
    if not raw:
        return None
    for encoding in ("cp932", "euc_jp"):
        text = raw.decode(encoding, errors="ignore")
        other = sum(not letter.isascii() for letter in text)
        if _decodes(raw, encoding) and len(_HIRAGANA.findall(text)) > other / 6:
            return encoding
    matches = from_bytes(raw, cp_isolation=list(USUAL))
    first = next((match.encoding for match in matches if match.encoding in USUAL), None)
    shares = {n: _share_of_a_language(raw.decode(n)) for n in LATIN if _decodes(raw, n)}
    best = max(shares, key=shares.__getitem__, default=None)
    if best and (first in LATIN or shares[best] > SURE):
        return best
    letters = raw.decode("koi8_r", errors="replace") if first == "koi8_r" else ""
    if sum(map(str.isupper, letters)) > sum(map(str.islower, letters)):
        return "cp1251"  # whose small letters are the capitals of the other
    return first


def _wide_encoding(start: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, by the places of the zeros in text that is part ASCII."""
    whole = start[: len(start) // 4 * 4]
    zeros = [whole[place::4].count(0) / max(1, len(whole) // 4) for place in range(4)]
    for encoding, places in (
        ("utf-32-le", (1, 2, 3)), ("utf-32-be", (0, 1, 2)), ("utf-16-le", (1, 3)),
        ("utf-16-be", (0, 2)),
    ):  # fmt: skip
        if min(zeros[place] for place in places) > 0.3:
            return encoding
    return None


def _decodes(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _share_of_a_language(text: str) -> float:
    """The share of signs beyond ASCII that one language has; those within words count against."""
    counts = Counter(text.lower())
    signs = {
        c: n for c, n in counts.items() if not c.isascii() and (c.isalpha() or c in TYPOGRAPHIC)
    }
    own = max(
        sum(n for c, n in signs.items() if c in alphabet or c in TYPOGRAPHIC)
        for alphabet in ALPHABETS
    )
    return own / max(1, sum(signs.values()) + len(_OTHER_SIGN.findall(text)))
