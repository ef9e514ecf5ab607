"""Texts in which nothing is seen."""

from __future__ import annotations

import re

_BLANK = re.compile(
    r"[\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f"
    r"\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]*"
)


def is_blank(text: str) -> bool:
    """Whether a text has nothing that is seen: white space and invisible characters alone."""
    return _BLANK.fullmatch(text) is not None
