"""Texts over the length limit, read in overlapping windows whose outputs are averaged.

A window ends where a word ends. Neighbors overlap by about a quarter of the limit, so that a
word at the edge of one is read in context in the other, and the last window is as long as the
others. The probabilities of a text are the mean over its windows; a text within the limit is
one window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from valence.data.examples import Examples
from valence.models.base import Model, Outputs, Progress

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

OVERLAP_FRACTION = 0.25
LEAST_PROBABILITY = 1e-30  # keeps the logarithm of a mean of zeros finite


def split_windows(
    tokenizer: Tokenizer, texts: Sequence[str], limit: int, *, prompt: str = ""
) -> list[list[str]]:
    """Every text in pieces of at most ``limit`` tokens, special tokens and prompt included.

    Args:
        tokenizer: Of the model; left as it is.
        texts: N texts.
        limit: Most tokens of a piece.
        prompt: What the model puts in front of every piece; the pieces are without it.
    """
    copy = type(tokenizer).from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    room = max(1, limit - copy.num_special_tokens_to_add(False))
    encodings = copy.encode_batch([prompt + text for text in texts], add_special_tokens=False)
    return [
        [text] if len(encoding) <= room else _pieces(text, encoding, room, len(prompt))
        for text, encoding in zip(texts, encodings, strict=True)
    ]


def _pieces(text: str, encoding: Encoding, room: int, begin: int) -> list[str]:
    """Windows of a text whose first character is at ``begin`` of what was encoded."""
    first = next((i for i, (_, end) in enumerate(encoding.offsets) if end > begin), 0)
    room = max(1, room - first)
    words, count = encoding.word_ids[first:], len(encoding) - first
    offsets = [(max(0, a - begin), max(0, b - begin)) for a, b in encoding.offsets[first:]]
    starts = [i == 0 or words[i] != words[i - 1] for i in range(count)] + [True]
    # Tokens that a tokenizer adds, such as a space before the first word, have no span.
    pieces = []
    start, last = 0, _after(starts, count - room)
    while True:
        end = count if start >= last else _before(starts, start + room, start)
        pieces.append(text[offsets[start][0] : offsets[end - 1][1]])
        if end == count:
            return pieces
        onward = _before(starts, end - int(room * OVERLAP_FRACTION), start)
        start = min(onward, last)


def _before(starts: Sequence[bool], place: int, floor: int) -> int:
    """The last start of a word at or before ``place`` and above ``floor``, else ``place``."""
    best = next((i for i in range(place, floor, -1) if starts[i]), place)
    return max(best, floor + 1)


def _after(starts: Sequence[bool], place: int) -> int:
    """The first start of a word at or after ``place``, else ``place``."""
    return next((i for i in range(place, len(starts) - 1) if starts[i]), place)


def predict_windows(model: Model, examples: Examples, progress: Progress | None = None) -> Outputs:
    """As ``model.predict``, the probabilities of long texts averaged over their windows.

    Logits are the logarithm of the mean probabilities where a text has several windows (the
    mean of the numbers where one is predicted); features are their mean. A model without a
    length limit reads texts as they are.
    """
    split = model.windows(examples.texts)
    sizes = np.array([len(pieces) for pieces in split], dtype=np.int64)
    if not len(sizes) or sizes.max() == 1:
        return model.predict(examples, progress)
    outputs = model.predict(Examples([piece for pieces in split for piece in pieces]), progress)
    first = np.cumsum(sizes) - sizes
    logits = outputs.logits[first]
    several = sizes > 1
    if model.task.output_size > 1:
        mean = np.add.reduceat(outputs.probs, first, axis=0) / sizes[:, None]
        logits[several] = np.log(np.maximum(mean[several], LEAST_PROBABILITY))
    else:
        mean = np.add.reduceat(outputs.logits, first, axis=0) / sizes[:, None]
        logits[several] = mean[several]
    features = np.add.reduceat(outputs.features, first, axis=0) / sizes[:, None]
    return replace(outputs, logits=logits, features=features.astype(np.float32))
