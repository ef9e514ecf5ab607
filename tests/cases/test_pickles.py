"""Pickles of strangers that ask for more than their size, and files that are none."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import pickletools
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valence.data.features.safe_pickle import read_pickle
from valence.data.file_kind import HTML, LFS
from valence.data.formats import reading
from valence.errors import DataError


def read(raw: bytes) -> Any:
    return read_pickle(io.BytesIO(raw), "file.pkl")


def nested_key(levels: int, wide: int = 2) -> bytes:
    """A dict whose key is a tuple of the same tuple, over and over: hashing it never ends."""
    body = b"\x80\x02)q\x00"
    for i in range(levels):
        body += b"(" + b"h%c" % i * wide + b"t" + b"q%c" % (i + 1)
    return b"\x80\x02}" + body[2:] + b"K\x01s."


BOMBS = {
    "a memo of 2^28": b"\x80\x02Nr\x00\x00\x00\x10.",
    "a memo of 2^31": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a text memo": b"Np999999999\n.",
    "a memo beyond the file": b"\x80\x02" + b"Nq\x00" * 20 + b"r\x00\x10\x00\x00.",
    "a key of tuples": nested_key(60),
    "a key of wide tuples": nested_key(12, wide=10),
    "a frozenset of tuples": nested_key(40)[:-4].replace(b"}", b"", 1) + b"(h(\x91.",
    "a text of 2^62 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b".",
    "bytes of 2^40": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b".",
    "a frame of 2^62": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
    "a number of many digits": b"L" + b"9" * 100_000 + b"L\n.",
    "deep lists": b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",
}


@pytest.mark.parametrize("name", BOMBS)
def test_every_bomb_is_refused_at_once(name: str) -> None:
    clock = time.process_time()
    with pytest.raises(DataError) as refused:
        read(BOMBS[name])
    assert time.process_time() - clock < 10
    assert "\n" not in str(refused.value)


WORDS = st.text(st.characters(codec="utf-8"))
ATOMS = st.one_of(
    st.integers(), WORDS, st.binary(), st.booleans(), st.none(), st.floats(allow_nan=False)
)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        ATOMS,
        lambda x: st.one_of(st.lists(x), st.dictionaries(WORDS, x), st.tuples(x, x)),
        max_leaves=40,
    ),
    st.integers(0, pickle.HIGHEST_PROTOCOL),
)
def test_honest_pickles_have_the_budget(value: Any, protocol: int) -> None:
    raw = pickle.dumps(value, protocol)
    assert len(list(pickletools.genops(raw))) > 0
    assert read(raw) == value


def test_many_honest_values_have_the_budget() -> None:
    value = {"key": [(i, (i, i)) for i in range(20_000)], "set": {(i, "x") for i in range(20_000)}}
    assert read(pickle.dumps(value)) == value


def python2(text: bytes) -> bytes:
    return b"\x80\x02U" + bytes([len(text)]) + text + b"."


def test_texts_of_python_2_are_utf8_or_refused() -> None:
    assert read(python2("größer 服务".encode())) == "größer 服务"
    with pytest.raises(DataError, match="not valid UTF-8"):
        read(python2("größer".encode("latin-1")))
    every = bytes(range(256))
    array = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01M\x00\x01\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<I", 256) + every + b"tb."
    )
    np.testing.assert_array_equal(read(array), np.frombuffer(every, dtype=np.uint8))


def zipped(raw: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("data.pkl", raw)
    return out.getvalue()


PICKLE = pickle.dumps({"a": 1})
CONTAINERS = {
    "gzip": (gzip.compress(PICKLE), "gzip"),
    "bzip2": (bz2.compress(PICKLE), "bzip2"),
    "xz": (lzma.compress(PICKLE), "xz"),
    "torch.save": (zipped(PICKLE), "torch.save"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", LFS),
    "HTML": (b"<!DOCTYPE html>\n<html><head><title>Sign in", HTML),
    "html after spaces": (b"\xef\xbb\xbf\n  <HTML lang=en>", HTML),
    "NumPy": (b"\x93NUMPY\x01\x00", "NumPy"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "HDF5"),
    "SQLite": (b"SQLite format 3\0" + bytes(80), "sqlite:///"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_file_of_another_kind_is_told(name: str, tmp_path: Path) -> None:
    raw, kind = CONTAINERS[name]
    with pytest.raises(DataError) as refused:
        read(raw)
    assert kind in str(refused.value)
    assert "complete pickle" not in str(refused.value)
    for suffix in (".csv", ".tsv", ".jsonl", ".parquet"):
        path = tmp_path / f"file{suffix}"
        path.write_bytes(raw)
        with pytest.raises(DataError) as said, reading(path):
            pass
        assert kind in str(said.value)
