"""Which built-in encoder reads given texts: :func:`choose_encoder`, for ``--encoder auto``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from valence.config.sections import BUILT_IN_ENCODER, MULTILINGUAL_ENCODER, EncoderSpec
from valence.models.encoder import TextTokenizer

SAMPLE = 1000
"""Texts that are looked at, evenly spread over the rows."""
UNKNOWN_LIMIT = 0.1
"""Fraction of a text's tokens that are unknown above which it cannot be read."""
TOKENS_PER_WORD_LIMIT = 1.7
"""English stays below it, except for technical terms."""
LETTERS_PER_TOKEN_LIMIT = 2.7
"""Technical terms stay above it: their pieces are long."""
UNREAD_LIMIT = 0.15
"""Fraction of texts the English encoder cannot read above which the multilingual one is taken.
English corpora (reviews, tweets, questions, abstracts, newswire) have up to 0.07, those in 19
other languages 0.53 or more, Nigerian Pidgin 0.01."""

_WORD = re.compile(r"\w+")
_ADDRESS = re.compile(r"https?://\S+|[@#]\w+")  # cut into pieces in any language


class EncoderChoice(NamedTuple):
    """An encoder and why it was chosen.

    Attributes:
        name: Of the encoder.
        reason: In one line, for people.
    """

    name: str
    reason: str


def choose_encoder(texts: Sequence[str]) -> EncoderChoice:
    """The English built-in encoder if it can read the texts, else the multilingual one.

    A text counts as unread if more than a tenth of its tokens are unknown to the English encoder,
    or if its words are cut into many short pieces.

    Args:
        texts: Training texts; a sample of them is looked at.
    """
    share = unread_fraction(texts)
    if share > UNREAD_LIMIT:
        reason = f"the English encoder cannot read {share:.0%} of the texts"
        return EncoderChoice(MULTILINGUAL_ENCODER, reason)
    return EncoderChoice(BUILT_IN_ENCODER, f"it can read {1 - share:.0%} of the texts")


def unread_fraction(texts: Sequence[str]) -> float:
    """Fraction of a sample of texts that the English encoder cannot read; 0 without texts."""
    step = max(1, len(texts) // SAMPLE)
    cleaned = (_ADDRESS.sub("", text) for text in texts[::step][:SAMPLE])
    sample = [text for text in cleaned if _WORD.search(text)]
    if not sample:
        return 0.0
    backend = TextTokenizer(EncoderSpec()).backend
    rows = backend(sample, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    lengths = np.array([max(1, len(row)) for row in rows])
    owners = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    unknown = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    unknown_share = np.bincount(owners, unknown == backend.unk_token_id, len(rows)) / lengths
    words = np.array([len(_WORD.findall(text)) for text in sample])
    letters = np.array([sum(map(str.isalpha, text)) for text in sample])
    in_pieces = (lengths / words > TOKENS_PER_WORD_LIMIT) & (
        letters / lengths < LETTERS_PER_TOKEN_LIMIT
    )
    return float(((unknown_share > UNKNOWN_LIMIT) | in_pieces).mean())
