"""DataFrames of any library where rows or texts are expected.

Read are those of pandas, and what speaks Arrow or the interchange protocol (polars, pyarrow …).
A frame is never read as its column names, and a text never as its letters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from valence.data.columns import guess_text_column
from valence.data.files import TEXT_COLUMNS, find_column, usual_column
from valence.data.plain_values import texts_of_bytes
from valence.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

PREFIX = "dataframe-"
"""Beginning of the names that frames have among data sets."""


@runtime_checkable
class ArrowStream(Protocol):
    """What gives its rows as Arrow data."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The stream, in a capsule."""


@runtime_checkable
class Interchangeable(Protocol):
    """What gives its rows by the older dataframe interchange protocol."""

    def __dataframe__(self, nan_as_null: bool = False, allow_copy: bool = True) -> object:
        """The interchange object."""


_held: dict[str, pd.DataFrame] = {}


def as_frame(data: object) -> pd.DataFrame | None:
    """A frame of any library as one of pandas; None where it is no frame.

    Raises:
        DataError: if a frame cannot be read.
    """
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, pd.Series):
        return None
    if isinstance(data, ArrowStream):
        import pyarrow as pa

        try:
            table: pd.DataFrame = pa.table(data).to_pandas()
        except (TypeError, ValueError, pa.ArrowException):  # a column of a frame
            return None
        return table
    if isinstance(data, Interchangeable):
        try:
            return pd.api.interchange.from_dataframe(data)
        except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
            kind = type(data).__name__
            raise DataError(
                f"The {kind} cannot be read ({error}); pass a pandas DataFrame"
            ) from None
    return None


def text_column(
    frame: pd.DataFrame, requested: str | None = None, *, trained_on: str | None = None
) -> str:
    """The column of texts of a frame.

    Args:
        frame: The frame.
        requested: The column, if it is named.
        trained_on: The column of a training, which is taken where it is there.

    Raises:
        DataError: if it is not there, none is named and none can be guessed.
    """
    columns = [str(name) for name in frame.columns]
    if requested is not None:
        return find_column(columns, requested, (), what="text", where="The DataFrame")
    if trained_on in columns:
        return str(trained_on)
    if len(columns) == 1:
        return columns[0]
    known = usual_column(columns, TEXT_COLUMNS)
    if known is not None:
        return known
    values = {name: frame.iloc[:, place].tolist() for place, name in enumerate(columns)}
    return guess_text_column(values, where="The DataFrame").name


def texts_of_column(frame: pd.DataFrame, column: str) -> list[str]:
    """The texts of a column; empty where there is none.

    Raises:
        DataError: if several columns have the name, or a value is no text.
    """
    places = [i for i, name in enumerate(frame.columns) if str(name) == column]
    if len(places) > 1:
        raise DataError(f"The DataFrame has several columns {column!r}; rename all but one")
    values = frame.iloc[:, places[0]]
    filled = values.where(values.notna(), "").tolist()
    return _checked(filled, f"column {column!r} of the DataFrame, row")


def list_of_texts(data: Any, column: str | None = None) -> list[str]:
    """Texts given as a list, a column or a frame.

    Args:
        data: A sequence of strings, a Series, or a frame.
        column: Of a frame, the column of texts.

    Raises:
        DataError: if it is one text or a mapping, or holds other things than strings.
    """
    if isinstance(data, str | bytes):
        raise DataError("Pass a list of texts, not a single text")
    if isinstance(data, Mapping | Set) or not _is_iterable(data):
        raise DataError(f"Pass texts as a list or DataFrame, not {type(data).__name__}")
    frame = None if isinstance(data, list | tuple) else as_frame(data)
    if frame is not None:
        return texts_of_column(frame, column or text_column(frame))
    return _checked(list(data), "Text")


def _is_iterable(data: object) -> bool:
    try:
        iter(data)  # type: ignore[call-overload]
    except TypeError:
        return False
    return True


def _checked(values: Sequence[object], where: str) -> list[str]:
    values = texts_of_bytes(list(values), where)
    for i, value in enumerate(values):
        if not isinstance(value, str):
            kind = type(value).__name__
            raise DataError(f"{where} {i} is {kind}, not a string; convert it first")
    return [str(value) for value in values]


@contextmanager
def frames_as_names(data: Sequence[Any]) -> Iterator[list[str]]:
    """Names under which data sets are loaded while a block runs; frames get one by their content.

    Args:
        data: Names of data sets, paths, and frames.
    """
    with ExitStack() as stack:
        names = []
        for one in data:
            frame = None if isinstance(one, str) else as_frame(one)
            names.append(str(one) if frame is None else stack.enter_context(_hold(frame)))
        yield names


@contextmanager
def _hold(frame: pd.DataFrame) -> Iterator[str]:
    name = f"{PREFIX}{_content(frame)}"
    before = _held.get(name)
    _held[name] = frame.reset_index(drop=True)
    try:
        yield name
    finally:
        _held.pop(name)
        if before is not None:  # the same rows are held by a block around this one
            _held[name] = before


def held_frame(name: str) -> pd.DataFrame | None:
    """The frame of a name; None where the name is not one of a frame.

    Raises:
        DataError: if it was one of another call.
    """
    if not name.startswith(PREFIX):
        return None
    if name not in _held:
        raise DataError(f"{name} was a DataFrame in memory; pass its rows again, or a file")
    return _held[name]


def _content(frame: pd.DataFrame) -> str:
    from pandas.util import hash_pandas_object

    digest = hashlib.sha256("\0".join(map(str, frame.columns)).encode())
    for place in range(frame.shape[1]):
        values = hash_pandas_object(frame.iloc[:, place].astype(str), index=False)
        digest.update(values.to_numpy().tobytes())
    return digest.hexdigest()[:12]
