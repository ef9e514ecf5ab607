"""Labels and texts as sources hold them, in plain strings: nothing is guessed in silence."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from valence.data.plain_values import SHOWN, is_nested, shortened, texts_of_bytes, unwrapped
from valence.errors import DataError

_WHOLE = re.compile(r"[+-]?[0-9]+")
_DECIMAL_WHOLE = re.compile(r"([+-]?[0-9]+)\.0+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def plain_texts(column: pd.Series, where: str, *, what: str) -> tuple[pd.Series, list[str]]:
    """The values of a column as strings; empty where there is none.

    Lists of one value are unwrapped. Whole numbers are written without decimals where a missing
    value or a mixture of types made some of them fractions.

    Args:
        column: Of a table, of any type.
        where: Name of the source, for messages.
        what: ``text`` or ``label``.

    Returns:
        The strings, and notes on what was changed.

    Raises:
        DataError: if a value is an object, a list of several values, or bytes that are no text.
    """
    if pd.api.types.is_datetime64_any_dtype(column) or isinstance(column.dtype, pd.StringDtype):
        return column.astype(str).where(column.notna(), ""), []
    values = column.tolist()
    notes = []
    if any(is_nested(value) for value in values):
        values = [unwrapped(value, row, where, what) for row, value in enumerate(values, start=1)]
        notes.append(f"{where}: every {what} is read from a list of one value")
    missing = pd.isna(pd.Series(values, dtype=object)).to_numpy()
    filled = [value for value, gone in zip(values, missing, strict=True) if not gone]
    whole = [v for v in filled if isinstance(v, float) and v.is_integer() and abs(v) < 1e15]
    integers = any(isinstance(v, int) and not isinstance(v, bool) for v in filled)
    floats = sum(isinstance(v, float) for v in filled)
    as_whole = bool(whole) and (integers or len(whole) == floats)
    if as_whole and integers and what == "label":
        notes.append(f"{where}: labels such as {whole[0]!r} and {int(whole[0])} are one class")
    texts = [
        "" if gone else _text(value, as_whole=as_whole)
        for value, gone in zip(values, missing, strict=True)
    ]
    strings = texts_of_bytes(pd.Series(texts, index=column.index, dtype=object), where)
    return strings.astype(str), notes


def _text(value: Any, *, as_whole: bool) -> Any:
    if isinstance(value, bytes | bytearray | memoryview | str):
        return value
    if isinstance(value, float) and as_whole and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return str(value.date())
    return str(value)


def one_spelling(labels: pd.Series, where: str, *, names: Sequence[str], normalize: bool) -> tuple[
    pd.Series, list[str]
]:  # fmt: skip
    """Labels under the names of their classes, and notes on what was changed or looks wrong.

    Args:
        labels: Strings.
        where: Name of the source, for messages.
        names: Names of the classes, if they are known.
        normalize: Whether labels that differ in case, spaces, invisible characters or composition
            alone are one class.

    Raises:
        DataError: if whole numbers count the classes from 1, or may do so.
    """
    counts = Counter(label for label in labels if label)
    notes: list[str] = []
    numbers = _as_numbers(counts, names)
    if numbers:
        old, new = next(iter(numbers.items()))
        notes.append(f"{where}: labels such as {old!r} and {new!r} are one class, {new!r}")
    variants = _variants(counts, names)
    if variants and normalize:
        old, new = next(iter(variants.items()))
        notes.append(f"{where}: {len(variants)} spellings of labels were merged, such as {old!r}")
        numbers |= variants
    elif variants:
        shown = ", ".join(f"{old!r} and {new!r}" for old, new in list(variants.items())[:SHOWN])
        notes.append(
            f"{where}: labels {shown} differ only in case, spaces or invisible characters; merge "
            "them with --normalize-labels"
        )
    if not names or set(counts) - set(numbers) <= set(names):
        return labels.map(lambda label: numbers.get(label, label)), notes
    positions, note = _positions(counts, names, where)
    numbers |= positions
    return labels.map(lambda label: numbers.get(label, label)), [*notes, *filter(None, [note])]


def _as_numbers(counts: Counter[str], names: Sequence[str]) -> dict[str, str]:
    """``1.0`` → ``1`` where both occur, or where the other is the name of a class."""
    known = set(names) or set(counts)
    same = {m[1]: label for label in known if (m := _DECIMAL_WHOLE.fullmatch(label))}
    changed = {}
    for label in counts:
        decimal = _DECIMAL_WHOLE.fullmatch(label)
        if decimal and decimal[1] in known and (label not in names):
            changed[label] = decimal[1]
        elif names and label not in known and label in same:
            changed[label] = same[label]
    return changed


def _variants(counts: Counter[str], names: Sequence[str]) -> dict[str, str]:
    """Labels by the more frequent one, or the name of a class, that is spelled alike."""
    best = {folded(name): name for name in names}
    for label, _ in counts.most_common():
        best.setdefault(folded(label), label)
    return {
        label: best[folded(label)]
        for label in counts
        if best[folded(label)] != label and label not in names
    }


def folded(label: str) -> str:
    """A label without case, composition, invisible characters and differing spaces."""
    seen = "".join(c for c in label if unicodedata.category(c) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", seen).casefold().split()) or label


def _positions(
    counts: Counter[str], names: Sequence[str], where: str
) -> tuple[dict[str, str], str]:
    """Whole numbers as positions in the names, where none of the names is a number."""
    if any(_NUMBER.fullmatch(name) for name in names):
        return {}, ""
    if not all(_WHOLE.fullmatch(label) and label.isascii() for label in counts):
        return {}, ""
    numbers = {label: int(label) for label in counts}
    if all(0 <= number < len(names) for number in numbers.values()) and 0 in numbers.values():
        shown = ", ".join(f"{i} = {name}" for i, name in list(enumerate(names))[:10])
        return {label: names[number] for label, number in numbers.items()}, (
            f"{where}: labels are read as class positions: {shown}"
        )
    if all(1 <= number <= len(names) for number in numbers.values()):
        start, way = "from 1", f"the names, or the positions 0 to {len(names) - 1}"
        if len(names) not in numbers.values():
            start, way = "from 0 or from 1", "the names"
        raise DataError(
            f"{where}: labels {min(numbers.values())} to {max(numbers.values())} may number the "
            f"classes {', '.join(names[:10])} {start}; use {way}"
        )
    return {}, ""


def class_names(frame: pd.DataFrame, given: Sequence[str], where: str) -> tuple[str, ...]:
    """The names of the classes in their order: as they are given, else sorted.

    Args:
        frame: The training rows, with the columns of :func:`unknown_label`.
        given: The names, if they are known; else none.
        where: Name of the source, for messages.

    Raises:
        DataError: if a label is none of the given, or there are fewer than two.
    """
    if given:
        error = unknown_label(frame, given, where)
        if error is not None:
            raise error
        return tuple(given)
    present = set(frame["label"].unique())
    if len(present) < 2:
        only = shortened(next(iter(present), "none"))
        raise DataError(
            f"{where}: all training rows have the label {only!r}; "
            "a classifier needs at least two classes"
        )
    if all(_WHOLE.fullmatch(name) for name in present):
        return tuple(sorted(present, key=int))
    return tuple(sorted(present))


def unknown_label(frame: pd.DataFrame, classes: Sequence[str], where: str) -> DataError | None:
    """The error on the first label that is no class, with its row; None where all are.

    Args:
        frame: Columns ``label`` and ``row``, the number in the source from 0.
        classes: Names of the classes.
        where: Name of the source, for messages.
    """
    wrong = frame[~frame["label"].isin(classes)]
    if not len(wrong):
        return None
    label, row = str(wrong["label"].iloc[0]), int(wrong["row"].iloc[0]) + 1
    alike = next((name for name in classes if folded(name) == folded(label)), None)
    advice = "correct it, or train with rows of this class"
    if alike is not None:
        advice = f"write {shortened(alike)!r}, or use --normalize-labels"
    shown = ", ".join(shortened(name) for name in classes[:20])
    return DataError(
        f"{where}, row {row}: unknown label {shortened(label)!r}; the classes are {shown}; {advice}"
    )
