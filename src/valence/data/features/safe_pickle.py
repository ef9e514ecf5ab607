"""Pickles of feature archives, read without running anything that is in them.

A pickle is a program. This reader gives it no function to call but its own few, and no NumPy
object to fill: an array in the pickle becomes a record of its shape, type and bytes, and the
array is made from that record here, after every part of it was looked at. So neither a
``__reduce__`` nor a forged array state (an object array over raw addresses) gets through.
"""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from valence.data.features.pickle_budget import TooCostly, check_budget
from valence.data.file_kind import HEAD, kind_of
from valence.errors import DataError

_TYPE_CODE = re.compile(r"[fiub](1|2|4|8)|[US]\d{1,9}|O8?")
_PLAIN = (str, bytes, bytearray, int, float, complex, bool, type(None))
_DEEPEST = 20
_ESCAPED = re.compile("[\udc80-\udcff]")
"""Bytes of Python 2 that are no UTF-8, as surrogateescape reads them."""
_SWAPPED = ">" if sys.byteorder == "little" else "<"


class _Refused(Exception):
    """Something in a pickle that is no array and no plain container."""


class _Callable:
    """A function a pickle may call; it can be neither changed nor instantiated."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *parts: Any) -> Any:
        return self._make(*parts)

    def __setstate__(self, state: object) -> None:
        raise _Refused("a change of a function")


class _Type:
    """A record of a NumPy type: its code and byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _TYPE_CODE.fullmatch(code):
            raise _Refused(f"arrays of type {str(code)[:40]!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: object) -> None:
        # (version, byte order, sub-array, names, fields, size, alignment, flags …)
        if not isinstance(state, tuple) or len(state) < 5 or state[2:5] != (None, None, None):
            raise _Refused("arrays of records")
        if state[1] not in ("<", ">", "=", "|"):
            raise _Refused("a type without a byte order")
        self.order = state[1]

    def made(self) -> np.dtype[Any]:
        kind = np.dtype(self.code)
        return kind.newbyteorder() if self.order == _SWAPPED else kind

    @property
    def boxed(self) -> bool:
        """True for arrays of Python objects."""
        return self.code.startswith("O")


class _Array:
    """A record of an array, filled by the pickle and made into an array afterwards."""

    __slots__ = ("data", "element_type", "fortran", "shape")

    def __init__(self) -> None:
        self.element_type: _Type | None = None
        self.shape: tuple[int, ...] = ()
        self.data: list[Any] | bytes | bytearray = b""
        self.fortran = False

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("an array of unknown layout")
        _, shape, element_type, fortran, data = state
        self.fill(shape, element_type, data, fortran=bool(fortran))

    def fill(self, shape: object, element_type: object, data: object, *, fortran: bool) -> _Array:
        """Take the parts, each checked."""
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise _Refused("an array without a shape")
        if not isinstance(element_type, _Type):
            raise _Refused("an array without a type")
        if isinstance(data, str):  # what Python 2 wrote
            data = data.encode("utf-8", "surrogateescape")
        if (
            not isinstance(data, (list, bytes, bytearray))
            or isinstance(data, list) != element_type.boxed
        ):
            raise _Refused("an array whose data do not fit its type")
        self.shape, self.element_type, self.data, self.fortran = shape, element_type, data, fortran
        return self

    def made(self, make: Callable[[Any], Any]) -> np.ndarray:
        if self.element_type is None:
            raise _Refused("an array without contents")
        if isinstance(self.data, list):
            flat: np.ndarray = np.empty(len(self.data), dtype=object)
            for i, item in enumerate(self.data):
                flat[i] = make(item)
        else:
            dtype = self.element_type.made()
            flat = np.frombuffer(self.data, dtype) if self.data else np.empty(0, dtype)
        whole: np.ndarray = np.reshape(flat, self.shape, order="F" if self.fortran else "C")
        return whole


def _new_array(*_: object) -> _Array:
    return _Array()


def _from_buffer(data: object, element_type: object, shape: object, order: object = "C") -> _Array:
    return _Array().fill(shape, element_type, data, fortran=order == "F")


def _scalar(kind: object, data: object = None) -> Any:
    if not isinstance(kind, _Type) or kind.boxed:
        raise _Refused("a scalar of objects")
    return _Array().fill((), kind, data, fortran=False)


def _latin1(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused("a text codec other than Latin-1")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    return b""  # how old protocols write the data of an empty array


def _marker(*_: object) -> Any:
    # NumPy names its array class as an argument of its reconstruction; nothing else needs it.
    raise _Refused("a call of numpy.ndarray")


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")

ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    **{(module, "_reconstruct"): _new_array for module in _MULTIARRAY},
    **{(module, "scalar"): _scalar for module in _MULTIARRAY},
    **{(module, "_frombuffer"): _from_buffer for module in _NUMERIC},
    ("numpy", "ndarray"): _marker,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _latin1,
    **{(module, "set"): set for module in ("builtins", "__builtin__")},
    **{(module, "frozenset"): frozenset for module in ("builtins", "__builtin__")},
    **{(module, "bytes"): _no_bytes for module in ("builtins", "__builtin__")},
    ("collections", "OrderedDict"): dict,
}
"""The names a pickle may use, each with the function of ours that stands for it."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise _Refused(f"{module}.{name}")
        return _Callable(ADMITTED[module, name])

    def persistent_load(self, pid: object) -> Any:
        raise _Refused("a reference to something outside the file")


class _ByteStream(Protocol):
    def read(self, n: int = -1, /) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...


def read_pickle(stream: _ByteStream, where: str | Path) -> Any:
    """What a pickle holds: numbers, texts, containers, and arrays of numbers or texts.

    Args:
        stream: The opened pickle.
        where: Its name, for messages.

    Raises:
        DataError: naming what stands in it beside those, or if it is broken.
    """
    try:
        _refuse_foreign(stream, where)
        check_budget(stream)
        return _Maker(where)(_Reader(stream, encoding="utf-8", errors="surrogateescape").load())
    except DataError:
        raise
    except TooCostly as costly:
        raise DataError(
            f"{where} is refused: it needs {costly}, which no feature file does; download the file "
            "from its authors"
        ) from None
    except _Refused as refused:
        raise DataError(
            f"{where} is refused: it contains {refused}, which could run code and no feature file "
            "needs; download the file from its authors"
        ) from None
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a broken pickle fails in any way there is
        reason = (str(error).strip().splitlines() or [""])[0][:120]
        raise DataError(
            f"{where} is not a complete pickle ({type(error).__name__}: {reason}); download it "
            f"again"
        ) from None


def _refuse_foreign(stream: _ByteStream, where: str | Path) -> None:
    start = stream.tell()
    kind = kind_of(stream.read(HEAD))
    stream.seek(start)
    if kind is not None:
        raise DataError(f"{where} is not a pickle but {kind}")


class _Maker:
    """Makes the arrays of what was read; what the pickle shares is made once."""

    def __init__(self, where: str | Path) -> None:
        self.where = where
        # By identity: a few bytes can name one list ten times, ten levels deep.
        self.done: dict[int, Any] = {}
        self.depth = 0

    def __call__(self, value: Any) -> Any:
        if isinstance(value, str) and not value.isascii() and _ESCAPED.search(value):
            raise DataError(
                f"{self.where}: a text is not valid UTF-8; fix it at the source of the file"
            )
        if isinstance(value, _PLAIN):
            return value
        if id(value) in self.done:
            return self.done[id(value)]
        if self.depth > _DEEPEST:
            raise _Refused(f"containers nested deeper than {_DEEPEST}")
        self.depth += 1
        made = self.done[id(value)] = self._make(value)
        self.depth -= 1
        return made

    def _make(self, value: Any) -> Any:
        if isinstance(value, _Array):
            made = value.made(self)
            return made[()] if made.ndim == 0 else made
        if isinstance(value, dict):
            return {self(k): self(v) for k, v in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return type(value)(self(item) for item in value)
        raise _Refused(f"a bare {type(value).__name__.strip('_').lower()}")
