"""The restricted reader: everything an honest file holds, nothing that a hostile one tries."""

from __future__ import annotations

import builtins
import collections
import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from valence.data.features.safe_pickle import ADMITTED, read_pickle
from valence.errors import DataError


def read(raw: bytes) -> Any:
    return read_pickle(io.BytesIO(raw), "file.pkl")


class Calls:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@settings(max_examples=80, deadline=None)
@given(
    hnp.arrays(
        dtype=st.sampled_from(["<f4", ">f8", "i8", "?", "<f2", "u1", "U7", "S3"]),
        shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    st.integers(2, pickle.HIGHEST_PROTOCOL),
)
def test_arrays_come_back(array: np.ndarray, protocol: int) -> None:
    for given_array in (array, np.asfortranarray(array)):
        found = read(pickle.dumps({"a": given_array, "b": [array, array]}, protocol))
        np.testing.assert_array_equal(found["a"], array)
        assert array.ndim == 0 or found["a"].dtype == array.dtype
        assert found["b"][0] is found["b"][1] or array.ndim == 0


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_containers_and_scalars_come_back(protocol: int) -> None:
    value = {
        "texts": np.array(["a", "längere", None], dtype=object),
        "number": np.float32(1.5),
        "set": {1, 2},
        "tuple": (1, b"x", 2.5, True, None),
        "ordered": collections.OrderedDict(a=1),
        "nested": [{"x": np.arange(3)}],
    }
    found = read(pickle.dumps(value, protocol))
    assert found["texts"].tolist() == ["a", "längere", None]
    assert found["number"] == np.float32(1.5)
    assert found["set"] == {1, 2}
    assert found["tuple"] == (1, b"x", 2.5, True, None)
    assert found["ordered"] == {"a": 1}
    assert found["nested"][0]["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_old_and_new_numpy_paths(module: str) -> None:
    raw = pickle.dumps(np.arange(4, dtype=np.float32), 2)
    for name in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        raw = raw.replace(name, module.encode())
    assert read(raw).tolist() == [0, 1, 2, 3]


TARGET = "touched"


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (Calls(os.system, f"touch {TARGET}"), r"\.system"),
        (Calls(builtins.eval, f"open({TARGET!r}, 'w')"), r"builtin.*\.eval"),
        (Calls(builtins.getattr, "", "format"), r"builtin.*\.getattr"),
        (Calls(np.load, TARGET), r"numpy\.load"),
        (Calls(np.fromfile, "/etc/hostname"), r"fromfile"),
        (Calls(np.memmap, TARGET, "u1", "w+", 0, 3), r"numpy\.memmap|memmap"),
        (Calls(io.open, TARGET, "w"), r"open"),
        (Calls(pickle.loads, b"N."), r"loads"),
        (Calls(collections.Counter, "abc"), r"collections\.Counter"),
    ],
)
@pytest.mark.parametrize("where", ["bare", "value", "object array", "key", "scalar list"])
def test_hostile_calls_are_refused_and_named(
    call: Calls, named: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrapped: dict[str, Any] = {
        "bare": call,
        "value": {"train": {"audio": call}},
        "object array": {"train": {"audio": np.array([1, [call]], dtype=object)}},
        "key": {call: 1},
        "scalar list": [np.float32(1), (call,)],
    }
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        raw = pickle.dumps(wrapped[where], protocol)
        with pytest.raises(DataError, match=named) as refused:
            read(raw)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / TARGET).exists()


def instructions(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


NDARRAY = b"cnumpy\nndarray\n"
DTYPE = b"cnumpy\ndtype\n"


def test_what_python_2_wrote() -> None:
    # Array bytes are a plain string there.
    array = np.array([1.5, -2.0], dtype="<f4")
    kind = DTYPE + b"U\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01K\x02\x85" + kind + b"\x89U\x08" + array.tobytes() + b"tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n" + NDARRAY + b"K\x00\x85U\x01b\x87R"
    assert read(instructions(empty, state)).tolist() == [1.5, -2.0]


def test_a_forged_object_array_over_raw_addresses_is_refused() -> None:
    # An object type whose state denies that it holds objects, filled with bytes.
    kind = DTYPE + b"X\x02\x00\x00\x00O8K\x00K\x01\x87R(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xff"
    kind += b"J\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n" + NDARRAY + b"K\x00\x85U\x01b\x87R"
    state = b"(K\x01K\x01\x85" + kind + b"\x89U\x08" + struct.pack("<q", 0x41414141) + b"tb"
    with pytest.raises(DataError, match="data do not fit its type"):
        read(instructions(array, state))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (instructions(NDARRAY, b"J\xff\xff\xff\x7f\x85R"), r"call of numpy\.ndarray"),
        (instructions(NDARRAY, b"K\x05\x85\x81"), "NEWOBJ|not a complete pickle"),
        (instructions(DTYPE, b"}U\x01xK\x01sb"), "change of a function"),
        (instructions(NDARRAY), "bare callable"),
        (instructions(b"U\x01xQ"), "outside the file"),
        (instructions(DTYPE, b"U\x02m8K\x00K\x01\x87R"), "arrays of type 'm8'"),
        (instructions(DTYPE, b"U\x02f4K\x00K\x01\x87R"), "bare type"),
        (instructions(b"c_codecs\nencode\nU\x01xU\x06rot_13\x86R"), "Latin-1"),
        (b"", "not a complete pickle"),
        (b"\x80\x04\x95\xff\xff", "not a complete pickle"),
        (b"PK\x03\x04 not a pickle", "a ZIP archive"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '|O'", "a NumPy file"),
    ],
)
def test_odd_programs_are_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as refused:
        read(raw)
    assert str(refused.value).startswith("file.pkl")


def test_records_with_fields_are_refused() -> None:
    table = np.zeros(2, dtype=[("a", "f4"), ("b", "O")])
    with pytest.raises(DataError, match="arrays of"):
        read(pickle.dumps(table))
    with pytest.raises(DataError, match="arrays of"):
        read(pickle.dumps(np.array(["2020-01-01"], dtype="M8[D]")))


def test_wrong_shapes_are_broken_files() -> None:
    raw = pickle.dumps(np.zeros((2, 3), dtype=np.float32), 2)
    assert raw.count(b"K\x02K\x03\x86") == 1
    with pytest.raises(DataError, match="not a complete pickle"):
        read(raw.replace(b"K\x02K\x03\x86", b"K\x02K\x09\x86"))


def test_shared_and_cyclic_containers_cost_nothing() -> None:
    layer: list[Any] = ["x"]
    for _ in range(15):
        layer = [layer] * 10
    assert len(read(pickle.dumps(layer))) == 10
    cycle: list[Any] = []
    cycle.extend([cycle, cycle])
    with pytest.raises(DataError, match="deeper"):
        read(pickle.dumps(cycle))


def test_nothing_that_is_admitted_is_a_class_or_function_of_others() -> None:
    harmless = {set, frozenset, dict}
    for made in ADMITTED.values():
        assert made in harmless or made.__module__ == "valence.data.features.safe_pickle"
