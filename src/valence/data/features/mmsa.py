"""Feature files of the MMSA layout: from a pickle to checked rows, split by split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from valence.data.plain_values import text_of_bytes
from valence.errors import DataError

SPLITS = {
    "train": ("train",),
    "validation": ("valid", "validation", "val", "dev"),
    "test": ("test",),
}
FEATURES = ("audio", "vision")
NEEDED = ("id", "raw_text", *FEATURES, "regression_labels")
EXTRA_LABELS = {
    "regression_labels_T": "label_text",
    "regression_labels_A": "label_audio",
    "regression_labels_V": "label_vision",
    "annotations": "annotation",
    "classification_labels": "class_id",
}
"""Keys that some files have, and the columns they become."""


@dataclass(frozen=True)
class FeatureRows:
    """The checked rows of one split.

    Attributes:
        columns: id, text, label and what else there is, each N long.
        features: By modality, (N, L, d) or N arrays (length, d), as given.
        lengths: By modality, (N,) real steps.
        notes: What was inferred rather than read.
    """

    columns: dict[str, np.ndarray]
    features: dict[str, Any]
    lengths: dict[str, np.ndarray]
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.columns["id"])


def find_splits(content: object, where: str) -> dict[str, dict[str, Any]]:
    """The splits of a file, under the names used here.

    Raises:
        DataError: if it is no such file or a split is missing.
    """
    if not isinstance(content, dict):
        raise DataError(
            f"{where}: not in the MMSA layout, which is a dict of train, valid and test"
        )
    splits = {}
    for ours, names in SPLITS.items():
        name = next((name for name in names if name in content), None)
        if name is None or not isinstance(content[name], dict):
            has = ", ".join(str(key) for key in list(content)[:8]) or "nothing"
            raise DataError(f"{where}: split {names[0]!r} is missing; the file has: {has}")
        splits[ours] = content[name]
    return splits


def check_split(values: Mapping[str, Any], name: str, where: str) -> FeatureRows:
    """The rows of a split, every key present and every column as long as the ids.

    Raises:
        DataError: naming the split and the key.
    """
    place = f"{where}, split {name!r}"
    missing = [key for key in NEEDED if key not in values]
    if missing:
        has = ", ".join(str(key) for key in list(values)[:20])
        raise DataError(f"{place}: no {', '.join(map(repr, missing))}; it has: {has}")
    ids = np.array([_text(value, place) for value in _column(values["id"])], dtype=object)
    if len(ids) == 0:
        raise DataError(f"{place}: no rows; a split needs at least one")
    _no_double(ids, place)
    texts = [_text(value, place) for value in _column(values["raw_text"])]
    columns = {"id": ids, "text": np.array(texts, dtype=object)}
    columns["label"] = _numbers(values["regression_labels"], "regression_labels", place)
    for key, title in EXTRA_LABELS.items():
        if key in values:
            columns[title] = _extra(values[key], key, place)
    notes: list[str] = []
    if "text" in values:
        notes.append("text features in the file are ignored; texts are encoded from raw_text")
    features = {key: values[key] for key in FEATURES}
    lengths = {key: _lengths(values, key, len(ids), place, notes) for key in FEATURES}
    for key, column in columns.items():
        if len(column) != len(ids):
            raise DataError(
                f"{place}: {len(column)} of {key!r} for {len(ids)} ids; they must match"
            )
    return FeatureRows(columns, features, lengths, notes)


def _column(value: object) -> Sequence[Any]:
    if isinstance(value, np.ndarray):
        return list(value.reshape(len(value), -1)[:, 0]) if value.ndim else []
    return list(value) if isinstance(value, (list, tuple)) else []


def _text(value: object, place: str) -> str:
    return str(text_of_bytes(value, place))


def _numbers(value: object, key: str, place: str) -> np.ndarray:
    try:
        numbers = np.asarray(_column(value), dtype=np.float32)
    except (ValueError, TypeError):
        raise DataError(f"{place}: {key!r} has a value that is not a number") from None
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers))[0]) + 1
        raise DataError(f"{place}, row {row}: {key!r} is not a finite number; remove the row")
    return numbers


def _extra(value: object, key: str, place: str) -> np.ndarray:
    if key == "annotations":
        return np.array([_text(item, place) for item in _column(value)], dtype=object)
    return _numbers(value, key, place)


def _no_double(ids: np.ndarray, place: str) -> None:
    names, counts = np.unique(ids.astype(str), return_counts=True)
    if (counts > 1).any():
        raise DataError(
            f"{place}: id {str(names[counts > 1][0])!r} occurs {counts.max()} times; ids "
            "must be unique"
        )


def _lengths(
    values: Mapping[str, Any], key: str, rows: int, place: str, notes: list[str]
) -> np.ndarray:
    """(N,) real steps of a modality: as given, else by the padding at the end."""
    features = values[key]
    if len(features) != rows:
        raise DataError(f"{place}: {len(features)} of {key!r} for {rows} ids; they must match")
    shapes = [np.shape(row) for row in features]
    first = shapes[0]
    odd = next((i for i, s in enumerate(shapes) if len(s) != 2 or s[1] != first[-1]), None)
    if odd is not None:
        raise DataError(
            f"{place}, row {odd + 1}: {key!r} is {shapes[odd]}; each row must be (steps, "
            f"{first[-1] if first else 'width'})"
        )
    most = np.array([shape[0] for shape in shapes])
    given = values.get(f"{key}_lengths")
    if given is None:
        notes.append(f"{key} lengths are missing; they were inferred from the zeros at the end of "
        f"each "
                     "row")  # fmt: skip
        return np.array([_without_zero_end(row) for row in features], dtype=np.int64)
    lengths = _numbers(given, f"{key}_lengths", place).astype(np.int64)
    if len(lengths) != rows:
        raise DataError(
            f"{place}: {len(lengths)} of '{key}_lengths' for {rows} ids; they must match"
        )
    wrong = (lengths < 0) | (lengths > most)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{place}, row {row + 1}: '{key}_lengths' says {lengths[row]} and the row has "
            f"{most[row]} steps"
        )
    return lengths


def _without_zero_end(row: np.ndarray) -> int:
    real = np.flatnonzero((np.asarray(row) != 0).any(axis=1))
    return int(real[-1]) + 1 if len(real) else 0
