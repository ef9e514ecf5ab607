"""Texts that hold a model's control tokens: data, never commands.

A tokenizer reads ``<|im_end|>`` in a review as the end of the question, and what follows as the
model's own answer. A space inside such a token leaves its letters and takes its power.
"""

from __future__ import annotations

import re
from typing import Any

USUAL = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|</?s>|<(?:start|end)_of_(?:turn|image)>|<[be]os>|\[/?INST\]|<</?SYS>>"
    r"|<\uff5c[^<>\uff5c\s]{1,40}\uff5c>"
)
"""Control tokens of the usual families, for servers whose tokenizer is not known here."""


def control_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    """What a tokenizer reads as control tokens: special ones, and those its chat template writes.

    Args:
        tokenizer: Of transformers.
    """
    template = str(tokenizer.chat_template or "")
    added = tokenizer.added_tokens_decoder.values()
    names = {
        token.content for token in added
        if len(token.content.strip()) > 1
        and (token.special or (token.content in template and not token.content.isalnum()))
    }  # fmt: skip
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def as_data(text: str, tokens: re.Pattern[str] | None = USUAL) -> str:
    """The text with a space behind the first character of every control token in it."""
    if tokens is None:
        return text
    while tokens.search(text):  # what is left may make another one
        text = tokens.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
    return text
