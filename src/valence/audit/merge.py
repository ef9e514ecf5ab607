"""Corrected labels back into the rows they are of, by row id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from valence.audit.annotation import CORRECTED, ROW_ID
from valence.audit.checks import LabeledSource
from valence.data.groups import SOURCE_ROW
from valence.errors import DataError
from valence.storage import atomic

SHOWN = 5  # labels or row ids that a message names


@dataclass(frozen=True)
class Correction:
    """What a person said of a row.

    Attributes:
        label: The right label; None where there is no answer.
        text: The text the answer is about; None where the file does not say it.
    """

    label: str | None
    text: str | None


@dataclass(frozen=True)
class MergeReport:
    """What was merged.

    Attributes:
        changed: Rows that have another label now.
        confirmed: Rows whose label was right.
        unanswered: Rows not answered, which stay as they were.
        files: What was written.
    """

    changed: int
    confirmed: int
    unanswered: int
    files: tuple[Path, ...]


def read_corrections(path: Path) -> dict[str, Correction]:
    """Corrections by row id, of an export of Label Studio or Argilla, or a table.

    Args:
        path: JSON as either tool exports it, or CSV or Excel with the columns ``row_id`` and
            ``corrected``.

    Raises:
        DataError: if the file cannot be read, or holds no row ids.
    """
    try:
        if path.suffix.lower() == ".json":
            records = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(records, list):
                raise ValueError("not a list")
            return dict(_of_json(record) for record in records)
        if path.suffix.lower() == ".xlsx":
            table = pd.read_excel(path, dtype=str, keep_default_na=False, engine="calamine")
        else:
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows = ({str(k): v for k, v in row.items()} for row in table.to_dict("records"))
        return dict(_of_json(row) for row in rows)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except ImportError:
        raise DataError("Excel files need an extra: pip install 'valence[xlsx]'") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{ROW_ID} is missing" if isinstance(error, KeyError) else error
        raise DataError(
            f"{path} has no corrections ({reason}); use an export of Label Studio (JSON or CSV) "
            f"or Argilla (JSON), or a table with the columns {ROW_ID} and {CORRECTED}"
        ) from None


def _of_json(record: Mapping[str, Any]) -> tuple[str, Correction]:
    if "annotations" in record:  # Label Studio, JSON
        data = record["data"]
        return str(data[ROW_ID]), Correction(_chosen(record["annotations"]), data.get("text"))
    if "fields" in record:  # Argilla
        answers = (record.get("responses") or {}).get(CORRECTED) or []
        label = str(answers[-1]["value"]) if answers else None
        return str(record["id"]), Correction(label, record["fields"].get("text"))
    label = str(record.get(CORRECTED) or "").strip() or None  # a table, or JSON-MIN
    return str(record[ROW_ID]), Correction(label, record.get("text"))


def _chosen(annotations: list[Mapping[str, Any]]) -> str | None:
    """The last answer that was not withdrawn."""
    label = None
    for annotation in annotations:
        if annotation.get("was_cancelled"):
            continue
        for part in annotation["result"]:
            if part.get("from_name") == CORRECTED:
                label = str(part["value"]["choices"][0])
    return label


def merge_corrections(
    source: LabeledSource, corrections: Mapping[str, Correction], out: Path
) -> MergeReport:
    """Write the source with corrected labels; all columns and rows stay.

    Args:
        source: The rows that were audited.
        corrections: By row id.
        out: A CSV file, or a folder where the source has several splits.

    Raises:
        DataError: if an id is of no row, a text is another one, or a label is not known.
        RunError: if a file cannot be written.
    """
    places = zip(source.rows["split"].astype(str), source.rows["row"].astype(int), strict=True)
    place = {f"{split}:{row}": (split, row) for split, row in places}
    texts = dict(zip(place, source.rows["text"].astype(str), strict=True))
    known = dict(zip(place, source.rows["label"].astype(str), strict=True))
    _check(texts, set(known.values()), corrections)
    new: dict[str, dict[int, str]] = {split: {} for split in source.tables}
    confirmed = 0
    for name, own in corrections.items():
        split, row = place[name]
        if own.label == known[name]:
            confirmed += 1
        elif own.label is not None:
            new[split][row] = own.label
    changed = sum(map(len, new.values()))
    files = []
    for split, table in source.tables.items():
        path = out if split == "all" else out / f"{split}.csv"
        labels = table[source.label_column].tolist()
        for row, label in new[split].items():
            labels[row] = label
        whole = table.assign(**{source.label_column: pd.Series(labels, table.index, dtype=object)})
        with atomic.new_file(path) as scratch:
            whole.drop(columns=SOURCE_ROW, errors="ignore").to_csv(scratch, index=False)
        files.append(path)
    unanswered = len(corrections) - changed - confirmed
    return MergeReport(changed, confirmed, unanswered, tuple(files))


def _check(
    texts: Mapping[str, str], labels: set[str], corrections: Mapping[str, Correction]
) -> None:
    unknown = [name for name in corrections if name not in texts]
    if unknown:
        raise DataError(
            f"Row ids {_some(unknown)} are not in the data; merge into the file you audited"
        )
    moved = [
        name for name, own in corrections.items()
        if own.text is not None and own.text.split() != texts[name].split()
    ]  # fmt: skip
    if moved:
        raise DataError(
            f"The texts of {_some(moved)} differ in the data; merge into the file you audited"
        )
    new = sorted({own.label for own in corrections.values() if own.label} - labels)
    if new:
        raise DataError(f"Unknown labels {_some(new)}; known labels: {_some(sorted(labels))}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
