"""Pickles of any content: values or one line, soon, and nothing is called."""

from __future__ import annotations

import io
import pickle
import random

import numpy as np
import pytest

from tests.fuzz.changes import FEW, MANY, changed_bytes, outcomes_of, tried
from valence.data.features.safe_pickle import read_pickle

PIECES = [
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"(S'true'\ntR", b"\x93", b"\x81", b"R", b"b", b"q\x00",
    b"r\xff\xff\xff\x7f", b"h\x00", b"]", b"}", b"(", b"t", b"u", b"s", b"a", b"e", b"\x85",
    b"\x86",
    b"\x87", b"\x88", b"N", b"K\x01", b"J\xff\xff\xff\xff", b"\x8a\xff" + b"\xff" * 255, b"0", b"2",
    b".",
    b"\x80\x05", b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"X\xff\xff\xff\x7f", b"\x8c\x04text",
    b"(" * 500, b"]" * 500, b"\x8f", b"\x90", b"\x91", b"P0\n", b"Q", b"I01\n", b"F1e999\n",
]  # fmt: skip


def made(draw: random.Random) -> bytes:
    """A pickle of features, or pieces of one."""
    if draw.random() < 0.3:
        return (
            b"\x80"
            + bytes([draw.randrange(6)])
            + b"".join(draw.choices(PIECES, k=draw.randint(1, 60)))
        )
    values = {
        "train": {
            "raw_text": ["good film"] * draw.randint(0, 5),
            "audio": np.zeros((2, 3), draw.choice([np.float32, np.float64, np.int64])),
            "id": [b"a", ("b", 1), None, 1.5, frozenset([1])],
        }
    }
    return pickle.dumps(values, protocol=draw.randrange(6))


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_any_pickle_is_a_value_or_refused(count: int) -> None:
    def one(draw: random.Random) -> str:
        raw = made(draw)
        raw = raw if draw.random() < 0.2 else changed_bytes(raw, draw, PIECES)
        return tried(lambda: read_pickle(io.BytesIO(raw), "file.pkl"))

    assert outcomes_of(count, one) == {"value", "refused"}
